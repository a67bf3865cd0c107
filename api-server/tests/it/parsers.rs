//! Every parser of bytes from outside, on bytes that are random, and on sound ones that were damaged. The same functions are targets of
//! `cargo fuzz`, which searches for longer.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

/// Sound inputs, from which damaged ones are made.
const SEEDS: [&str; 17] = [
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
        damaged(),
        proptest::collection::vec(any::<u8>(), 0..200),
        ".{0,100}".prop_map(String::into_bytes)
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
