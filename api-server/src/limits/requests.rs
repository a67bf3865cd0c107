//! The generic cell rate algorithm (GCRA): so many at once, then one for each interval. One number is kept for each key: the time at which
//! everything admitted so far would have been admitted evenly. Redis' clock counts, so that processes need not agree on theirs.

use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota as LocalQuota, RateLimiter};
use redis::Script;

use super::advance::Advances;
use super::{count, micros, span};
use crate::metrics::LimitMetrics;
use crate::redis_link::RedisLink;

/// Most keys that one process counts for itself while Redis is away.
const MOST_LOCAL: usize = 100_000;

/// How much is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
static GCRA: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
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
",
    )
});

type Local = RateLimiter<String, DefaultKeyedStateStore<String>, DefaultClock, StateInformationMiddleware>;

/// Counts.
#[derive(Clone)]
pub struct Limiter {
    redis: RedisLink,
    advances: Arc<Advances>,
    local: Arc<Mutex<Option<Counter>>>,
    metrics: LimitMetrics,
}

/// What is counted in this process, and by which quota.
type Counter = (Quota, Arc<Local>);

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
        match local.check_key(&key.to_owned()) {
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
                retry_after: early.wait_time_from(DefaultClock::default().now()),
                reset_after: quota.interval() * quota.burst,
            },
        }
    }

    /// A changed quota begins a new count.
    fn local(&self, quota: Quota) -> Arc<Local> {
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, limiter)) = local.as_ref()
            && *known == quota
        {
            return limiter.clone();
        }
        let number = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let wanted = LocalQuota::per_minute(number(quota.per_minute)).allow_burst(number(quota.burst));
        let limiter: Arc<Local> = Arc::new(RateLimiter::keyed(wanted).with_middleware());
        *local = Some((quota, limiter.clone()));
        limiter
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
    use super::*;

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
