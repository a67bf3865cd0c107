//! Whether requests should come to this process. Once it was ready it stays so until it drains: a database that fails over
//! must not take all processes out of service at the same moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::entropy;
use crate::migrate;
use crate::routing::{Fleet, Scope};
use crate::store::health::SchemaVersion;

/// Time between looks at the schema.
const PAUSE: Duration = Duration::from_millis(500);
/// Limit of one look.
const LOOK: Duration = Duration::from_secs(3);

/// State for `/ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// No database with the schema of this release was seen yet.
    Starting,
    /// Requests may come.
    Ready,
    /// The process is ending.
    Draining,
}

impl Readiness {
    /// As clients see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "shutting_down",
        }
    }

    /// Whether the process is ending.
    pub const fn is_draining(self) -> bool {
        matches!(self, Self::Draining)
    }
}

/// Whether the schema is at least that of this release.
#[derive(Debug, Default)]
pub(super) struct Schema(AtomicBool);

impl Schema {
    pub(super) fn is_current(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) async fn wait(&self, database: &Fleet) {
        let needed = migrate::latest_version();
        let mut told = false;
        loop {
            let scope = Scope {
                tenant: None,
                deadline: Instant::now() + LOOK,
                at_least: None,
                primary_only: false,
            };
            match database.read(&scope, &SchemaVersion).await {
                Ok((version, _)) if version >= needed => {
                    self.0.store(true, Ordering::Relaxed);
                    tracing::info!(version, "schema is current, requests may come");
                    return;
                }
                Ok((version, _)) if !told => {
                    told = true;
                    tracing::warn!(
                        version,
                        needed,
                        "schema is older than this release, waiting for the migration"
                    );
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(error = ?error, "schema cannot be read yet"),
            }
            tokio::time::sleep(entropy::jitter(PAUSE)).await;
        }
    }
}
