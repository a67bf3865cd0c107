//! The generic cell rate algorithm (GCRA): so many at once, then one for each interval. One number is kept for each key: the time at which
//! everything admitted so far would have been admitted evenly. Redis' clock counts, so that processes need not agree on theirs.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{NotUntil, Quota as LocalQuota, RateLimiter};
use redis::Script;

use super::advance::Advances;
use super::{count, micros, span};
use crate::metrics::LimitMetrics;
use crate::redis_link::RedisLink;

/// Most keys that one process counts for itself while Redis is away.
const MOST_LOCAL: usize = 100_000;

/// Quotas by which one process counts for itself: requests, logins, signups, and what they were before a change.
const MOST_QUOTAS: usize = 16;

/// How much is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Sustained, in a minute.
    pub per_minute: u32,
    /// At once.
    pub burst: u32,
}

impl Quota {
    /// Time for which one stands.
    fn interval(self) -> Duration {
        Duration::from_mins(1) / self.per_minute.max(1)
    }

    /// The same for a count in this process.
    fn local(self) -> LocalQuota {
        let number = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        LocalQuota::per_minute(number(self.per_minute)).allow_burst(number(self.burst))
    }
}

/// Whether one more is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is.
    pub allowed: bool,
    /// How many more would be allowed now.
    pub remaining: u32,
    /// When one more will be allowed, if it is not now.
    pub retry_after: Duration,
    /// When everything will be allowed again.
    pub reset_after: Duration,
}

/// KEYS: what is counted. ARGV: microseconds for which one stands, how many at once, how many are taken (0 only asks).
/// Answers: 1 if allowed, how many remain, microseconds until one more is, microseconds until all are.
pub const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local taken = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local wanted = taken + interval * cost
local room = interval * burst
if wanted - room > now then
    return {0, 0, wanted - room - now, taken - now}
end
if cost > 0 then
    redis.call('SET', KEYS[1], string.format('%.0f', wanted), 'PX', math.ceil((wanted - now) / 1000) + 1)
end
return {1, math.floor((now + room - wanted) / interval), 0, wanted - now}
";

static GCRA: LazyLock<Script> = LazyLock::new(|| Script::new(SCRIPT));

type Local = RateLimiter<String, DefaultKeyedStateStore<String>, DefaultClock, StateInformationMiddleware>;

/// Counts.
#[derive(Clone)]
pub struct Limiter {
    redis: RedisLink,
    advances: Arc<Advances>,
    local: Arc<Mutex<HashMap<Quota, Arc<Local>>>>,
    metrics: LimitMetrics,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

impl Limiter {
    /// A limiter that counts in Redis.
    pub fn new(redis: RedisLink, metrics: LimitMetrics) -> Self {
        Self {
            redis,
            advances: Arc::default(),
            local: Arc::default(),
            metrics,
        }
    }

    /// Takes one of a key's quota.
    pub async fn take(&self, key: &str, quota: Quota) -> Verdict {
        if let Some(verdict) = self.advances.take(key, Instant::now()) {
            return verdict;
        }
        let verdict = if let Some(verdict) = self.ahead(key, quota).await {
            verdict
        } else {
            self.metrics.local.inc();
            self.alone(key, quota)
        };
        if !verdict.allowed {
            self.metrics.refused.inc();
        }
        verdict
    }

    /// Counts in Redis, for a crowd more than the one; just the one where the quota has no room for more.
    async fn ahead(&self, key: &str, quota: Quota) -> Option<Verdict> {
        let wanted = self.advances.wanted(key, quota, Instant::now());
        let verdict = self.shared(key, quota, i64::from(wanted)).await?;
        if verdict.allowed {
            return Some(self.advances.keep(key, wanted, verdict, Instant::now()));
        }
        if wanted == 1 {
            return Some(verdict);
        }
        self.shared(key, quota, 1).await
    }

