//! The cache: what a write replaces is gone everywhere, a crowd of misses is one load, no race leaves a stale answer, and Redis may go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api_server::cache::kind::{Entity, Kind};
use api_server::cache::tiers::{Cached, Source};
use api_server::routing::fleet::InvalidationSink;
use api_server::routing::{Position, Read, ReadHandle, Scope, StoreError};
use axum::http::Method;
use futures::StreamExt;
use redis::aio::MultiplexedConnection;
use serde::Serialize;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::app::{PATIENCE, Person, TestApp, until};
use crate::services::{connect, control, variable};

pub const LIST: &str = "/api/v1/memories";

pub async fn remember(app: &TestApp, person: &Person, content: &str) -> crate::app::Reply {
    app.post_as(person, LIST, json!({"content": content})).await
}

pub fn contents(reply: &crate::app::Reply) -> Vec<String> {
    let items = reply.json()["items"].as_array().unwrap().clone();
    let content = |item: &serde_json::Value| item["content"].as_str().unwrap().to_owned();
    items.iter().map(content).collect()
}

/// T26, T27, F02, J23: the second look is a hit, and a write is seen at once on the server that took it and soon on the other.
#[tokio::test]
async fn what_a_write_replaces_is_gone_on_every_server() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let (person, stranger) = (app.person().await, app.person().await);
    let first = remember(&app, &person, "tea").await.expect(201);
    for server in [&app, &other] {
        until("the list is cached", async || {
            let reply = server.get_after(&person, LIST, &first).await.expect(200);
            assert_eq!(contents(&reply), ["tea"]);
            reply.header("x-cache") == "hit"
        })
        .await;
    }
    let second = remember(&app, &person, "coffee").await.expect(201);
    assert_eq!(
        contents(&app.get_as(&person, LIST).await.expect(200)),
        ["coffee", "tea"]
    );
    let own = other.get_after(&person, LIST, &second).await.expect(200);
    assert_eq!(
        contents(&own),
        ["coffee", "tea"],
        "with the token nobody sees less"
    );
    until("the other server has heard", async || {
        contents(&other.get_as(&person, LIST).await) == ["coffee", "tea"]
    })
    .await;
    assert!(contents(&app.get_as(&stranger, LIST).await.expect(200)).is_empty());
    let id = second.json()["id"].as_str().unwrap().to_owned();
    let path = format!("{LIST}/{id}");
    app.as_with(&stranger, Method::DELETE, &path, &[], None)
        .await
        .expect(404);
    let gone = app
        .as_with(&person, Method::DELETE, &path, &[], None)
        .await
        .expect(204);
    assert_eq!(contents(&app.get_as(&person, LIST).await), ["tea"]);
    app.get_after(&person, &path, &gone).await.expect(404);
}

/// J22: who writes on one server and reads on another with the token never sees an older state, whatever is cached there.
#[tokio::test]
async fn a_token_reads_through_the_cache_of_another_server() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let person = app.person().await;
    let mut missed = 0;
    for number in 1..=150 {
        let write = remember(&app, &person, &number.to_string()).await.expect(201);
        other.get_as(&person, LIST).await.expect(200);
        let read = other.get_after(&person, LIST, &write).await.expect(200);
        missed += usize::from(contents(&read)[0] != number.to_string());
    }
    println!("150 writes, each read on another server: {missed} missed");
    assert_eq!(missed, 0);
}

