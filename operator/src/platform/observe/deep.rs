//! What the API's own deep check says: whether a write, a replica read and a Redis round trip work now.

use serde::Deserialize;

/// Answer of `GET /health/deep`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Deep {
    /// A write through the primary.
    pub write: Check,
    /// A read through a replica, or through the primary where there is no other instance.
    pub read: Check,
    /// A round trip to Redis.
    pub redis: Check,
}

/// One of the checks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Check {
    /// Whether it worked.
    pub ok: bool,
    /// Why not.
    #[serde(default)]
    pub error: Option<String>,
}

impl Deep {
    /// The first check that fails, as a sentence.
    pub fn failure(&self) -> Option<String> {
        let checks = [
            ("a write through the primary", &self.write),
            ("a read through a replica", &self.read),
            ("a Redis round trip", &self.redis),
        ];
        let (name, check) = checks.into_iter().find(|(_, check)| !check.ok)?;
        Some(format!(
            "{name} fails: {}",
            check.error.as_deref().unwrap_or("no cause was given")
        ))
    }
}
