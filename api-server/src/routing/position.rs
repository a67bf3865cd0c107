//! Positions in the write-ahead log, and the signed form in which clients carry them.

use std::fmt;

use crate::keys::{Keys, SIGNATURE_LEN};

/// A byte position in the write-ahead log of a timeline. Later timelines sort after earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Counts promotions.
    pub timeline: u32,
    /// Byte position.
    pub lsn: u64,
}

impl Position {
    /// Whether an instance here has everything that was written up to `needed`. A position on a later timeline with a
    /// smaller number does not count: whether that write survived the promotion is unknown.
    pub const fn covers(self, needed: Self) -> bool {
        self.timeline >= needed.timeline && self.lsn >= needed.lsn
    }

    /// As `X-Consistency-Token` carries it: 28 bytes in hexadecimal. Signed, so that nobody can name a position in the
    /// future and make every read go to the primary.
    pub fn to_token(self, keys: &Keys) -> String {
        let message = self.to_bytes();
        let mut token = String::with_capacity(2 * (message.len() + SIGNATURE_LEN));
        for byte in message.into_iter().chain(keys.sign_position(&message)) {
            token.extend(
                [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])),
            );
        }
        token
    }

    /// Reads a token of ours.
    pub fn from_token(token: &str, keys: &Keys) -> Option<Self> {
        let bytes = decode_hex::<{ 12 + SIGNATURE_LEN }>(token)?;
        let (message, signature) = bytes.split_at(12);
        if !keys.verify_position(message, signature) {
            return None;
        }
        let (timeline, lsn) = message.split_at(4);
        Some(Self {
            timeline: u32::from_be_bytes(timeline.try_into().ok()?),
            lsn: u64::from_be_bytes(lsn.try_into().ok()?),
        })
    }

    fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.timeline.to_be_bytes());
        bytes[4..].copy_from_slice(&self.lsn.to_be_bytes());
        bytes
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{:X}/{:X}",
            self.timeline,
            self.lsn >> 32,
            self.lsn & 0xFFFF_FFFF
        )
    }
}

fn decode_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> Keys {
        Keys::from_pepper(&[3; 32]).unwrap()
    }

    proptest! {
        #[test]
        fn a_token_is_read_back(timeline: u32, lsn: u64) {
            let position = Position { timeline, lsn };
            prop_assert_eq!(Position::from_token(&position.to_token(&keys()), &keys()), Some(position));
        }

        #[test]
        fn a_changed_token_is_refused(timeline: u32, lsn: u64, at in 0_usize..56) {
            let mut token = Position { timeline, lsn }.to_token(&keys()).into_bytes();
            token[at] = if token[at] == b'0' { b'1' } else { b'0' };
            prop_assert_eq!(Position::from_token(std::str::from_utf8(&token).unwrap(), &keys()), None);
        }

        #[test]
        fn no_text_makes_reading_panic(text in ".{0,70}") {
            let _ = Position::from_token(&text, &keys());
        }
    }

    #[test]
    fn a_write_of_a_later_timeline_is_not_covered_by_an_earlier_one() {
        let needed = Position {
            timeline: 2,
            lsn: 100,
        };
        assert!(
            !Position {
                timeline: 1,
                lsn: 900
            }
            .covers(needed)
        );
        assert!(!Position { timeline: 3, lsn: 99 }.covers(needed));
        assert!(
            Position {
                timeline: 3,
                lsn: 100
            }
            .covers(needed)
        );
    }
}
