//! The scripts that count requests and guesses, in a real Redis but by a clock that the test turns, so that hours pass at once.

use std::cell::RefCell;
use std::time::Duration;

use api_server::limits::{guesses, requests};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::{Client, Connection, Script};
use tokio::time::Instant;
use uuid::Uuid;

use crate::services::{Access, variable};

/// Where the test's clock begins, in microseconds: about as far as Redis' own, so that numbers are as large.
const BEGIN: i64 = 1_800_000_000_000_000;

/// A connection to the primary.
fn primary() -> Connection {
    let password = variable("TANKA_TEST_REDIS_PASSWORD");
    for address in variable("TANKA_TEST_REDIS_ADDRESSES").split(',') {
        let client = Client::open(format!("redis://:{password}@{address}/0")).unwrap();
        let mut connection = client.get_connection().unwrap();
        let information: String = redis::cmd("INFO")
            .arg("replication")
            .query(&mut connection)
            .unwrap();
        if information.contains("role:master") {
            return connection;
        }
    }
    panic!("no member is the primary");
}

/// A script with parts of it replaced, each of which must be there.
fn altered(script: &str, parts: &[(&str, &str)]) -> Script {
    let mut text = script.to_owned();
    for (part, other) in parts {
        assert!(text.contains(part), "{part}");
        text = text.replace(part, other);
    }
    Script::new(&text)
}

/// The time is the last argument instead of Redis' own.
const CLOCK: (&str, &str) = ("redis.call('TIME')", "{0, ARGV[#ARGV]}");
/// What is stored ends by Redis' clock, which is not the test's.
const END: (&str, &str) = ("'PX', math.ceil((wanted - now) / 1000) + 1", "'EX', 600");

/// Runs a property with values of a strategy.
fn check<S: Strategy>(strategy: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(strategy, property)
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// A count of requests in Redis.
struct Requests<'r> {
    redis: &'r RefCell<Connection>,
    script: &'r Script,
    key: String,
    interval: i64,
    burst: i64,
}

/// What the script answers.
#[derive(Debug)]
struct Answer {
    allowed: bool,
    remaining: i64,
    retry: i64,
    reset: i64,
}

impl Requests<'_> {
    fn ask(&self, cost: i64, now: i64) -> Answer {
        let answer: Vec<i64> = self
            .script
            .key(&self.key)
            .arg(self.interval)
            .arg(self.burst)
            .arg(cost)
            .arg(now)
            .invoke(&mut *self.redis.borrow_mut())
            .unwrap();
        let [allowed, remaining, retry, reset] = answer[..] else {
            panic!("{answer:?}");
        };
        Answer {
            allowed: allowed == 1,
            remaining,
            retry,
            reset,
        }
    }
}

/// All that is admitted in some span of time is at most the burst and that span's share.
fn is_within_quota(admitted: &[(i64, i64)], interval: i64, burst: i64) -> bool {
    (0..admitted.len()).all(|first| {
        let mut sum = 0_i64;
        admitted[first..].iter().all(|(at, cost)| {
            sum += *cost;
            sum * interval <= burst * interval + *at - admitted[first].0
        })
    })
}

/// F53, T20: the count that all processes share admits no more than the quota in any span of time, says exactly how long to wait and how
/// many remain, and is not changed by questions and refusals.
#[tokio::test]
async fn the_shared_count_of_requests_keeps_its_quota() {
    let _access = Access::shared().await;
    let (redis, script) = (RefCell::new(primary()), altered(requests::SCRIPT, &[CLOCK, END]));
    let pause = prop_oneof![4 => Just(0_i64), 4 => 0_i64..2_000, 1 => 0_i64..30_000];
    let arrivals = proptest::collection::vec((pause, 1_i64..=3), 0..40);
    check(
        &(60_i64..=60_000_000, 3_i64..=20, arrivals),
        |(interval, burst, arrivals)| {
            let requests = Requests {
                redis: &redis,
                script: &script,
                key: format!("tanka:limit:test:{}", Uuid::new_v4().simple()),
                interval,
                burst,
            };
            let (mut now, mut admitted) = (BEGIN, Vec::new());
            for (pause, cost) in arrivals {
                now += interval * pause / 1_000;
                let asked = requests.ask(0, now);
                let answer = requests.ask(cost, now);
                prop_assert_eq!(answer.allowed, cost <= asked.remaining, "{:?}", asked);
                if answer.allowed {
                    prop_assert_eq!(answer.remaining, asked.remaining - cost);
                    prop_assert_eq!(answer.reset, asked.reset + cost * interval);
                    admitted.push((now, cost));
                }
            }
            prop_assert!(is_within_quota(&admitted, interval, burst));
            let mut refused = requests.ask(1, now);
            while refused.allowed {
                refused = requests.ask(1, now);
            }
            prop_assert!((1..=interval).contains(&refused.retry), "{refused:?}");
            now += refused.retry - 1;
            prop_assert_eq!(requests.ask(1, now).retry, 1);
            prop_assert!(requests.ask(1, now + 1).allowed);
            Ok(())
        },
    );
}

/// F53: guesses are counted in Redis as a process counts them for itself, whose laws are shown beside its code.
#[tokio::test]
async fn the_shared_count_of_guesses_is_that_of_one_process() {
    let _access = Access::shared().await;
    let (redis, script) = (RefCell::new(primary()), altered(guesses::SCRIPT, &[CLOCK]));
    // Milliseconds, never so many that the guesses before are forgotten.
    let pause = prop_oneof![2 => Just(0_u64), 4 => 0_u64..3_000, 2 => 0_u64..1_000_000];
    check(&proptest::collection::vec(pause, 0..40), |pauses| {
        let key = format!("tanka:guess:test:{}", Uuid::new_v4().simple());
        let (mut alone, begin, mut passed) = (guesses::Alone::default(), Instant::now(), Duration::ZERO);
        for pause in pauses {
            passed += Duration::from_millis(pause);
            let now = BEGIN + i64::try_from(passed.as_micros()).unwrap();
            let answer: Vec<i64> = script
                .key(&key)
                .arg(&guesses::arguments()[..])
                .arg(now)
                .invoke(&mut *redis.borrow_mut())
                .unwrap();
            let wait = i64::try_from(alone.begin(&key, begin + passed).as_micros()).unwrap();
            prop_assert_eq!(answer, vec![wait]);
        }
        Ok(())
    });
}
