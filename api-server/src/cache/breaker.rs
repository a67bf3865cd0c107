//! Keeps requests from waiting for a Redis that does not answer: after a few failures in a row nobody asks for a while, then one
//! asks again (F48). Pure: time comes in.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which it opens.
const FAILURES: u32 = 3;
/// How long it stays open, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// What is known about a service that may be away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    opened: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// Whether to ask now. While it is open one caller is let through after each pause.
    pub fn admit(&mut self, now: Instant) -> bool {
        match self.open_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.open_until = Some(now + self.pause());
                true
            }
        }
    }

    /// It answered.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    /// It did not answer. Answers whether the breaker opened just now.
    pub fn fail(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES {
            return false;
        }
        let opens = self.open_until.is_none();
        self.opened = self.opened.saturating_add(1);
        self.open_until = Some(now + self.pause());
        opens
    }

    /// Whether nobody asks at the moment.
    pub fn is_open(&self, now: Instant) -> bool {
        self.open_until.is_some_and(|until| now < until)
    }

    fn pause(&self) -> Duration {
        PAUSE
            .0
            .saturating_mul(1 << self.opened.saturating_sub(1).min(8))
            .min(PAUSE.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_try_at_a_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut breaker = Breaker::default();
        assert!(!breaker.fail(at(0)));
        breaker.succeed();
        assert!(!breaker.fail(at(1)) && !breaker.fail(at(2)) && breaker.admit(at(3)));
        assert!(breaker.fail(at(4)), "the third opens it");
        assert!(breaker.is_open(at(5)) && !breaker.admit(at(203)));
        assert!(breaker.admit(at(204)), "one may try");
        assert!(!breaker.admit(at(205)), "and nobody else meanwhile");
        assert!(!breaker.fail(at(206)), "it was open already");
        assert!(!breaker.admit(at(505)), "the pause has doubled");
        assert!(breaker.admit(at(606)));
        breaker.succeed();
        assert!(breaker.admit(at(607)) && breaker.admit(at(608)));
    }

    #[test]
    fn pauses_are_bounded() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..50 {
            breaker.fail(now);
            now += Duration::from_secs(2);
            assert!(breaker.admit(now));
        }
    }
}
