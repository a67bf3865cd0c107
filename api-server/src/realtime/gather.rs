//! How long the events of one socket wait for each other. Pure.
//!
//! Most of what a delivery costs is the call to the system, and one call takes many frames. So after events were written the next ones
//! wait a moment for others; where several come in that moment, the next moment is longer.

use std::time::Duration;

/// The wait where little happens.
pub const SHORTEST: Duration = Duration::from_millis(8);
/// The longest wait. It is part of the delay of nearly every event in a busy channel.
pub const LONGEST: Duration = Duration::from_millis(20);

/// The wait after so many events were written at once, when it was `before` last time.
pub fn wait(before: Duration, written: usize) -> Duration {
    if written > 1 {
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
        assert_eq!(wait(SHORTEST, 1), SHORTEST);
        assert_eq!(wait(SHORTEST, 2), Duration::from_millis(16));
        assert_eq!(wait(wait(SHORTEST, 3), 5), LONGEST);
        assert_eq!(wait(LONGEST, 64), LONGEST);
        assert_eq!(wait(LONGEST, 1), SHORTEST);
    }
}
