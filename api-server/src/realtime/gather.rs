//! How long the events of one socket wait for each other. Pure.
//!
//! Most of what a delivery costs is the call to the system, and one call takes many frames. So after events were written the next ones
//! wait a moment for others; where several come in that moment, the next moment is longer.

use std::time::Duration;

/// The wait of the first event after a pause is over: what was written together with it comes with it.
pub const BRIEF: Duration = Duration::from_millis(2);
/// The wait where little happens.
const SHORTEST: Duration = Duration::from_millis(8);
/// The longest wait. It is part of the delay of nearly every event in a busy channel.
const LONGEST: Duration = Duration::from_millis(20);

/// Time without events after which a socket counts as quiet.
const PAUSE: Duration = Duration::from_millis(50);

/// The wait after so many events were written at once, when it was `before` last time and has been over for `idle`.
pub fn wait(before: Duration, written: usize, idle: Duration) -> Duration {
    if idle > PAUSE {
        BRIEF
    } else if written > 1 {
        before.saturating_mul(2).clamp(SHORTEST, LONGEST)
    } else {
        SHORTEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_channel_waits_longer_and_a_quiet_one_does_not() {
        let idle = Duration::from_millis(5);
        assert_eq!(wait(SHORTEST, 1, idle), SHORTEST);
        assert_eq!(wait(SHORTEST, 2, idle), Duration::from_millis(16));
        assert_eq!(wait(wait(SHORTEST, 3, idle), 5, idle), LONGEST);
        assert_eq!(wait(LONGEST, 64, idle), LONGEST);
        assert_eq!(wait(LONGEST, 1, idle), SHORTEST);
    }

    #[test]
    fn a_burst_after_a_pause_waits_little() {
        let pause = Duration::from_secs(1);
        assert_eq!(wait(LONGEST, 1, pause), BRIEF);
        assert_eq!(wait(BRIEF, 9, Duration::ZERO), SHORTEST);
    }
}
