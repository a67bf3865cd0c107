//! How long the server waits for a client that does not take what is written. Pure.
//!
//! A limit for each write would begin anew whenever a little room appears in the client's buffers, and who reads next to nothing would stay
//! for long. So a client that has fallen behind must take a least number of bytes a second until it has caught up.

use std::time::Duration;

use tokio::time::Instant;

/// How long a client may take nothing.
pub const GRACE: Duration = Duration::from_secs(3);
/// Bytes a second that it must take on the average while it is behind.
const LEAST: u32 = 8 << 10;

/// Of one client.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patience {
    /// Since when writes have had to wait, without one that did not; and the bytes that left since then.
    behind: Option<(Instant, u32)>,
}

impl Patience {
    /// Until when a write that cannot leave at once may take.
    pub fn limit(&self, now: Instant) -> Instant {
        let (since, taken) = self.behind.unwrap_or((now, 0));
        since + GRACE + Duration::from_secs(1) * taken / LEAST
    }

    /// Takes note that bytes have left, and since when they had waited if they could not leave at once.
    pub fn note(&mut self, bytes: usize, waited_since: Option<Instant>) {
        self.behind = waited_since.map(|since| {
            let (since, taken) = self.behind.unwrap_or((since, 0));
            (
                since,
                taken.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX)),
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds until a client is given up that takes so many bytes, each so many milliseconds after the last.
    fn given_up_after(bytes: usize, pause: u64) -> Option<u64> {
        let start = Instant::now();
        let (mut patience, mut now) = (Patience::default(), start);
        for _ in 0..10_000 {
            let left = now + Duration::from_millis(pause);
            if left > patience.limit(now) {
                return Some((patience.limit(now) - start).as_secs());
            }
            patience.note(bytes, Some(now));
            now = left;
        }
        None
    }

    #[test]
    fn who_takes_nothing_or_next_to_nothing_is_given_up_in_time() {
        assert_eq!(given_up_after(0, 5_000), Some(3));
        assert_eq!(given_up_after(1_000, 1_000), Some(3));
        assert_eq!(given_up_after(4_096, 1_000), Some(5), "half of the least pace");
    }

    #[test]
    fn who_is_slow_but_fast_enough_is_waited_for() {
        assert_eq!(given_up_after(8 << 10, 1_000), None);
        assert_eq!(given_up_after(32 << 10, 2_900), None);
        assert_eq!(given_up_after(u32::MAX as usize, 1_000), None);
    }

    #[test]
    fn who_has_caught_up_begins_anew() {
        let start = Instant::now();
        let mut patience = Patience::default();
        patience.note(10, Some(start));
        let later = start + Duration::from_secs(2);
        assert_eq!(patience.limit(later).duration_since(start).as_secs(), 3);
        patience.note(10, None);
        assert_eq!(patience.limit(later), later + GRACE);
    }
}
