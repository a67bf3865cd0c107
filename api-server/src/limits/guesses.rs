//! Guesses of passwords. What is slowed down is one account from one address: each wrong guess makes the next one there wait longer.
//! Nobody else waits, so nobody can be locked out by others. One address that fails on many accounts is refused as a whole.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use redis::Script;
use tokio::time::Instant;

use super::requests::{Limiter, Quota};
use super::{count, micros, span};
use crate::metrics::LimitMetrics;
use crate::redis_link::RedisLink;

/// Wrong guesses before the first wait.
const FREE: u32 = 4;
/// The first wait; each one is twice the one before.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_mins(15);
/// How long failures are remembered.
const MEMORY: Duration = Duration::from_hours(1);
/// How many times the limit of one account an address may fail over all accounts.
const OVER_ALL: u32 = 10;
/// Most pairs that one process remembers while Redis is away.
const MOST_LOCAL: usize = 50_000;

/// How long the next guess has to wait after so many wrong ones.
fn wait(failures: u32) -> Duration {
    match failures.checked_sub(FREE + 1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST
            .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .min(LONGEST),
    }
}

/// Begins a guess: it counts as wrong until it is known to be right, so that many at once gain nothing.
/// KEYS: the pair. ARGV: [`arguments`]. Answers: how long to wait in microseconds, 0 if not at all.
pub const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local known = redis.call('HMGET', KEYS[1], 'failures', 'until')
local failures, lapse = tonumber(known[1] or 0), tonumber(known[2] or 0)
if lapse > now then
    return {lapse - now}
end
failures = failures + 1
local wait = 0
if failures > tonumber(ARGV[1]) then
    wait = math.min(tonumber(ARGV[2]) * 2 ^ math.min(failures - ARGV[1] - 1, 40), tonumber(ARGV[3]))
end
redis.call('HSET', KEYS[1], 'failures', failures, 'until', string.format('%.0f', now + wait))
redis.call('PEXPIRE', KEYS[1], math.floor(ARGV[4] / 1000))
return {0}
";

static BEGIN: LazyLock<Script> = LazyLock::new(|| Script::new(SCRIPT));

/// Free guesses; first wait, longest wait and memory in microseconds.
pub fn arguments() -> [i64; 4] {
    [i64::from(FREE), micros(FIRST), micros(LONGEST), micros(MEMORY)]
}

#[derive(Debug, Clone, Copy)]
struct Known {
    failures: u32,
    until: Instant,
}

/// What one process counts for itself while Redis is away.
#[derive(Debug, Clone, Default)]
pub struct Alone(HashMap<String, Known>);

impl Alone {
    /// Begins a guess as the script does. Answers how long to wait, nothing if not at all.
    pub fn begin(&mut self, pair: &str, now: Instant) -> Duration {
        if self.0.len() >= MOST_LOCAL {
            self.0
                .retain(|_, known| now.saturating_duration_since(known.until) < MEMORY);
        }
        if self.0.len() >= MOST_LOCAL {
            self.0.clear();
        }
        let known = self.0.entry(pair.to_owned()).or_insert(Known {
            failures: 0,
            until: now,
        });
        if known.until > now {
            return known.until - now;
        }
        if now - known.until > MEMORY {
            known.failures = 0;
        }
        known.failures += 1;
        known.until = now + wait(known.failures);
        Duration::ZERO
    }
}

/// Counts guesses.
#[derive(Debug, Clone)]
pub struct Guesses {
    redis: RedisLink,
    limiter: Limiter,
    local: Arc<Mutex<Alone>>,
    metrics: LimitMetrics,
}

/// A guess that may be made.
#[derive(Debug)]
pub struct Attempt {
    guesses: Guesses,
    pair: String,
    address: String,
    quota: Quota,
}

impl Guesses {
    /// Counts in Redis, for all processes.
    pub fn new(redis: RedisLink, limiter: Limiter, metrics: LimitMetrics) -> Self {
        Self {
            redis,
            limiter,
            local: Arc::default(),
            metrics,
        }
    }

    /// Begins a guess for an account (by a digest, so that nobody reads addresses in Redis) from an address; else how long to wait.
    pub async fn begin(&self, account: &str, address: &str, per_minute: u32) -> Result<Attempt, Duration> {
        let quota = Quota {
            per_minute,
            burst: per_minute,
        };
        let attempt = Attempt {
            guesses: self.clone(),
            pair: format!("{account}:{address}"),
            address: format!("failed:{address}"),
            quota: Quota {
                per_minute: per_minute.saturating_mul(OVER_ALL),
                burst: per_minute.saturating_mul(OVER_ALL),
            },
        };
        let refuse = |wait: Duration| {
            self.metrics.guesses_refused.inc();
            Err(wait)
        };
        if let Some(verdict) = self.limiter.shared(&attempt.address, attempt.quota, 0).await
            && verdict.remaining == 0
        {
            return refuse(attempt.quota_wait());
        }
        let all = self.limiter.take(&format!("login:{}", attempt.pair), quota).await;
        if !all.allowed {
            return refuse(all.retry_after);
        }
        let wait = self.wait(&attempt.pair).await;
        if wait > Duration::ZERO {
            return refuse(wait);
        }
        Ok(attempt)
    }

