//! What the API's own deep check says: whether a write, a replica read and a Redis round trip work now.

use serde::Deserialize;

/// Answer of `GET /health/deep`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Deep {
    /// A write through the primary.
    pub write: Check,
    /// A read through a replica; absent where there are none.
    #[serde(default, alias = "replicaRead")]
    pub replica_read: Option<Check>,
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
        let named = [
            ("a write through the primary", Some(&self.write)),
            ("a read through a replica", self.replica_read.as_ref()),
            ("a Redis round trip", Some(&self.redis)),
        ];
        let (name, check) = named
            .into_iter()
            .find_map(|(name, check)| check.filter(|check| !check.ok).map(|check| (name, check)))?;
        Some(format!(
            "{name} fails: {}",
            check.error.as_deref().unwrap_or("no cause was given")
        ))
    }
}
