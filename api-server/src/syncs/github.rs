//! Issues and comments of a repository on GitHub, in the order of their changes.

use axum::http::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Page, Record, compose, reply};
use crate::domain::task::Failure;

/// What is read of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Issues and pull requests.
    Issues,
    /// Comments on them.
    Comments,
}

impl Stream {
    /// The name under which its progress is kept.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issues => "issues",
            Self::Comments => "comments",
        }
    }
}

/// Items of a page.
pub const PER_PAGE: usize = 100;

/// Address of the first page of what changed since a time.
pub fn first(base_url: &str, repository: &str, stream: Stream, since: Option<Timestamp>) -> String {
    let path = match stream {
        Stream::Issues => "issues?state=all&",
        Stream::Comments => "issues/comments?",
    };
    let since = since
        .map(|at| format!("&since={}", at.strftime("%Y-%m-%dT%H:%M:%SZ")))
        .unwrap_or_default();
    format!("{base_url}/repos/{repository}/{path}sort=updated&direction=asc&per_page={PER_PAGE}{since}")
}

#[derive(Deserialize)]
struct Issue {
    id: u64,
    number: u64,
    title: String,
    body: Option<String>,
    state: String,
    updated_at: Timestamp,
}

#[derive(Deserialize)]
struct Comment {
    id: u64,
    body: Option<String>,
    issue_url: String,
    updated_at: Timestamp,
}

/// Reads a page. An item that makes no sense is counted and left out; a page that is no list is refused.
pub fn page(stream: Stream, headers: &HeaderMap, body: &[u8]) -> Result<Page, Failure> {
    let items: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|error| Failure::Refused(format!("a page of the source cannot be read: {error}")))?;
    let mut page = Page {
        next: reply::next_link(headers),
        ..Page::default()
    };
    for item in items {
        let read = match stream {
            Stream::Issues => serde_json::from_str(item.get())
                .ok()
                .and_then(|item| issue(&item)),
            Stream::Comments => serde_json::from_str(item.get())
                .ok()
                .and_then(|item| comment(&item)),
        };
        match read {
            Some((record, at)) => {
                page.newest = page.newest.max(Some(at));
                page.records.push(record);
            }
            None => page.skipped += 1,
        }
    }
    Ok(page)
}

fn issue(issue: &Issue) -> Option<(Record, Timestamp)> {
    let title = format!("#{} {} ({})", issue.number, issue.title, issue.state);
    let record = Record {
        external_id: format!("issue:{}", issue.id),
        kind: "github.issue",
        text: compose(&title, issue.body.as_deref().unwrap_or_default())?,
    };
    Some((record, issue.updated_at))
}

fn comment(comment: &Comment) -> Option<(Record, Timestamp)> {
    let number = comment.issue_url.rsplit('/').next().unwrap_or_default();
    let record = Record {
        external_id: format!("comment:{}", comment.id),
        kind: "github.comment",
        text: compose(
            &format!("On #{number}"),
            comment.body.as_deref().unwrap_or_default(),
        )?,
    };
    Some((record, comment.updated_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_ask_for_changes_in_their_order() {
        let since = Some("2026-11-21T12:00:00.5Z".parse().unwrap());
        assert_eq!(
            first("https://api.github.com", "a/b", Stream::Issues, since),
            "https://api.github.com/repos/a/b/issues?state=all&sort=updated&direction=asc&per_page=100&since=2026-11-21T12:00:00Z"
        );
        assert_eq!(
            first("http://x", "a/b", Stream::Comments, None),
            "http://x/repos/a/b/issues/comments?sort=updated&direction=asc&per_page=100"
        );
    }

    #[test]
    fn items_that_make_no_sense_are_left_out() {
        let body = r#"[
            {"id": 1, "number": 7, "title": "It breaks", "body": null, "state": "open", "updated_at": "2026-01-02T00:00:00Z", "more": {}},
            {"id": "x"}, null, 3,
            {"id": 2, "number": 8, "title": "T", "body": "nul \u0000 here", "state": "closed", "updated_at": "2026-01-01T00:00:00Z"}
        ]"#;
        let page = page(Stream::Issues, &HeaderMap::new(), body.as_bytes()).unwrap();
        assert_eq!((page.records.len(), page.skipped), (2, 3));
        assert_eq!(page.records[0].text, "#7 It breaks (open)");
        assert_eq!(page.records[1].text, "#8 T (closed)\n\nnul  here");
        assert_eq!(page.newest, Some("2026-01-02T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for body in ["", "{}", "[1", "<html>", r#"{"message": "Not Found"}"#] {
            assert!(
                page(Stream::Comments, &HeaderMap::new(), body.as_bytes()).is_err(),
                "{body}"
            );
        }
    }
}
