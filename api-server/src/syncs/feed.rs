//! JSON feeds, version 1.1 of <https://jsonfeed.org>.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Page, Record, compose};
use crate::domain::task::Failure;

#[derive(Deserialize)]
struct Feed<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    next_url: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    id: Id,
    title: Option<String>,
    content_text: Option<String>,
    summary: Option<String>,
    url: Option<String>,
}

/// Feeds are told to write texts, and some write numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(i64),
}

/// Reads a page.
pub fn page(body: &[u8]) -> Result<Page, Failure> {
    let feed: Feed<'_> = serde_json::from_slice(body)
        .map_err(|error| Failure::Refused(format!("a page of the source is no JSON feed: {error}")))?;
    let mut page = Page {
        next: feed.next_url,
        ..Page::default()
    };
    for item in feed.items {
        match serde_json::from_str(item.get()).ok().and_then(record) {
            Some(record) => page.records.push(record),
            None => page.skipped += 1,
        }
    }
    Ok(page)
}

fn record(item: Item) -> Option<Record> {
    let id = match item.id {
        Id::Text(text) => text,
        Id::Number(number) => number.to_string(),
    };
    if id.is_empty() || id.len() > 500 || id.contains('\0') {
        return None;
    }
    let text = item
        .content_text
        .or(item.summary)
        .or(item.url)
        .unwrap_or_default();
    Some(Record {
        external_id: id,
        kind: "feed",
        text: compose(&item.title.unwrap_or_default(), &text)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_and_wrong_ones_left_out() {
        let body = r#"{"version": "https://jsonfeed.org/version/1.1", "title": "t", "next_url": "https://a/2", "items": [
            {"id": "1", "title": "One", "content_text": "text"}, {"id": 2, "summary": "two"}, {"title": "no id"}, {"id": "4"}
        ]}"#;
        let page = page(body.as_bytes()).unwrap();
        assert_eq!((page.records.len(), page.skipped), (2, 2));
        assert_eq!(page.records[0].text, "One\n\ntext");
        assert_eq!(
            (page.records[1].external_id.as_str(), page.next.as_deref()),
            ("2", Some("https://a/2"))
        );
        for wrong in ["", "[]", "{}", r#"{"items": 3}"#] {
            assert!(super::page(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