/// A list by type has an entry of its own, and both go with a write.
#[tokio::test]
async fn types_are_lists_of_their_own() {
    let app = TestApp::start().await;
    let person = app.person().await;
    for (content, kind) in [("a", "fact"), ("b", "wish"), ("c", "fact")] {
        let body = json!({"content": content, "memory_type": kind});
        app.post_as(&person, LIST, body).await.expect(201);
    }
    assert_eq!(contents(&app.get_as(&person, LIST).await), ["c", "b", "a"]);
    let facts = format!("{LIST}?type=fact");
    assert_eq!(contents(&app.get_as(&person, &facts).await), ["c", "a"]);
    let page = app
        .get_as(&person, &format!("{facts}&limit=1"))
        .await
        .expect(200)
        .json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let next = app
        .get_as(&person, &format!("{facts}&limit=1&cursor={cursor}"))
        .await;
    assert_eq!(contents(&next), ["a"]);
    app.get_as(&person, &format!("{LIST}?type=")).await.expect(422);
    let body = json!({"content": " ", "memory_type": ""});
    let refused = app.post_as(&person, LIST, body).await.expect(422).json();
    assert_eq!(refused["errors"].as_array().unwrap().len(), 2);
}

/// A value that changes outside of the database, read with a delay: the worst reader that a cache can have.
#[derive(Debug, Clone)]
struct Slow {
    id: Uuid,
    value: Arc<AtomicU64>,
    loads: Arc<AtomicU64>,
    delay: Duration,
}

impl Slow {
    fn new(id: u128, delay: Duration) -> Self {
        Self {
            id: Uuid::from_u128(id),
            value: Arc::new(AtomicU64::new(1)),
            loads: Arc::default(),
            delay,
        }
    }
}

impl Read for Slow {
    type Output = u64;

    async fn run(&self, _: &mut ReadHandle<'_>) -> Result<u64, StoreError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let value = self.value.load(Ordering::SeqCst);
        if self.delay > Duration::ZERO {
            sleep(self.delay).await;
        } else {
            tokio::task::yield_now().await;
        }
        if value == 0 {
            Err(StoreError::Missing)
        } else {
            Ok(value)
        }
    }
}

impl Cached for Slow {
    fn entity(&self, tenant: Option<Uuid>) -> Entity {
        Entity {
            kind: Kind::UsageAnalysis,
            tenant,
            id: Some(self.id),
        }
    }

    fn arguments(&self) -> impl Serialize {
        "slow"
    }
}

fn scope() -> Scope {
    Scope {
        tenant: Some(Uuid::from_u128(9)),
        deadline: Instant::now() + PATIENCE,
        at_least: None,
        primary_only: false,
    }
}

/// H19: 2,000 misses on one key that has just ended, on two servers, are at most two loads.
#[tokio::test]
async fn a_crowd_of_misses_is_one_load() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let slow = Slow::new(Uuid::new_v4().as_u128(), Duration::from_millis(50));
    let crowd = (0..2_000).map(|number| {
        let cache = if number % 2 == 0 { &app } else { &other }
            .running
            .app
            .cache()
            .clone();
        let slow = slow.clone();
        tokio::spawn(async move { cache.get(&scope(), &slow).await.unwrap().0 })
    });
    let started = Instant::now();
    let answers = futures::future::join_all(crowd).await;
    assert!(answers.iter().all(|answer| *answer.as_ref().unwrap() == 1));
    let loads = slow.loads.load(Ordering::SeqCst);
    println!(
        "2,000 misses on two servers: {loads} loads, all answered after {:?}",
        started.elapsed()
    );
    assert!(loads <= 2, "{loads}");
}

/// F29: that there is nothing is remembered too, until something is written.
#[tokio::test]
async fn what_is_missing_is_remembered_until_it_is_made() {
    let app = TestApp::start().await;
    let cache = app.running.app.cache();
    let slow = Slow::new(Uuid::new_v4().as_u128(), Duration::ZERO);
    slow.value.store(0, Ordering::SeqCst);
    for _ in 0..5 {
        assert!(matches!(
            cache.get(&scope(), &slow).await,
            Err(StoreError::Missing)
        ));
    }
    assert_eq!(slow.loads.load(Ordering::SeqCst), 1);
    slow.value.store(3, Ordering::SeqCst);
    invalidate(&app, &slow, 1).await;
    assert_eq!(cache.get(&scope(), &slow).await.unwrap().0, 3);
}

