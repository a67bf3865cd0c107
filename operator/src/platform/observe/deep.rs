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
    /// Every instance of PostgreSQL, as the API sees it.
    #[serde(default)]
    pub instances: Vec<Instance>,
}

/// An instance of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Instance {
    /// Its name in `tanka.yaml`.
    pub name: String,
    /// Whether it answers.
    pub up: bool,
    /// `primary` or `replica`.
    #[serde(default)]
    pub role: Option<String>,
    /// Upper bound of how old its data is, in milliseconds.
    #[serde(default)]
    pub lag_ms: Option<u64>,
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
