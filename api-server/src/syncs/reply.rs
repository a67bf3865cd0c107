//! What the answer of a source means, before anybody looks at its records. Pure.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, Uri, header};
use jiff::Timestamp;

use crate::domain::task::Failure;
use crate::outbound::pause;

/// An answer that is no failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is something to read.
    Read,
    /// Nothing has changed.
    Unchanged,
}

/// Judges status and headers. A limit that was reached is no mistake: the source says when to come back.
pub fn judge(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Result<Verdict, Failure> {
    let answered = format!("the source answered {status}");
    match status {
        StatusCode::OK => Ok(Verdict::Read),
        StatusCode::NOT_MODIFIED => Ok(Verdict::Unchanged),
        StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => match limited(headers, now) {
            Some(after) => Err(Failure::Unavailable {
                cause: format!("{answered}: its limit of requests is reached"),
                after: Some(after),
            }),
            None if status == StatusCode::FORBIDDEN => Err(Failure::Refused(answered)),
            None => Err(Failure::unavailable(answered)),
        },
        _ if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => Err(Failure::Unavailable {
            cause: answered,
            after: pause::retry_after(headers, now),
        }),
        _ if status.is_redirection() => Err(Failure::Refused(format!(
            "{answered}; redirects are not followed, give the new address"
        ))),
        _ => Err(Failure::Refused(answered)),
    }
}

/// When the limit of requests ends, if it is the reason: by `Retry-After`, or as GitHub says it.
fn limited(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    if let Some(after) = pause::retry_after(headers, now) {
        return Some(after);
    }
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    if number("x-ratelimit-remaining")? > 0 {
        return None;
    }
    let reset = Timestamp::from_second(number("x-ratelimit-reset")?).ok()?;
    // Its clock and ours differ a little.
    Some(pause::until(reset, now) + Duration::from_secs(1))
}

/// The next page by the header `Link`.
pub fn next_link(headers: &HeaderMap) -> Option<String> {
    let links = headers.get(header::LINK)?.to_str().ok()?;
    links.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|parameter| {
            let (name, value) = parameter.trim().split_once('=').unwrap_or_default();
            name.trim().eq_ignore_ascii_case("rel")
                && value
                    .trim()
                    .trim_matches('"')
                    .split_ascii_whitespace()
                    .any(|rel| rel == "next")
        });
        is_next.then(|| target.to_owned())
    })
}

/// A page has to be where its source is: the token goes with it.
pub fn same_origin(page: &str, source: &str) -> Result<(), Failure> {
    let origin = |text: &str| {
        let uri: Uri = text.parse().ok()?;
        let (scheme, authority) = (
            uri.scheme_str()?.to_owned(),
            uri.authority()?.as_str().to_ascii_lowercase(),
        );
        Some((scheme, authority))
    };
    match (origin(page), origin(source)) {
        (Some(page), Some(source)) if page == source => Ok(()),
        _ => Err(Failure::Refused(
            "the next page of the source is at another address".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn asks(result: Result<Verdict, Failure>) -> Option<u64> {
        match result {
            Err(Failure::Unavailable { after, .. }) => after.map(|after| after.as_secs()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reached_limit_says_when_to_come_back() {
        let now = Timestamp::from_second(1_000).unwrap();
        let reached = headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1090")]);
        assert_eq!(asks(judge(StatusCode::FORBIDDEN, &reached, now)), Some(91));
        let secondary = headers(&[("retry-after", "60"), ("x-ratelimit-remaining", "10")]);
        assert_eq!(asks(judge(StatusCode::FORBIDDEN, &secondary, now)), Some(60));
        assert_eq!(
            asks(judge(StatusCode::TOO_MANY_REQUESTS, &headers(&[]), now)),
            None
        );
        assert_eq!(asks(judge(StatusCode::BAD_GATEWAY, &headers(&[]), now)), None);
        let allowed = headers(&[("x-ratelimit-remaining", "10"), ("x-ratelimit-reset", "1090")]);
        for (status, headers) in [
            (StatusCode::FORBIDDEN, allowed),
            (StatusCode::NOT_FOUND, headers(&[])),
        ] {
            assert!(
                matches!(judge(status, &headers, now), Err(Failure::Refused(_))),
                "{status}"
            );
        }
        assert_eq!(
            judge(StatusCode::NOT_MODIFIED, &HeaderMap::new(), now),
            Ok(Verdict::Unchanged)
        );
    }

    #[test]
    fn the_next_page_is_found_among_links() {
        let link = r#"<https://a/x?page=1>; rel="prev", <https://a/x?page=3>; rel="next", <https://a/x?page=9>; rel="last""#;
        assert_eq!(
            next_link(&headers(&[("link", link)])).as_deref(),
            Some("https://a/x?page=3")
        );
        for none in [
            "",
            "<>",
            "https://a; rel=next",
            r#"<https://a>; rel="last""#,
            "<x; rel=next",
        ] {
            assert_eq!(next_link(&headers(&[("link", none)])), None, "{none}");
        }
    }

    #[test]
    fn pages_stay_where_their_source_is() {
        let source = "https://api.github.com";
        assert!(same_origin("https://API.github.com/repositories/1/issues?page=2", source).is_ok());
        for foreign in [
            "https://evil.example/",
            "http://api.github.com/",
            "https://api.github.com:444/",
            "/relative",
            "x",
        ] {
            assert!(same_origin(foreign, source).is_err(), "{foreign}");
        }
    }
}
