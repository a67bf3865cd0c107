//! Reading a request: which verb, on what.

use http::{Method, Uri};
use serde_json::Value;

use crate::fault::Identity;

/// A request, read.
#[derive(Debug, Clone)]
pub struct Call {
    /// What tells it apart from others.
    pub identity: Identity,
    /// The namespace in its path.
    pub namespace: Option<String>,
    /// Who writes.
    pub manager: Option<String>,
}

impl Call {
    /// Reads a request.
    pub fn read(method: &Method, uri: &Uri, body: &Value) -> Self {
        let mut parts = uri.path().trim_matches('/').split('/');
        let root = parts.next();
        // The core group has no name of its own.
        for _ in 0..if root == Some("api") { 1 } else { 2 } {
            parts.next();
        }
        let mut rest: Vec<&str> = parts.collect();
        let mut namespace = None;
        if rest.first() == Some(&"namespaces") && rest.len() > 2 {
            namespace = Some(rest[1].to_owned());
            rest.drain(..2);
        }
        let plural = rest.first().copied().unwrap_or_default();
        let resource = rest
            .get(2)
            .map_or_else(|| plural.to_owned(), |sub| format!("{plural}/{sub}"));
        let query = uri.query().unwrap_or_default();
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
        };
        let watches = parameter("watch").is_some_and(|value| value != "false");
        let verb = match (method.as_str(), rest.get(1)) {
            ("GET", _) if watches => "watch",
            ("GET", Some(_)) => "get",
            ("GET", None) => "list",
            ("POST", _) => "create",
            ("PATCH", _) => "patch",
            ("PUT", _) => "update",
            ("DELETE", _) => "delete",
            _ => "other",
        };
        let named = rest.get(1).copied().or_else(|| body["metadata"]["name"].as_str());
        // Names of events are drawn.
        let name = if plural == "events" {
            ""
        } else {
            named.unwrap_or_default()
        };
        Self {
            identity: Identity {
                verb,
                resource,
                name: name.to_owned(),
            },
            namespace,
            manager: parameter("fieldManager"),
        }
    }

    /// Whether it changes something.
    pub fn writes(&self) -> bool {
        !matches!(self.identity.verb, "get" | "list" | "watch")
    }
}
