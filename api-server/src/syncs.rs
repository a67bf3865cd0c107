//! Copies records from sources of others, page by page, and only what is new.

pub mod feed;
pub mod github;
pub mod reply;
pub mod run;
pub mod seal;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A record of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Identifies it within its source.
    pub external_id: String,
    /// What kind of note it becomes.
    pub kind: &'static str,
    /// Its text.
    pub text: String,
}

/// A page of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Records.
    pub records: Vec<Record>,
    /// Records that made no sense.
    pub skipped: usize,
    /// The latest change in it.
    pub newest: Option<Timestamp>,
    /// Where the next page is.
    pub next: Option<String>,
}

/// How far a stream of a source was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Everything that changed before this is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<Timestamp>,
    /// The first page when it was last read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seen: Option<Seen>,
}

/// A page and its tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its address.
    pub url: String,
    /// Its tag.
    pub etag: String,
}

/// Characters of a text; what is longer is cut.
const LONGEST: usize = 32_768;

/// A title and a text as one, without what a memory cannot hold.
fn compose(title: &str, text: &str) -> Option<String> {
    let joined = format!("{}\n\n{}", title.trim(), text.trim()).replace('\0', "");
    let text: String = joined.trim().chars().take(LONGEST).collect();
    (!text.is_empty()).then_some(text)
}
