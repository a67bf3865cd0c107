//! A cached answer, its stored form, and the decision when to compute it anew before it ends. Pure.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::routing::Position;

/// Share of its life in which a hot entry is computed anew although it is still good.
const EARLY: f64 = 0.03;
/// An entry that says "there is none" lives at most so long: it costs little to find out again.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(15);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An answer as JSON.
    Json(Bytes),
    /// There is none.
    Missing,
}

/// A cached answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The answer.
    pub content: Content,
    /// It contains every write up to here, if that is known.
    pub covers: Option<Position>,
    /// What computing it took.
    pub cost: Duration,
    /// Until when it may be served.
    pub until: Instant,
    /// Its whole life.
    pub ttl: Duration,
}

impl Entry {
    /// Bytes that it takes in memory, roughly.
    pub fn weight(&self) -> u64 {
        let content = match &self.content {
            Content::Json(json) => json.len(),
            Content::Missing => 0,
        };
        u64::try_from(content).unwrap_or(u64::MAX) + 256
    }

    /// Whether it holds a write that a reader wants to see.
    pub fn has(&self, wanted: Option<Position>) -> bool {
        wanted.is_none_or(|wanted| self.covers.is_some_and(|covers| covers.covers(wanted)))
    }

    /// Whether to compute it anew now, although it is good: the closer to its end and the dearer it is, the likelier. `draw` is
    /// uniform in (0, 1]. After Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention" (2015).
    pub fn wants_refresh(&self, now: Instant, draw: f64) -> bool {
        let scale = self.cost.max(self.ttl.mul_f64(EARLY / 3.0)).as_secs_f64();
        let early = -draw.max(f64::MIN_POSITIVE).ln() * scale;
        self.until.saturating_duration_since(now).as_secs_f64() < early
    }
}

/// How long an entry of this content lives.
pub fn life(content: &Content, ttl: Duration) -> Duration {
    match content {
        Content::Json(_) => ttl,
        Content::Missing => ttl.min(LONGEST_NEGATIVE),
    }
}

/// The stored form: `j` or `m`, the position as 24 digits or `-`, the cost in microseconds, the life in milliseconds, then the JSON.
pub fn encode(entry: &Entry) -> Vec<u8> {
    let (mark, json): (_, &[u8]) = match &entry.content {
        Content::Json(json) => ('j', json),
        Content::Missing => ('m', &[]),
    };
    let covers = entry.covers.map_or_else(|| "-".to_owned(), digits);
    let (cost, ttl) = (entry.cost.as_micros(), entry.ttl.as_millis());
    let mut bytes = format!("{mark} {covers} {cost} {ttl}\n").into_bytes();
    bytes.extend_from_slice(json);
    bytes
}

/// Reads the stored form of an entry that has `left` to live.
pub fn decode(bytes: &Bytes, now: Instant, left: Duration) -> Option<Entry> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut words = head.split(' ');
    let content = match words.next()? {
        "j" => Content::Json(bytes.slice(end + 1..)),
        "m" => Content::Missing,
        _ => return None,
    };
    let covers = match words.next()? {
        "-" => None,
        position => Some(parse_digits(position)?),
    };
    Some(Entry {
        content,
        covers,
        cost: Duration::from_micros(words.next()?.parse().ok()?),
        until: now + left,
        ttl: Duration::from_millis(words.next()?.parse().ok()?),
    })
}

/// A position as 24 hexadecimal digits, which sort as positions do.
pub fn digits(position: Position) -> String {
    format!("{:08x}{:016x}", position.timeline, position.lsn)
}

/// Reads [`digits`].
pub fn parse_digits(text: &str) -> Option<Position> {
    let (timeline, lsn) = text.split_at_checked(8)?;
    if lsn.len() != 16 {
        return None;
    }
    Some(Position {
        timeline: u32::from_str_radix(timeline, 16).ok()?,
        lsn: u64::from_str_radix(lsn, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(ttl_ms: u64, cost_ms: u64) -> Entry {
        Entry {
            content: Content::Missing,
            covers: None,
            cost: Duration::from_millis(cost_ms),
            until: Instant::now() + Duration::from_millis(ttl_ms),
            ttl: Duration::from_millis(ttl_ms),
        }
    }

    proptest! {
        #[test]
        fn the_stored_form_is_read_back(
            json in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            covers in proptest::option::of(any::<(u32, u64)>()), cost in 0_u64..1 << 40, ttl in 0_u64..1 << 40,
        ) {
            let now = Instant::now();
            let left = Duration::from_millis(ttl / 2);
            let entry = Entry {
                content: json.map_or(Content::Missing, |json| Content::Json(json.into())),
                covers: covers.map(|(timeline, lsn)| Position { timeline, lsn }),
                cost: Duration::from_micros(cost), until: now + left, ttl: Duration::from_millis(ttl),
            };
            prop_assert_eq!(decode(&Bytes::from(encode(&entry)), now, left), Some(entry));
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&Bytes::from(bytes), Instant::now(), Duration::ZERO);
        }

        #[test]
        fn digits_sort_as_positions_do(a: (u32, u64), b: (u32, u64)) {
            let position = |(timeline, lsn)| Position { timeline, lsn };
            let (a, b) = (position(a), position(b));
            prop_assert_eq!(digits(a).cmp(&digits(b)), a.cmp(&b));
            prop_assert_eq!(parse_digits(&digits(a)), Some(a));
        }
    }

    #[test]
    fn refreshing_early_is_rare_at_first_and_certain_in_the_end() {
        let entry = entry(60_000, 5);
        let at = |left_ms| entry.until.checked_sub(Duration::from_millis(left_ms)).unwrap();
        assert!(!entry.wants_refresh(at(60_000), 0.001));
        assert!(!entry.wants_refresh(at(1_000), 0.9));
        assert!(entry.wants_refresh(at(1_000), 0.1));
        assert!(entry.wants_refresh(at(0), 0.5));
    }

    #[test]
    fn what_is_dear_is_refreshed_earlier() {
        let (cheap, dear) = (entry(60_000, 5), entry(60_000, 20_000));
        let before = |e: &Entry| e.until.checked_sub(Duration::from_secs(10)).unwrap();
        assert!(!cheap.wants_refresh(before(&cheap), 0.3));
        assert!(dear.wants_refresh(before(&dear), 0.3));
    }
}
