//! What must hold for whatever bytes come from outside, one function for each parser. `cargo fuzz run NAME` searches for bytes that break
//! it (with a nightly compiler); `api-server/tests/it/parsers.rs` tries some thousand on the stable one, in `make test`.

use api_server::cache::Target;
use api_server::domain::memory::Question;
use api_server::domain::page::{Cursor, PageRequest};
use api_server::domain::plan::{PlanDraft, PlanRequest};
use api_server::domain::resource::{self, Part};
use api_server::domain::tariff::{RateStructure, Usage, cost};
use api_server::domain::token::{Kind, Token};
use api_server::domain::webhook;
use api_server::keys::Keys;
use api_server::outbound::{address, pause};
use api_server::realtime::{cursor as places, protocol};
use api_server::routing::Position;
use api_server::syncs::github::Stream;
use api_server::syncs::{feed, github, reply};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use rust_decimal::Decimal;

/// A parser's name and what must hold for it.
pub type Parser = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Parser; 14] = [
    ("cursor", cursor),
    ("event_cursor", event_cursor),
    ("token", token),
    ("consistency_token", consistency_token),
    ("tariff", tariff),
    ("plan", plan),
    ("question", question),
    ("frame", frame),
    ("webhook_address", webhook_address),
    ("link_header", link_header),
    ("source_page", source_page),
    ("range", range),
    ("cache_target", cache_target),
    ("configuration", configuration),
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

/// Frames of WebSockets.
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