    /// Counts in Redis; none while it is away.
    pub(super) async fn shared(&self, key: &str, quota: Quota, cost: i64) -> Option<Verdict> {
        let arguments = [micros(quota.interval()), i64::from(quota.burst.max(1)), cost];
        let answer = count(&self.redis, &GCRA, &format!("tanka:limit:{key}"), &arguments).await?;
        let [allowed, remaining, retry, reset] = answer.as_slice() else {
            return None;
        };
        Some(Verdict {
            allowed: *allowed == 1,
            remaining: u32::try_from(*remaining).unwrap_or(0),
            retry_after: span(*retry),
            reset_after: span(*reset),
        })
    }

    /// Counts for this process alone.
    fn alone(&self, key: &str, quota: Quota) -> Verdict {
        let local = self.local(quota);
        // Keys are never forgotten on their own.
        if local.len() > MOST_LOCAL {
            local.retain_recent();
            local.shrink_to_fit();
        }
        let outcome = local.check_key(&key.to_owned());
        judge(outcome, quota, DefaultClock::default().now())
    }

    /// Counts by each quota that is asked for. A configuration that changes often leaves old ones behind; they are forgotten all at once.
    fn local(&self, quota: Quota) -> Arc<Local> {
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        if local.len() >= MOST_QUOTAS && !local.contains_key(&quota) {
            local.clear();
        }
        let limiter = || Arc::new(RateLimiter::keyed(quota.local()).with_middleware());
        local.entry(quota).or_insert_with(limiter).clone()
    }
}

/// What a count in this process says.
fn judge<P: Reference>(outcome: Result<StateSnapshot, NotUntil<P>>, quota: Quota, now: P) -> Verdict {
    match outcome {
        Ok(state) => {
            let remaining = state.remaining_burst_capacity();
            Verdict {
                allowed: true,
                remaining,
                retry_after: Duration::ZERO,
                reset_after: quota.interval() * quota.burst.saturating_sub(remaining),
            }
        }
        Err(early) => Verdict {
            allowed: false,
            remaining: 0,
            retry_after: early.wait_time_from(now),
            reset_after: quota.interval() * quota.burst,
        },
    }
}

/// The headers of draft-ietf-httpapi-ratelimit-headers-11, for a quota of requests: `RateLimit-Policy` and `RateLimit`.
pub fn headers(quota: Quota, verdict: Verdict) -> [(&'static str, String); 2] {
    let seconds = |duration: Duration| duration.as_millis().div_ceil(1_000);
    [
        (
            "ratelimit-policy",
            format!(r#""requests";q={};w=60"#, quota.per_minute),
        ),
        (
            "ratelimit",
            format!(
                r#""requests";r={};t={}"#,
                verdict.remaining,
                seconds(verdict.reset_after)
            ),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;
    use governor::state::{InMemoryState, NotKeyed};
    use proptest::prelude::*;

    use super::*;

    const MOMENT: Duration = Duration::from_nanos(1);

    /// A count in this process, whose clock the test turns.
    struct Alone {
        quota: Quota,
        clock: FakeRelativeClock,
        limiter: RateLimiter<NotKeyed, InMemoryState, FakeRelativeClock, StateInformationMiddleware>,
    }

    impl Alone {
        fn new(quota: Quota) -> Self {
            let clock = FakeRelativeClock::default();
            let limiter = RateLimiter::direct_with_clock(quota.local(), clock.clone());
            Self {
                quota,
                clock,
                limiter: limiter.with_middleware(),
            }
        }

        /// One after each pause; pauses are in thousandths of the interval.
        fn after(quota: Quota, pauses: &[u32]) -> Self {
            let alone = Self::new(quota);
            for pause in pauses {
                alone.pass(quota.interval() * *pause / 1_000);
                alone.take();
            }
            alone
        }

        fn pass(&self, time: Duration) {
            self.clock.advance(time);
        }

        fn take(&self) -> Verdict {
            judge(self.limiter.check(), self.quota, self.clock.now())
        }
    }

    fn quotas() -> impl Strategy<Value = Quota> {
        (1_u32..=1_000_000, 1_u32..=20).prop_map(|(per_minute, burst)| Quota { per_minute, burst })
    }

    fn pause() -> impl Strategy<Value = u32> {
        prop_oneof![4 => Just(0_u32), 4 => 0_u32..2_000, 1 => 0_u32..30_000]
    }

    fn pauses() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::vec(pause(), 0..120)
    }

    proptest! {
        /// F53: what is admitted in any span of time is the burst and the share of that time, never more.
        #[test]
        fn no_span_of_time_admits_more_than_the_burst_and_its_share(quota in quotas(), pauses in pauses()) {
            let (alone, mut now) = (Alone::new(quota), Duration::ZERO);
            let mut admitted = Vec::new();
            for pause in pauses {
                let pause = quota.interval() * pause / 1_000;
                alone.pass(pause);
                now += pause;
                if alone.take().allowed {
                    admitted.push(now);
                }
            }
            for (first, begin) in admitted.iter().enumerate() {
                for (count, end) in (1_u32..).zip(&admitted[first..]) {
                    let share = Duration::saturating_sub(*end, *begin);
                    prop_assert!(quota.interval() * count <= quota.interval() * quota.burst + share);
                }
            }
        }

        /// F53: who waits as long as a refusal says is admitted, and nobody is a moment before.
        #[test]
        fn a_refusal_says_exactly_how_long_to_wait(quota in quotas(), pauses in pauses()) {
            let alone = Alone::after(quota, &pauses);
            let mut verdict = alone.take();
            while verdict.allowed {
                verdict = alone.take();
            }
            prop_assert!(verdict.retry_after > Duration::ZERO);
            prop_assert!(verdict.retry_after <= verdict.reset_after);
            alone.pass(verdict.retry_after.saturating_sub(MOMENT));
            let early = alone.take();
            prop_assert!(!early.allowed);
            prop_assert_eq!(early.retry_after, MOMENT, "a refusal costs nothing");
            alone.pass(MOMENT);
            prop_assert!(alone.take().allowed);
        }

        #[test]
        fn as_many_are_admitted_at_once_as_a_verdict_says_remain(quota in quotas(), pauses in pauses()) {
            let alone = Alone::after(quota, &pauses);
            let verdict = alone.take();
            for remaining in (0..verdict.remaining).rev() {
                let next = alone.take();
                prop_assert!(next.allowed);
                prop_assert_eq!(next.remaining, remaining);
            }
            prop_assert!(!alone.take().allowed);
        }

        #[test]
        fn time_never_makes_a_verdict_stricter(
            quota in quotas(), pauses in pauses(), soon in pause(), more in pause(),
        ) {
            let verdict = |pause: u32| {
                let alone = Alone::after(quota, &pauses);
                alone.pass(quota.interval() * pause / 1_000);
                alone.take()
            };
            let (soon, late) = (verdict(soon), verdict(soon + more));
            prop_assert!(late.allowed || !soon.allowed);
            prop_assert!(late.remaining >= soon.remaining);
            prop_assert!(late.retry_after <= soon.retry_after);
        }
    }

    #[test]
    fn headers_are_structured_fields() {
        let quota = Quota {
            per_minute: 600,
            burst: 100,
        };
        let verdict = Verdict {
            allowed: true,
            remaining: 42,
            retry_after: Duration::ZERO,
            reset_after: Duration::from_millis(1_200),
        };
        assert_eq!(
            headers(quota, verdict),
            [
                ("ratelimit-policy", r#""requests";q=600;w=60"#.to_owned()),
                ("ratelimit", r#""requests";r=42;t=2"#.to_owned()),
            ]
        );
        assert_eq!(quota.interval(), Duration::from_millis(100));
    }
}