async fn invalidate(app: &TestApp, slow: &Slow, id: i64) {
    let position = Position { timeline: 1, lsn: 1 };
    let target = slow.entity(scope().tenant).into();
    app.running
        .app
        .cache()
        .sink()
        .invalidated(position, vec![(id, target)])
        .await;
}

/// H20: loads on two servers race with a write and its invalidation; afterwards neither server and not Redis holds what was replaced.
/// `TANKA_TRIALS` says how often, 20,000 times if absent.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_race_of_a_load_with_a_write_leaves_a_stale_answer() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let trials: i64 = std::env::var("TANKA_TRIALS").map_or(20_000, |text| text.parse().unwrap());
    let salt = Uuid::new_v4().as_u128();
    let started = Instant::now();
    let values: Vec<_> = (0..trials)
        .map(|trial| Slow::new(salt.wrapping_add(trial.unsigned_abs().into()), Duration::ZERO))
        .collect();
    futures::stream::iter(values.iter().zip(1_i64 << 40..))
        .for_each_concurrent(64, async |(slow, id)| {
            let read = async |server: &TestApp| {
                server.running.app.cache().get(&scope(), slow).await.unwrap();
            };
            let write = async {
                slow.value.fetch_add(1, Ordering::SeqCst);
                invalidate(&app, slow, id).await;
            };
            tokio::join!(read(&app), read(&other), write, read(&other));
        })
        .await;
    let raced = started.elapsed();
    // The last messages arrive within a beat of the subscription.
    let last = values.last().unwrap();
    until("the other server has heard everything", async || {
        other.running.app.cache().get(&scope(), last).await.unwrap().0 == 2
    })
    .await;
    let (mut stale, mut kept) = (0, 0);
    for slow in &values {
        for server in [&app, &other] {
            let (value, source) = server.running.app.cache().get(&scope(), slow).await.unwrap();
            stale += usize::from(value != 2);
            kept += usize::from(matches!(source, Source::Local | Source::Shared));
        }
    }
    println!(
        "{trials} races in {raced:?}: {stale} stale answers; {kept} of {} were cached",
        2 * trials
    );
    assert_eq!(stale, 0);
    assert!(
        kept > values.len() / 2,
        "most of what was read was cached: {kept}"
    );
}

/// What a process committed and could not tell, because it ended then, is found in the table.
#[tokio::test]
async fn an_invalidation_that_nobody_told_is_found() {
    // Alone: any other server could find it first.
    let app = TestApp::builder().alone().start().await;
    let person = app.person().await;
    remember(&app, &person, "old").await.expect(201);
    until("the list is cached", async || {
        app.get_as(&person, LIST).await.header("x-cache") == "hit"
    })
    .await;
    let mut owner = connect("tanka_owner", 0).await;
    let (tenant, user) = (&person.tenant_id, &person.user_id);
    let entity = Entity::of_person(Kind::Memories, tenant.parse().unwrap(), user.parse().unwrap());
    let statement = format!(
        "BEGIN; SET LOCAL tanka.tenant_id = '{tenant}'; UPDATE memories SET content = 'new' WHERE user_id = '{user}';
         INSERT INTO cache_invalidations (target) VALUES ('{entity}'); COMMIT"
    );
    let before = app.metric("tanka_cache_invalidations_found_late_total").await;
    owner
        .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
    let started = Instant::now();
    until("the new state is served", async || {
        contents(&app.get_as(&person, LIST).await) == ["new"]
    })
    .await;
    println!(
        "an invalidation that nobody told was found after {:?}",
        started.elapsed()
    );
    until("Redis was told", async || {
        app.metric("tanka_cache_invalidations_found_late_total").await > before
    })
    .await;
}

