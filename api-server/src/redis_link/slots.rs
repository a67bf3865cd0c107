//! Which server of a Redis Cluster holds a key: the key's slot, and the table of slots as the servers tell it.

use crc::{CRC_16_XMODEM, Crc};
use redis::Value;

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
/// How many slots there are.
const SLOTS: u16 = 16_384;

/// Host and port of a server.
pub type Address = (String, u16);

/// The slots of a row of servers. The default is one server that holds all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// In order, without gaps.
    ranges: Vec<Range>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    first: u16,
    last: u16,
    server: usize,
}

impl Slots {
    /// The place of the server that holds a key.
    pub fn server(&self, key: &str) -> usize {
        let slot = slot(key);
        let at = self.ranges.partition_point(|range| range.last < slot);
        self.ranges.get(at).map_or(0, |range| range.server)
    }

    /// Reads the answer to `CLUSTER SLOTS`: the primaries and what each holds. A server that does not know its own name is the one that
    /// was asked. Nothing if a slot is held by nobody, or if this is no such answer.
    pub fn read(answer: &Value, asked: &str) -> Option<(Vec<Address>, Self)> {
        let Value::Array(rows) = answer else { return None };
        let mut servers: Vec<Address> = Vec::new();
        let mut ranges = Vec::with_capacity(rows.len());
        for row in rows {
            let Value::Array(fields) = row else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = fields.as_slice() else {
                return None;
            };
            let address = address(primary, asked)?;
            let server = servers.iter().position(|known| *known == address);
            let server = server.unwrap_or_else(|| {
                servers.push(address);
                servers.len() - 1
            });
            ranges.push(Range {
                first: u16::try_from(*first).ok()?,
                last: u16::try_from(*last).ok()?,
                server,
            });
        }
        ranges.sort_unstable();
        let mut next = 0;
        for range in &ranges {
            if range.first != next || range.last < range.first || range.last >= SLOTS {
                return None;
            }
            next = range.last + 1;
        }
        (next == SLOTS).then_some((servers, Self { ranges }))
    }
}

fn address(fields: &[Value], asked: &str) -> Option<Address> {
    let [host, Value::Int(port), ..] = fields else {
        return None;
    };
    let host = match host {
        Value::Nil => asked,
        Value::BulkString(name) => match std::str::from_utf8(name).ok()? {
            "" | "?" => asked,
            name => name,
        },
        _ => return None,
    };
    Some((host.to_owned(), u16::try_from(*port).ok()?))
}

/// The slot of a key: of what stands between the first `{` and the next `}`, if that is anything, else of the whole key.
fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty());
    CRC.checksum(tag.unwrap_or(key).as_bytes()) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(first: i64, last: i64, host: &str, port: i64) -> Value {
        let primary = Value::Array(vec![Value::BulkString(host.into()), Value::Int(port)]);
        let replica = Value::Array(vec![Value::BulkString("replica".into()), Value::Int(1)]);
        Value::Array(vec![Value::Int(first), Value::Int(last), primary, replica])
    }

    /// The first is of the specification of Redis Cluster, the others are what `CLUSTER KEYSLOT` answers.
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot("{user1000}.following"), slot("user1000"));
        assert_eq!(slot("foo{}{bar}"), slot("foo{}{bar}"), "an empty tag is none");
        assert_ne!(slot("foo{}{bar}"), slot("bar"));
        assert_eq!(slot("foo{{bar}}zap"), slot("{bar"));
        assert_eq!(slot("foo{bar}{zap}"), slot("bar"));
    }

    #[test]
    fn a_key_is_at_the_server_that_holds_its_slot() {
        let answer = Value::Array(vec![
            row(8_000, 16_383, "b", 2),
            row(0, 99, "b", 2),
            row(100, 7_999, "", 1),
        ]);
        let (servers, slots) = Slots::read(&answer, "asked").unwrap();
        assert_eq!(servers, [("b".to_owned(), 2), ("asked".to_owned(), 1)]);
        assert_eq!(servers[slots.server("foo")].0, "b", "slot 12182");
        assert_eq!(servers[slots.server("bar")].0, "asked", "slot 5061");
        assert_eq!(Slots::default().server("foo"), 0);
    }

    #[test]
    fn a_slot_that_nobody_or_two_hold_is_no_table() {
        for rows in [
            vec![row(0, 16_382, "a", 1)],
            vec![row(1, 16_383, "a", 1)],
            vec![row(0, 8_000, "a", 1), row(8_002, 16_383, "b", 1)],
            vec![row(0, 8_000, "a", 1), row(8_000, 16_383, "b", 1)],
            vec![row(0, 16_384, "a", 1)],
            Vec::new(),
        ] {
            assert_eq!(Slots::read(&Value::Array(rows.clone()), "x"), None, "{rows:?}");
        }
        assert_eq!(Slots::read(&Value::Nil, "x"), None);
    }
}
