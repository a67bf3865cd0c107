//! When another side wants to be asked again.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use jiff::Timestamp;

/// What `Retry-After` says: seconds, or a time.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(until(at, now))
}

/// From now until a time; nothing if it has passed.
pub fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_times_are_understood() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let say = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(say("120"), Some(Duration::from_mins(2)));
        assert_eq!(
            say("Sat, 21 Nov 2026 12:00:30 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(say("Sat, 21 Nov 2026 11:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(say("soon"), None);
        assert_eq!(say("-1"), None);
    }
}