/// R16, R47, H21: Redis goes and comes back under load; nobody gets an error and everybody reads the own writes.
#[tokio::test]
async fn redis_goes_and_comes_back_under_load_without_an_error() {
    let app = TestApp::builder().alone().start().await;
    let person = app.person().await;
    let done = AtomicU64::new(0);
    let (mut slowest, mut reads) = (Duration::ZERO, 0);
    let load = async {
        let mut number = 0;
        while done.load(Ordering::SeqCst) == 0 {
            number += 1;
            let write = remember(&app, &person, &number.to_string()).await.expect(201);
            for _ in 0..5 {
                let began = Instant::now();
                let read = app.get_after(&person, LIST, &write).await.expect(200);
                slowest = slowest.max(began.elapsed());
                reads += 1;
                assert_eq!(contents(&read)[0], number.to_string());
            }
        }
    };
    let disturb = async {
        for action in ["kill", "start"] {
            tokio::task::spawn_blocking(move || {
                for redis in ["redis-0", "redis-1", "redis-2"] {
                    control(action, redis);
                }
            })
            .await
            .unwrap();
            if action == "kill" {
                until("Redis is missed", async || {
                    app.metric("tanka_redis_up").await == 0
                })
                .await;
            }
        }
        until("Redis is back", async || app.metric("tanka_redis_up").await == 1).await;
        done.store(1, Ordering::SeqCst);
    };
    tokio::join!(load, disturb);
    println!("{reads} reads while Redis was killed and started again, the slowest took {slowest:?}");
    until("answers are cached again, in Redis too", async || {
        app.metric("tanka_cache_subscribed").await == 1
            && app.get_as(&person, LIST).await.header("x-cache") == "hit"
    })
    .await;
    until("everything is well again", async || {
        app.deep().await.status == 200
    })
    .await;
}

/// Connections to all Sentinels: whoever looks for Redis goes there.
pub async fn sentinels() -> Vec<MultiplexedConnection> {
    let password = variable("TANKA_TEST_REDIS_PASSWORD");
    let mut connections = Vec::new();
    for address in variable("TANKA_TEST_REDIS_SENTINELS").split(',') {
        let client = redis::Client::open(format!("redis://:{password}@{address}")).unwrap();
        connections.push(client.get_multiplexed_async_connection().await.unwrap());
    }
    connections
}

/// How many connections the Sentinels have accepted since they began.
async fn accepted(sentinels: &[MultiplexedConnection]) -> u64 {
    let mut sum = 0;
    for sentinel in sentinels {
        let info: String = redis::cmd("INFO")
            .arg("stats")
            .query_async(&mut sentinel.clone())
            .await
            .unwrap();
        let count = info
            .lines()
            .find_map(|line| line.trim_end().strip_prefix("total_connections_received:"));
        sum += count.unwrap().parse::<u64>().unwrap();
    }
    sum
}

/// F48: while Redis is away no request tries to reach it. One task of the server does, now and then, through the Sentinels, and hundreds of
/// requests that would all use Redis make them accept no more connections than that.
#[tokio::test]
async fn no_request_looks_for_a_redis_that_is_away() {
    const SERVERS: [&str; 3] = ["redis-0", "redis-1", "redis-2"];
    const ROUNDS: u64 = 150;
    let app = TestApp::builder().alone().start().await;
    let person = app.person().await;
    let sentinels = sentinels().await;
    for redis in SERVERS {
        control("kill", redis);
    }
    until("Redis is missed", async || {
        app.metric("tanka_redis_up").await == 0
    })
    .await;
    let (before, started) = (accepted(&sentinels).await, Instant::now());
    for number in 1..=ROUNDS {
        let write = remember(&app, &person, &number.to_string()).await.expect(201);
        let read = app.get_after(&person, LIST, &write).await.expect(200);
        assert_eq!(contents(&read)[0], number.to_string());
    }
    let (made, took) = (accepted(&sentinels).await - before, started.elapsed());
    for redis in SERVERS {
        control("start", redis);
    }
    println!("{ROUNDS} writes and as many reads without Redis in {took:?}: {made} connections to Sentinels");
    until("Redis is back", async || app.metric("tanka_redis_up").await == 1).await;
    until("everything is well again", async || {
        app.deep().await.status == 200
    })
    .await;
    assert!(made < ROUNDS / 2, "{made} connections");
}
