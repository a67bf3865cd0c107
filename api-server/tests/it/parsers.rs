//! Every parser of bytes from outside, on bytes that are random, and on sound ones that were damaged. The same functions are targets of
//! `cargo fuzz`, which searches for longer.

use std::collections::VecDeque;
use std::time::Duration;

use api_server::cache::entry;
use api_server::cache::shared::Notice;
use api_server::domain::account::Email;
use api_server::domain::schedule::Schedule;
use api_server::realtime::wire::decoder::{Decoder, Incoming};
use api_server::redis_link::Slots;
use api_server::search::endpoint;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::time::Instant;

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

/// Sound inputs, from which damaged ones are made.
const SEEDS: [&str; 25] = [
    "AAYKw4p2gAAAAAAAAAAAAAAAAAAAAAAA",
    "tka_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "0000000300000000000000090123456789abcdef0123456789abcdef",
    r#"{"monthly_charge":"9.90","energy":{"type":"tiered","tiers":[{"up_to_kwh":"100","rate":"0.30"},{"rate":"0.25"}]}}"#,
    r#"{"energy":{"type":"time_of_use","rate":"0.5","periods":[{"from_hour":22,"to_hour":6,"days":["mon"],"rate":"0.05"}]}}"#,
    r#"{"name":"x","provider":"y","regions":["DE"],"currency":"EUR","time_zone":"Europe/Berlin","renewable_percentage":40,"rate_structure":{"energy":{"type":"flat","rate":"0.1"}}}"#,
    "green & tea | 'quoted' <-> !not:*",
    r#"{"type":"connect","token":"tka_x","channels":["workroom:00000000-0000-0000-0000-000000000000:updates"],"resume":{}}"#,
    "https://[::ffff:127.0.0.1]:8080/hook?x=1",
    "conversation.created,message.created",
    r#"<https://api.github.com/x?page=2>; rel="next", <https://api.github.com/x?page=9>; rel="last""#,
    "Sat, 21 Nov 2026 12:00:30 GMT",
    r#"[{"id":1,"number":1,"title":"t","body":null,"state":"open","updated_at":"2026-01-01T00:00:00Z"}]"#,
    r#"{"items":[{"id":"1","title":"One"}],"next_url":"https://a/2"}"#,
    "bytes=0-499",
    "memories:v1:00000000000000000000000000000000:00000000000000000000000000000000",
    "database: {instances: [{name: pg-0, host: pg-0.pg}]}\nredis: {sentinels: ['redis-0.redis:26379']}\n",
    "198.51.100.1, 203.0.113.9, 10.0.0.2",
    r#"{"data":[{"index":1,"embedding":[0.5,-1]},{"index":0,"embedding":[2.5e-1,2]}]}"#,
    "j 000000030000000000000009 1200 60000\n{\"a\":1}",
    "42 000000030000000000000009 memories:v1:00000000000000000000000000000001:- tanka:cache:abc:",
    "*2\r\n*3\r\n:0\r\n:8191\r\n*2\r\n$1\r\na\r\n:7000\r\n*3\r\n:8192\r\n:16383\r\n*2\r\n$1\r\nb\r\n:7001\r\n",
    "*/5 9-17 1,15 * 1-5",
    "Ada.Lovelace+tanka@mail.example.com",
    // In UTF-8 the first character is the place of the cut, then the head of a masked text of 15 bytes; the mask is zero.
    "\u{204f}\0\0\0\0{\"type\":\"ping\"}",
];

/// A sound input with some places changed, cut, or doubled.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..4_u8);
    let changes = proptest::collection::vec(change, 0..6);
    (proptest::sample::select(&SEEDS[..]), changes).prop_map(|(seed, changes)| {
        let mut bytes = seed.as_bytes().to_vec();
        for (place, byte, how) in changes {
            if bytes.is_empty() {
                break;
            }
            let place = place.index(bytes.len());
            match how {
                0 => bytes[place] = byte,
                // Within the characters that parsers know.
                1 => bytes[place] = byte % 95 + 32,
                2 => bytes.truncate(place),
                _ => {
                    let rest = bytes[place..].to_vec();
                    bytes.extend(rest);
                }
            }
        }
        bytes
    })
}

/// `TANKA_PARSER_CASES` says how many inputs for each parser, 3,000 if absent.
#[test]
fn no_bytes_break_a_parser() {
    let cases = std::env::var("TANKA_PARSER_CASES").map_or(3_000, |text| text.parse().unwrap());
    let inputs = prop_oneof![
        2 => damaged(),
        1 => proptest::collection::vec(any::<u8>(), 0..200),
        1 => ".{0,100}".prop_map(String::into_bytes),
    ];
    for (name, parser) in targets::TARGETS {
        let config = Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        };
        let outcome = TestRunner::new(config).run(&inputs, |bytes| {
            parser(&bytes);
            Ok(())
        });
        outcome.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
    // Sound inputs reach the code behind the first look.
    let accepted = api_server::domain::page::Cursor::decode(SEEDS[0]).is_ok()
        && api_server::domain::token::Token::parse(api_server::domain::token::Kind::Access, SEEDS[1])
            .is_some()
        && SEEDS[3..5].iter().all(|text| {
            serde_json::from_str::<api_server::domain::tariff::RateStructure>(text)
                .is_ok_and(|rates| rates.check().is_ok())
        });
    assert!(accepted);
}

/// The same of what other programs send: an endpoint for embeddings, Redis, and clients.
#[test]
fn sound_inputs_from_other_programs_are_accepted() {
    let vectors = endpoint::read(SEEDS[18].as_bytes(), 2, Some(2)).unwrap();
    assert_eq!(vectors, [[0.25, 2.0], [0.5, -1.0]]);
    let entry = Bytes::from_static(SEEDS[19].as_bytes());
    assert!(entry::decode(&entry, Instant::now(), Duration::ZERO).is_some());
    assert!(Notice::decode(SEEDS[20]).is_some());
    let answer = redis::parse_redis_value(SEEDS[21].as_bytes()).unwrap();
    let (servers, _) = Slots::read(&answer, "asked").unwrap();
    assert_eq!(servers, [("a".to_owned(), 7_000), ("b".to_owned(), 7_001)]);
    assert!(Schedule::stored(SEEDS[22], "UTC").is_some());
    assert!(Email::parse(SEEDS[23]).is_ok());
    let (mut decoder, mut messages) = (Decoder::new(100), VecDeque::new());
    decoder.feed(&SEEDS[24].as_bytes()[1..], &mut messages).unwrap();
    assert_eq!(messages, [Incoming::Text(r#"{"type":"ping"}"#.to_owned())]);
}

/// What is tried here and what `cargo fuzz` knows are the same.
#[test]
fn every_parser_is_a_target_of_cargo_fuzz() {
    let mut named: Vec<&str> = include_str!("../../../fuzz/Cargo.toml")
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""))
        .collect();
    let mut tried = targets::TARGETS.map(|(name, _)| name).to_vec();
    named.sort_unstable();
    tried.sort_unstable();
    assert_eq!(named, tried);
}
