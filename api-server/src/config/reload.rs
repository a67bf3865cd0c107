//! Notices a changed file, validates it, and swaps it in. A bad file changes nothing but a metric and a log line.
//! Content is hashed instead of watched: files of a ConfigMap are symbolic links that are replaced as a whole,
//! which watching by name or by time of modification misses.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Live;
use super::load::{Fingerprint, LoadError, load};
use crate::metrics::{ConfigMetrics, ReloadOutcome};

const INTERVAL: Duration = Duration::from_secs(1);

/// Follows a file until it is told to stop.
#[derive(Debug)]
pub struct Reloader {
    /// The file.
    pub path: PathBuf,
    /// What it replaces.
    pub live: Live,
    /// Fingerprint of the content that is in force.
    pub fingerprint: Fingerprint,
    /// Where outcomes are counted.
    pub metrics: ConfigMetrics,
}

impl Reloader {
    /// Looks once a second.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut unreadable = false;
        while stop
            .run_until_cancelled(tokio::time::sleep(INTERVAL))
            .await
            .is_some()
        {
            let path = self.path.clone();
            let Ok(outcome) = tokio::task::spawn_blocking(move || load(&path)).await else {
                continue;
            };
            match outcome {
                Ok((config, fingerprint)) => {
                    unreadable = false;
                    if fingerprint == self.fingerprint {
                        continue;
                    }
                    self.fingerprint = fingerprint;
                    self.live.set(config);
                    self.metrics.count(ReloadOutcome::Applied);
                    tracing::info!(config.path = %self.path.display(), "configuration was reloaded");
                }
                Err(LoadError::Invalid {
                    fingerprint, problem, ..
                }) => {
                    if fingerprint == self.fingerprint {
                        continue;
                    }
                    self.fingerprint = fingerprint;
                    self.metrics.count(ReloadOutcome::Refused);
                    tracing::error!(config.path = %self.path.display(), %problem,
                        "configuration is not valid, the old one stays in force");
                }
                Err(LoadError::Read { source, .. }) => {
                    if !std::mem::replace(&mut unreadable, true) {
                        self.metrics.count(ReloadOutcome::Refused);
                        tracing::error!(config.path = %self.path.display(), error = %source,
                            "configuration cannot be read, the old one stays in force");
                    }
                }
            }
        }
    }
}
