//! `Last-Event-ID` of server-sent events: where a client is in all of its channels, in a form that no client has to understand.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::hub::Resume;
use crate::domain::event::Channel;

/// Bytes of one channel: its kind, its id, its epoch, the offset.
const LENGTH: usize = 1 + 16 + 16 + 8;
/// Channels in one cursor, which is a header of every reconnection.
pub const MOST: usize = 16;

/// Writes a cursor.
pub fn encode(places: impl Iterator<Item = (Channel, Resume)>) -> String {
    let mut bytes = Vec::with_capacity(3 * LENGTH);
    for (channel, resume) in places.take(MOST) {
        let (kind, id) = match channel {
            Channel::User(id) => (1, id),
            Channel::Tenant(id) => (2, id),
            Channel::Workroom(id) => (3, id),
        };
        bytes.push(kind);
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(resume.epoch.unwrap_or(Uuid::nil()).as_bytes());
        bytes.extend_from_slice(&resume.offset.to_be_bytes());
    }
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a cursor; none if it is not one of ours.
pub fn decode(text: &str) -> Option<Vec<(Channel, Resume)>> {
    if text.len() > MOST * LENGTH * 2 {
        return None;
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let (places, rest) = bytes.as_chunks::<LENGTH>();
    if !rest.is_empty() {
        return None;
    }
    let places = places.iter().map(|place| {
        let (kind, rest) = place.split_first()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (epoch, offset) = rest.split_first_chunk::<16>()?;
        let id = Uuid::from_bytes(*id);
        let channel = match kind {
            1 => Channel::User(id),
            2 => Channel::Tenant(id),
            3 => Channel::Workroom(id),
            _ => return None,
        };
        let resume = Resume {
            offset: i64::from_be_bytes(offset.try_into().ok()?),
            epoch: Some(Uuid::from_bytes(*epoch)).filter(|epoch| !epoch.is_nil()),
        };
        Some((channel, resume))
    });
    places.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_survives_the_way_to_the_client_and_back(
            places in proptest::collection::vec((0_u8..3, any::<u128>(), proptest::option::of(1..u128::MAX), any::<i64>()), 0..MOST)
        ) {
            let places: Vec<_> = places.into_iter().map(|(kind, id, epoch, offset)| {
                let id = Uuid::from_u128(id);
                let channel = [Channel::User(id), Channel::Tenant(id), Channel::Workroom(id)][usize::from(kind)];
                (channel, Resume { offset, epoch: epoch.map(Uuid::from_u128) })
            }).collect();
            prop_assert_eq!(decode(&encode(places.iter().copied())), Some(places));
        }

        #[test]
        fn no_text_makes_decoding_panic(text in ".{0,300}") {
            let _ = decode(&text);
        }
    }
}
