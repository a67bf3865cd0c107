//! What must hold for whatever bytes come from outside, one function for each parser. `cargo fuzz run NAME` searches for bytes that break
//! it (with a nightly compiler); `api-server/tests/it/parsers.rs` tries some thousand on the stable one, in `make test`.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use api_server::cache::shared::Notice;
use api_server::cache::{Target, entry};
use api_server::domain::account::Email;
use api_server::domain::memory::Question;
use api_server::domain::page::{Cursor, PageRequest};
use api_server::domain::plan::{PlanDraft, PlanRequest};
use api_server::domain::resource::{self, Part};
use api_server::domain::schedule::Schedule;
use api_server::domain::tariff::{RateStructure, Usage, cost};
use api_server::domain::token::{Kind, Token};
use api_server::domain::webhook;
use api_server::http::client;
use api_server::keys::Keys;
use api_server::outbound::{address, pause};
use api_server::realtime::wire::decoder::{Decoder, Incoming, Violation};
use api_server::realtime::{cursor as places, protocol};
use api_server::redis_link::Slots;
use api_server::routing::Position;
use api_server::search::endpoint;
use api_server::syncs::github::Stream;
use api_server::syncs::{feed, github, reply};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::Bytes;
use jiff::Timestamp;
use rust_decimal::Decimal;
use tokio::time::Instant;

/// A parser's name and what must hold for it.
pub type Parser = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Parser; 22] = [
    ("cursor", cursor),
    ("event_cursor", event_cursor),
    ("token", token),
    ("consistency_token", consistency_token),
    ("tariff", tariff),
    ("plan", plan),
    ("question", question),
    ("client_messages", client_messages),
    ("frame", frame),
    ("webhook_address", webhook_address),
    ("link_header", link_header),
    ("source_page", source_page),
    ("range", range),
    ("cache_target", cache_target),
    ("configuration", configuration),
    ("client_address", client_address),
    ("embeddings_answer", embeddings_answer),
    ("cache_entry", cache_entry),
    ("cache_notice", cache_notice),
    ("cluster_slots", cluster_slots),
    ("schedule", schedule),
    ("email", email),
];

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap_or_default()
}

/// Cursors of lists: what is accepted is written back as it was, and PostgreSQL can compare it.
pub fn cursor(bytes: &[u8]) {
    if let Ok(cursor) = Cursor::decode(text(bytes)) {
        assert_eq!(cursor.encode(), text(bytes));
        assert!(cursor.at >= Timestamp::UNIX_EPOCH);
    }
    let limit = bytes.first().map(|byte| u16::from(*byte) * 2);
    if let Ok(page) = PageRequest::parse(Some(text(bytes)), limit) {
        assert!((1..=100).contains(&page.limit));
    }
}

/// Cursors of event streams.
pub fn event_cursor(bytes: &[u8]) {
    if let Some(first) = places::decode(text(bytes)) {
        let again = places::decode(&places::encode(first.iter().copied())).map(|places| places.len());
        assert_eq!(again, Some(first.len()));
    }
}

/// Access and refresh tokens, tickets, invitations: only what we may have made reaches the database.
pub fn token(bytes: &[u8]) {
    for kind in [Kind::Access, Kind::Refresh, Kind::Ticket, Kind::Invitation] {
        if let Some(token) = Token::parse(kind, text(bytes)) {
            assert_eq!(token.reveal(), text(bytes));
            assert_eq!(token.reveal().len(), 47);
            assert!(token.reveal().is_ascii());
        }
    }
}

/// Consistency tokens: none is accepted that we did not sign, and no bit of one that we did can be changed.
pub fn consistency_token(bytes: &[u8]) {
    let Ok(keys) = Keys::from_pepper(&[7; 32]) else {
        return;
    };
    assert_eq!(Position::from_token(text(bytes), &keys), None);
    let mut ours = Position { timeline: 3, lsn: 9 }.to_token(&keys).into_bytes();
    if let [place, flip, ..] = *bytes
        && let Some(byte) = ours.get_mut(usize::from(place))
        && flip != 0
    {
        let before = *byte;
        *byte ^= flip;
        let same = before.eq_ignore_ascii_case(byte);
        assert!(same || Position::from_token(text(&ours), &keys).is_none());
    }
}

/// Tariffs: one that passes its check has a price, whatever was used.
pub fn tariff(bytes: &[u8]) {
    if let Ok(rates) = serde_json::from_slice::<RateStructure>(bytes)
        && rates.check().is_ok()
    {
        let usage = Usage::new(&[], &jiff::tz::TimeZone::UTC);
        assert!(cost(&rates, &usage, 12) >= Decimal::ZERO);
    }
}

