//! What all readers of a row saw together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longer delays count as this one, in milliseconds.
const LONGEST: usize = 20_000;
/// Length of a slot of the rate.
const SLOT: Duration = Duration::from_millis(100);
const MOST_SLOTS: usize = 6_000;

/// Counted by one thread, looked at by others.
#[derive(Debug)]
pub struct Tally {
    begin: Instant,
    /// What was asked for before is not timed.
    warm: Duration,
    delivered: AtomicU64,
    /// Offsets that did not follow the one before.
    broken: AtomicU64,
    /// By whole milliseconds from the moment at which a message was due to its arrival.
    delays: Vec<AtomicU64>,
    arrivals: Vec<AtomicU64>,
}

/// One figure of a row.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Deliveries.
    pub delivered: u64,
    /// Offsets out of order.
    pub broken: u64,
    /// Deliveries a second, from the end of the warm-up to the last moment that was asked for.
    pub rate: u64,
    /// In milliseconds.
    pub p50: usize,
    /// In milliseconds.
    pub p99: usize,
    /// In milliseconds.
    pub longest: usize,
}

/// What one reader knows between two events.
#[derive(Debug, Default)]
pub struct Reader {
    /// Where the moment stands, counted from the end of the text; it hardly ever changes.
    hint: usize,
    /// Where the offset stands.
    place: usize,
    /// The last offset.
    last: u64,
}

const MOMENT: &[u8] = b"\"at=";
const OFFSET: &[u8] = b"\"offset\":";

impl Tally {
    /// From now on.
    pub fn new(begin: Instant, warm: Duration) -> Self {
        Self {
            begin,
            warm,
            delivered: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            delays: (0..=LONGEST).map(|_| AtomicU64::new(0)).collect(),
            arrivals: (0..MOST_SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// A text came.
    pub fn see(&self, reader: &mut Reader, text: &[u8], one_channel: bool) {
        let Some(at) = find(text, MOMENT, text.len().wrapping_sub(reader.hint)) else {
            return;
        };
        reader.hint = text.len() - at;
        let asked = Duration::from_micros(number(&text[at + MOMENT.len()..]));
        if one_channel && let Some(at) = find(text, OFFSET, reader.place) {
            reader.place = at;
            let offset = number(&text[at + OFFSET.len()..]);
            if reader.last != 0 && offset != reader.last + 1 {
                self.broken.fetch_add(1, Ordering::Relaxed);
            }
            reader.last = offset;
        }
        let now = self.begin.elapsed();
        self.delivered.fetch_add(1, Ordering::Relaxed);
        let slot = usize::try_from(now.as_millis() / SLOT.as_millis()).unwrap_or(usize::MAX);
        self.arrivals[slot.min(MOST_SLOTS - 1)].fetch_add(1, Ordering::Relaxed);
        if asked >= self.warm {
            let delay = usize::try_from(now.saturating_sub(asked).as_millis()).unwrap_or(usize::MAX);
            self.delays[delay.min(LONGEST)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Deliveries so far.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// What it amounts to, when messages were due until a moment.
    pub fn figures(&self, until: Duration) -> Figures {
        let slot = |moment: Duration| usize::try_from(moment.as_millis() / SLOT.as_millis()).unwrap_or(0);
        let (from, to) = (slot(self.warm), slot(until).min(MOST_SLOTS));
        let arrived: u64 = self.arrivals[from.min(to)..to]
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum();
        let tenths = u64::try_from(to.saturating_sub(from).max(1)).unwrap_or(1);
        let delays: Vec<u64> = self
            .delays
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        Figures {
            delivered: self.delivered(),
            broken: self.broken.load(Ordering::Relaxed),
            rate: arrived * 10 / tenths,
            p50: percentile(&delays, 50),
            p99: percentile(&delays, 99),
            longest: delays.iter().rposition(|count| *count > 0).unwrap_or(0),
        }
    }
}

/// Where a part stands in a text: at the guess, or wherever.
fn find(text: &[u8], part: &[u8], guess: usize) -> Option<usize> {
    if text.get(guess..).is_some_and(|rest| rest.starts_with(part)) {
        return Some(guess);
    }
    text.windows(part.len()).position(|window| window == part)
}

fn number(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
}

/// The first delay that covers a share, in percent, of all.
pub fn percentile(counts: &[u64], share: u64) -> usize {
    let wanted = (counts.iter().sum::<u64>() * share).div_ceil(100);
    let mut sum = 0;
    counts
        .iter()
        .position(|count| {
            sum += count;
            sum >= wanted
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_first_delay_that_covers_its_share() {
        let counts = [0, 50, 49, 0, 1];
        assert_eq!(percentile(&counts, 50), 1);
        assert_eq!(percentile(&counts, 99), 2);
        assert_eq!(percentile(&counts, 100), 4);
    }

    #[test]
    fn gaps_repeats_and_delays_are_counted() {
        let tally = Tally::new(Instant::now(), Duration::ZERO);
        let mut reader = Reader::default();
        for offset in [7, 8, 10, 10, 11] {
            let text = format!(r#"{{"offset":{offset},"content":"at=0;"}}"#);
            tally.see(&mut reader, text.as_bytes(), true);
        }
        tally.see(&mut reader, b"{}", true);
        let figures = tally.figures(Duration::from_secs(1));
        assert_eq!((figures.delivered, figures.broken), (5, 2));
    }
}
