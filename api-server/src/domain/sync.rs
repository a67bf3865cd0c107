//! Syncs: from where, to where.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Unacceptable;

/// Where GitHub's API is, unless somebody says otherwise.
pub const GITHUB: &str = "https://api.github.com";

/// A source of records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "connector", rename_all = "lowercase")]
pub enum Connector {
    /// Issues and their comments of a repository.
    Github {
        /// `owner/name`.
        repository: String,
        /// Where the API is, without a slash at the end.
        base_url: String,
    },
    /// A JSON feed, <https://jsonfeed.org>.
    Http {
        /// Its address.
        url: String,
    },
}

impl Connector {
    /// Names the source: the same for everybody who means the same.
    pub fn source(&self) -> String {
        match self {
            Self::Github { repository, base_url } if base_url == GITHUB => format!("github:{repository}"),
            Self::Github { repository, base_url } => format!("github:{base_url}:{repository}"),
            Self::Http { url } => format!("http:{url}"),
        }
    }

    /// The address that all requests go to, which decides what is a foreign one.
    pub fn address(&self) -> &str {
        match self {
            Self::Github { base_url, .. } => base_url,
            Self::Http { url } => url,
        }
    }
}

/// Reads `owner/name`.
pub fn repository(text: &str) -> Result<String, Unacceptable> {
    let sound = |part: &str, most: usize| {
        (1..=most).contains(&part.len())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && !part.bytes().all(|b| b == b'.')
    };
    match text.split_once('/') {
        Some((owner, name)) if sound(owner, 39) && sound(name, 100) => Ok(text.to_ascii_lowercase()),
        _ => Err(Unacceptable(
            "must be the owner and the name of a repository, such as tanka/tanka".to_owned(),
        )),
    }
}

/// Where records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// They become memories of the person.
    Memories,
    /// They become messages in a workroom of which the person is a member.
    Workroom(Uuid),
}

impl Target {
    /// The name that is stored.
    pub fn name(self) -> String {
        match self {
            Self::Memories => "memories".to_owned(),
            Self::Workroom(id) => format!("workroom:{id}"),
        }
    }

    /// The workroom, if it is one.
    pub const fn workroom(self) -> Option<Uuid> {
        match self {
            Self::Memories => None,
            Self::Workroom(id) => Some(id),
        }
    }
}

/// Reads a token for a source: it becomes a header.
pub fn token(text: &str) -> Result<String, Unacceptable> {
    if (1..=400).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(Unacceptable(
            "must have 1 to 400 printable characters without spaces".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_named_as_github_names_them() {
        assert_eq!(repository("Tanka/tanka.rs").unwrap(), "tanka/tanka.rs");
        for wrong in ["", "a", "a/", "/b", "a/b/c", "a/..", "a/b?x=1", "a b/c", "../x"] {
            assert!(repository(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_source_has_one_name() {
        let of = |base: &str| Connector::Github {
            repository: "a/b".to_owned(),
            base_url: base.to_owned(),
        };
        assert_eq!(of(GITHUB).source(), "github:a/b");
        assert_eq!(
            of("https://ghe.example.com/api/v3").source(),
            "github:https://ghe.example.com/api/v3:a/b"
        );
    }
}