/// Plans: each problem names a field.
pub fn plan(bytes: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<PlanRequest>(bytes)
        && let Err(problems) = PlanDraft::parse(request)
    {
        assert!(!problems.is_empty() && problems.iter().all(|(field, _)| !field.is_empty()));
    }
}

/// What is searched for becomes a query of PostgreSQL: nothing in it but quoted words.
pub fn question(bytes: &[u8]) {
    if let Ok(question) = Question::parse(text(bytes)) {
        let query = question.any_word();
        for word in query.split(" | ").filter(|word| !word.is_empty()) {
            let inner = word.strip_prefix('\'').and_then(|rest| rest.strip_suffix("':*"));
            let inner = inner.unwrap_or_else(|| word.trim_end_matches(":*"));
            assert!(
                !inner.contains(['\'', '\\', '&', '!', '<', '>', '(', ')', '|', '\0']),
                "{query}"
            );
        }
    }
}

/// What clients send over a WebSocket: however it is cut, the server reads the same messages from it or refuses them. The first byte says
/// where to cut.
pub fn client_messages(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = messages(&[bytes]);
    let (begin, end) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(messages(&[begin, end]), whole);
    for message in whole.0 {
        if let Incoming::Text(text) = message {
            frame(text.as_bytes());
        }
    }
}

fn messages(pieces: &[&[u8]]) -> (VecDeque<Incoming>, Option<Violation>) {
    let (mut decoder, mut out) = (Decoder::new(16 << 10), VecDeque::new());
    for piece in pieces {
        if let Err(violation) = decoder.feed(piece, &mut out) {
            return (out, Some(violation));
        }
    }
    (out, None)
}

/// The JSON in frames of WebSockets.
pub fn frame(bytes: &[u8]) {
    let _ = serde_json::from_slice::<protocol::Request>(bytes);
}

/// Addresses of webhooks and syncs, and what webhooks want to hear.
pub fn webhook_address(bytes: &[u8]) {
    if let Ok(uri) = address::parse(text(bytes), &[]) {
        assert!(matches!(uri.scheme_str(), Some("http" | "https")));
        let host = uri.host().unwrap_or_default();
        assert!(!host.is_empty() && !host.eq_ignore_ascii_case("localhost"));
        let literal = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        assert!(
            !literal.is_ok_and(|address| address.is_loopback() || address.is_unspecified()),
            "{host}"
        );
    }
    let wanted: Vec<String> = text(bytes).split(',').map(str::to_owned).collect();
    if let Ok(types) = webhook::event_types(&wanted) {
        assert!(
            types
                .iter()
                .all(|name| webhook::EVENT_TYPES.contains(&name.as_str()))
        );
    }
    let _ = webhook::description(text(bytes));
}

/// Headers of sources: links to the next page, and when to come back.
pub fn link_header(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for name in [header::LINK, header::RETRY_AFTER] {
        headers.insert(name, value.clone());
    }
    headers.insert("x-ratelimit-remaining", HeaderValue::from_static("0"));
    headers.insert("x-ratelimit-reset", value);
    if let Some(next) = reply::next_link(&headers) {
        assert!(text(bytes).contains(&next));
        let source = "https://api.github.com";
        if reply::same_origin(&next, source).is_ok() {
            assert!(next.to_ascii_lowercase().starts_with(source), "{next}");
        }
    }
    let _ = pause::retry_after(&headers, now());
    headers.remove(header::RETRY_AFTER);
    for status in [StatusCode::OK, StatusCode::FORBIDDEN, StatusCode::BAD_GATEWAY] {
        let _ = reply::judge(status, &headers, now());
    }
}

/// Pages of sources: what makes no sense is left out and counted.
pub fn source_page(bytes: &[u8]) {
    for stream in [Stream::Issues, Stream::Comments] {
        if let Ok(page) = github::page(stream, &HeaderMap::new(), bytes) {
            assert!(page.records.iter().all(|record| !record.external_id.is_empty()));
        }
    }
    if let Ok(page) = feed::page(bytes) {
        assert!(page.records.iter().all(|record| !record.external_id.is_empty()));
    }
}

/// Ranges of files, their names and types.
pub fn range(bytes: &[u8]) {
    for size in [0, 1, 1_000, u64::MAX] {
        if let Part::Range(start, end) = resource::part(Some(text(bytes)), size) {
            assert!(start < end && end <= size);
        }
    }
    if let Ok(name) = resource::name(text(bytes)) {
        assert!(!name.contains(['/', '\\', '\r', '\n', '\0']), "{name:?}");
    }
    if let Ok(kind) = resource::content_type(text(bytes), &[]) {
        assert!(HeaderValue::from_str(&kind).is_ok(), "{kind:?}");
    }
}

