//! Requests that this process counted in Redis before they came: whoever sends many at a time costs one question for some of them
//! instead of one for each. Never more is admitted than the quota; what was counted and did not come within a second is lost to its owner.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use super::requests::{Quota, Verdict};

/// Keys that are remembered.
const MOST_KEYS: usize = 10_000;
/// Most that are counted in advance, of which share of what is allowed at once, and for how long that holds.
const MOST: u32 = 64;
const SHARE: u32 = 10;
const HOLDS: Duration = Duration::from_secs(1);

/// What was counted for whom.
#[derive(Debug)]
pub struct Advances(Cache<String, Arc<Mutex<Advance>>>);

impl Default for Advances {
    fn default() -> Self {
        Self(Cache::new(MOST_KEYS))
    }
}

impl Advances {
    /// One that was counted already.
    pub fn take(&self, key: &str, now: Instant) -> Option<Verdict> {
        let known = self.0.get(key)?;
        locked(&known).take(now)
    }

    /// How many to count now.
    pub fn wanted(&self, key: &str, quota: Quota, now: Instant) -> u32 {
        let last = self.0.get(key);
        last.map_or(1, |last| locked(&last).following(quota, now))
    }

    /// Keeps what was counted, but for the one that asked; answers that one's verdict.
    pub fn keep(&self, key: &str, counted: u32, shared: Verdict, now: Instant) -> Verdict {
        let mut advance = Advance {
            left: counted,
            of: counted,
            at: now,
            shared,
        };
        let verdict = advance.take(now).unwrap_or(shared);
        match self.0.get(key) {
            Some(known) => *locked(&known) = advance,
            None => self.0.insert(key.to_owned(), Arc::new(Mutex::new(advance))),
        }
        verdict
    }
}

fn locked(advance: &Mutex<Advance>) -> MutexGuard<'_, Advance> {
    advance.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Advance {
    left: u32,
    of: u32,
    at: Instant,
    /// What Redis said when they were counted.
    shared: Verdict,
}

impl Advance {
    fn take(&mut self, now: Instant) -> Option<Verdict> {
        let age = now.saturating_duration_since(self.at);
        if self.left == 0 || age >= HOLDS {
            return None;
        }
        self.left -= 1;
        Some(Verdict {
            remaining: self.shared.remaining.saturating_add(self.left),
            reset_after: self.shared.reset_after.saturating_sub(age),
            ..self.shared
        })
    }

    /// Twice as many when they were used up in time, else one: who sends few requests loses none.
    fn following(&self, quota: Quota, now: Instant) -> u32 {
        if self.left > 0 || now.saturating_duration_since(self.at) >= HOLDS {
            return 1;
        }
        (self.of * 2).min(MOST).min(quota.burst / SHARE).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUOTA: Quota = Quota {
        per_minute: 600,
        burst: 100,
    };
    const ALLOWED: Verdict = Verdict {
        allowed: true,
        remaining: 50,
        retry_after: Duration::ZERO,
        reset_after: Duration::from_secs(5),
    };

    #[test]
    fn a_crowd_is_counted_in_advance_and_who_comes_alone_is_not() {
        let (advances, now) = (Advances::default(), Instant::now());
        let mut sizes = Vec::new();
        for _ in 0..6 {
            let size = advances.wanted("a", QUOTA, now);
            sizes.push(size);
            let first = advances.keep("a", size, ALLOWED, now);
            assert_eq!(first.remaining, 50 + size - 1);
            for left in (0..size - 1).rev() {
                assert_eq!(advances.take("a", now).unwrap().remaining, 50 + left);
            }
            assert_eq!(advances.take("a", now), None);
        }
        assert_eq!(sizes, [1, 2, 4, 8, 10, 10]);
        assert_eq!(advances.wanted("a", QUOTA, now + HOLDS), 1);
        assert_eq!(advances.wanted("b", QUOTA, now), 1);
    }

    #[test]
    fn what_did_not_come_in_time_is_gone() {
        let (advances, now) = (Advances::default(), Instant::now());
        advances.keep("a", 8, ALLOWED, now);
        let soon = advances.take("a", now + HOLDS / 2).unwrap();
        assert_eq!(soon.reset_after, Duration::from_millis(4_500));
        assert_eq!(advances.take("a", now + HOLDS), None);
        assert_eq!(advances.wanted("a", QUOTA, now + HOLDS), 1);
    }

    /// The count that processes share, as the script keeps it. `tests/it/limit_scripts.rs` shows that the script keeps these laws.
    struct Shared {
        quota: Quota,
        /// When everything that was counted would have been admitted evenly.
        taken: Duration,
        counted: u32,
    }

    impl Shared {
        fn interval(&self) -> Duration {
            Duration::from_mins(1) / self.quota.per_minute
        }

        fn take(&mut self, now: Duration, cost: u32) -> Verdict {
            let wanted = self.taken.max(now) + self.interval() * cost;
            let room = self.interval() * self.quota.burst;
            if wanted > now + room {
                return Verdict {
                    allowed: false,
                    remaining: 0,
                    retry_after: wanted.saturating_sub(now + room),
                    reset_after: self.taken.saturating_sub(now),
                };
            }
            self.taken = wanted;
            self.counted += cost;
            Verdict {
                allowed: true,
                remaining: 0,
                retry_after: Duration::ZERO,
                reset_after: wanted.saturating_sub(now),
            }
        }
    }

    /// Whether a request is admitted, in the steps of `Limiter::take`.
    fn admits(advances: &Advances, shared: &mut Shared, begin: Instant, now: Duration) -> bool {
        let at = begin + now;
        if let Some(verdict) = advances.take("a", at) {
            return verdict.allowed;
        }
        let wanted = advances.wanted("a", shared.quota, at);
        let verdict = shared.take(now, wanted);
        if verdict.allowed {
            return advances.keep("a", wanted, verdict, at).allowed;
        }
        wanted > 1 && shared.take(now, 1).allowed
    }

    proptest! {
        /// F53, T20: what is counted in advance was counted, and within the last second. So processes together never admit more than was
        /// counted, nor more in any span of time than the quota allows in that span and the second before it.
        #[test]
        fn no_span_of_time_admits_more_than_the_quota_and_what_one_second_holds(
            per_minute in 60_u32..60_000, burst in 1_u32..400,
            arrivals in proptest::collection::vec(
                (0_usize..2, prop_oneof![8 => Just(0_u64), 4 => 0_u64..20, 1 => 0_u64..2_000]), 0..300,
            ),
        ) {
            let quota = Quota { per_minute, burst };
            let mut shared = Shared { quota, taken: Duration::ZERO, counted: 0 };
            let processes = [Advances::default(), Advances::default()];
            let (begin, mut now) = (Instant::now(), Duration::ZERO);
            let mut admitted = Vec::new();
            for (process, pause) in arrivals {
                now += Duration::from_millis(pause);
                if admits(&processes[process], &mut shared, begin, now) {
                    admitted.push(now);
                }
            }
            prop_assert!(u32::try_from(admitted.len()).unwrap() <= shared.counted);
            for (first, begin) in admitted.iter().enumerate() {
                for (count, end) in (1_u32..).zip(&admitted[first..]) {
                    let share = end.saturating_sub(*begin) + HOLDS;
                    prop_assert!(shared.interval() * count <= shared.interval() * burst + share);
                }
            }
        }
    }
}