    async fn wait(&self, pair: &str) -> Duration {
        let key = format!("tanka:guess:{pair}");
        match count(&self.redis, &BEGIN, &key, &arguments()).await.as_deref() {
            Some([wait]) => span(*wait),
            _ => self.wait_alone(pair),
        }
    }

    fn wait_alone(&self, pair: &str) -> Duration {
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        local.begin(pair, Instant::now())
    }
}

impl Attempt {
    /// The guess was right: what came before is forgiven.
    pub async fn succeeded(self) {
        let key = format!("tanka:guess:{}", self.pair);
        if let Some(connected) = self.guesses.redis.get() {
            let mut connection = connected.of(&key);
            let mut command = redis::cmd("DEL");
            command.arg(key);
            let sent = command.query_async::<i64>(&mut connection);
            let _ = tokio::time::timeout(super::PATIENCE, sent).await;
        }
        let mut local = self.guesses.local.lock().unwrap_or_else(PoisonError::into_inner);
        local.0.remove(&self.pair);
    }

    /// The guess was wrong.
    pub async fn failed(self) {
        self.guesses.limiter.shared(&self.address, self.quota, 1).await;
    }

    fn quota_wait(&self) -> Duration {
        Duration::from_mins(1) / self.quota.per_minute.max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOMENT: Duration = Duration::from_nanos(1);

    /// One guess of a pair after each pause; who is refused leaves it at that. Answers the count, the time after the last pause, and when
    /// guesses were made.
    fn guessed(pauses: &[u64]) -> (Alone, Instant, Vec<Instant>) {
        let (mut alone, mut now, mut made) = (Alone::default(), Instant::now(), Vec::new());
        for pause in pauses {
            now += Duration::from_millis(*pause);
            if alone.begin("a", now) == Duration::ZERO {
                made.push(now);
            }
        }
        (alone, now, made)
    }

    /// Milliseconds between two guesses, never so many that those before are forgotten.
    fn pauses() -> impl Strategy<Value = Vec<u64>> {
        let pause = prop_oneof![2 => Just(0_u64), 4 => 0_u64..3_000, 2 => 0_u64..1_000_000];
        proptest::collection::vec(pause, 0..60)
    }

    /// F53: waits grow, and end.
    #[test]
    fn each_wrong_guess_makes_the_next_wait_longer() {
        let waits: Vec<u64> = (1..=16).map(|failures| wait(failures).as_secs()).collect();
        assert_eq!(
            waits,
            [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]
        );
        assert_eq!(wait(u32::MAX), LONGEST);
    }

    #[test]
    fn who_guesses_nothing_for_long_begins_anew() {
        let (mut alone, mut now, _) = guessed(&[0; 5]);
        assert_eq!(alone.begin("a", now), FIRST);
        now += FIRST + MEMORY + MOMENT;
        for _ in 0..=FREE {
            assert_eq!(alone.begin("a", now), Duration::ZERO);
        }
        assert_eq!(alone.begin("a", now), FIRST);
    }

    proptest! {
        /// F53: however guesses come, each is at least as long after the one before as the wrong ones so far demand.
        #[test]
        fn guesses_are_as_far_apart_as_the_wrong_ones_demand(pauses in pauses()) {
            let (_, _, made) = guessed(&pauses);
            for (failures, pair) in (1_u32..).zip(made.windows(2)) {
                prop_assert!(pair[1] - pair[0] >= wait(failures));
            }
        }

        /// F53: who waits as long as a refusal says may guess, and nobody a moment before; to be refused costs nothing.
        #[test]
        fn a_refused_guess_says_exactly_how_long_to_wait(pauses in pauses()) {
            let (mut alone, mut now, _) = guessed(&pauses);
            let mut left = alone.begin("a", now);
            while left == Duration::ZERO {
                left = alone.begin("a", now);
            }
            now += left.saturating_sub(MOMENT);
            prop_assert_eq!(alone.begin("a", now), MOMENT);
            prop_assert_eq!(alone.begin("a", now + MOMENT), Duration::ZERO);
        }

        #[test]
        fn a_later_guess_never_waits_longer(
            pauses in pauses(), soon in 0_u64..2_000_000, more in 0_u64..2_000_000,
        ) {
            let (mut alone, now, _) = guessed(&pauses);
            let mut other = alone.clone();
            let soon = now + Duration::from_millis(soon);
            let late = soon + Duration::from_millis(more);
            prop_assert!(other.begin("a", late) <= alone.begin("a", soon));
        }

        /// F53: nobody is locked out by the guesses of others.
        #[test]
        fn nobody_waits_for_the_guesses_of_others(pauses in pauses()) {
            let (mut alone, now, _) = guessed(&pauses);
            for _ in 0..=FREE {
                prop_assert_eq!(alone.begin("b", now), Duration::ZERO);
            }
            prop_assert_eq!(alone.begin("b", now), FIRST);
        }
    }
}