/// What operators drop from the cache: it reads what it writes.
pub fn cache_target(bytes: &[u8]) {
    if let Ok(target) = text(bytes).parse::<Target>() {
        assert_eq!(target.to_string().parse::<Target>().ok(), Some(target));
    }
}

/// `tanka.yaml`: what is accepted is the same when it was written and read again.
pub fn configuration(bytes: &[u8]) {
    let _ = crds::config::parse(text(bytes));
}

/// `X-Forwarded-For`: only trusted proxies are believed, and nothing that a client sends hides what they add.
pub fn client_address(bytes: &[u8]) {
    let Ok(network) = "10.0.0.0/8".parse() else {
        return;
    };
    let trusted = [network];
    let (proxy, caller) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([203, 0, 113, 9]));
    let nearest = |peer: IpAddr, lines: &[&[u8]]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(line).ok()?);
        }
        Some(client::nearest(peer, &headers, &trusted))
    };
    let Some(found) = nearest(proxy, &[bytes]) else {
        return;
    };
    assert!(!client::bucket(found).is_empty());
    assert_eq!(nearest(caller, &[bytes]), Some(caller));
    let (invented, own): (&[u8], &[u8]) = (b"198.51.100.1", b"203.0.113.9");
    let added = [bytes, b", 203.0.113.9, 10.0.0.2"].concat();
    let added = added.as_slice();
    for lines in [[invented, added], [bytes, own], [added, b"10.0.0.2"]] {
        assert_eq!(nearest(proxy, &lines), Some(caller));
    }
}

/// Answers of an endpoint for embeddings: a sound vector for each text, or none at all.
pub fn embeddings_answer(bytes: &[u8]) {
    for (count, dimensions) in [(0, None), (1, None), (2, None), (2, Some(2)), (3, Some(0))] {
        if let Ok(vectors) = endpoint::read(bytes, count, dimensions) {
            assert_eq!(vectors.len(), count);
            for vector in vectors {
                assert!(!vector.is_empty() && vector.iter().all(|part| part.is_finite()));
                assert!(dimensions.is_none_or(|wanted| usize::try_from(wanted) == Ok(vector.len())));
            }
        }
    }
}

/// Entries of the cache in Redis: what is read is the same when it was written and read again.
pub fn cache_entry(bytes: &[u8]) {
    let (now, left) = (Instant::now(), Duration::from_secs(5));
    if let Some(found) = entry::decode(&Bytes::copy_from_slice(bytes), now, left) {
        let again = Bytes::from(entry::encode(&found));
        assert_eq!(entry::decode(&again, now, left).as_ref(), Some(&found));
        let _ = found.wants_refresh(now, 0.5);
    }
}

/// Invalidations that other processes tell: what is read is the same when it was written and read again.
pub fn cache_notice(bytes: &[u8]) {
    if let Some(notice) = Notice::decode(text(bytes)) {
        assert_eq!(Notice::decode(&notice.encode()), Some(notice));
    }
}

/// What a Redis Cluster says of its slots: each key is at one of the servers that it names.
pub fn cluster_slots(bytes: &[u8]) {
    let Ok(answer) = redis::parse_redis_value(bytes) else {
        return;
    };
    if let Some((servers, slots)) = Slots::read(&answer, "asked") {
        for key in ["", "foo", "{bar}foo", text(bytes)] {
            assert!(slots.server(key) < servers.len());
        }
    }
}

/// Cron expressions: one that is accepted is due again and again, each time later, at whole minutes.
pub fn schedule(bytes: &[u8]) {
    let expression = text(bytes);
    for zone in ["UTC", "Europe/Zurich"] {
        let Some(schedule) = Schedule::stored(expression, zone) else {
            continue;
        };
        let mut last = now();
        for _ in 0..3 {
            let Some(due) = schedule.next(last) else {
                break;
            };
            assert!(due > last, "{expression}: {due} after {last}");
            assert_eq!(due.as_second() % 60, 0, "{expression}: {due}");
            last = due;
        }
    }
}

/// E-mail addresses: one that is accepted has one spelling, which is accepted as it is.
pub fn email(bytes: &[u8]) {
    if let Ok(email) = Email::parse(text(bytes)) {
        let address = email.as_str();
        assert!(address.bytes().all(|byte| byte.is_ascii_graphic()), "{address}");
        assert_eq!(address, address.to_ascii_lowercase());
        assert_eq!(address.matches('@').count(), 1, "{address}");
        assert!(address.len() <= 254, "{address}");
        assert_eq!(Email::parse(address).ok().as_ref(), Some(&email));
    }
}
