//! What the migration says about services that somebody else runs, while it waits for them to be usable.

use serde::Deserialize;

/// Answer of `GET /check` of a migration that has not begun yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Checked {
    /// What keeps PostgreSQL from being used, in one sentence; absent when nothing does, or it is not external.
    #[serde(default)]
    pub postgres: Option<String>,
    /// The same of Redis.
    #[serde(default)]
    pub redis: Option<String>,
}
