//! Removes what has expired, now and then, in bounded batches.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Live;
use crate::entropy;
use crate::routing::{Fleet, Scope};
use crate::store::invalidations::ForgetInvalidations;
use crate::store::jobs::SweepJobs;
use crate::store::maintenance::{self, Sweep};

/// Time between sweeps of one process; jitter spreads processes.
const INTERVAL: Duration = Duration::from_secs(30);
/// Limit of one sweep.
const LIMIT: Duration = Duration::from_secs(8);
/// Old jobs and deliveries that one sweep removes.
const BATCH: i32 = 500;
/// How long rows of invalidations are kept: every process looks at them each second.
const INVALIDATIONS: Duration = Duration::from_mins(10);

/// Sweeps until told to stop.
pub async fn run(database: Fleet, live: Live, stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(entropy::jitter(INTERVAL)))
        .await
        .is_some()
    {
        let history = live.get().websocket.history_ttl.get();
        let scope = Scope {
            tenant: None,
            deadline: Instant::now() + LIMIT,
            at_least: None,
            primary_only: true,
        };
        // As long as there is a whole batch and time: what is written faster than it is removed would grow without bound.
        loop {
            match database.write(scope, Sweep { history }).await {
                Ok(swept) if swept.output > 0 => {
                    tracing::debug!(rows = swept.output, "removed expired rows");
                    if swept.output < i64::from(maintenance::BATCH) {
                        break;
                    }
                }
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(error = ?error, "expired rows could not be removed");
                    break;
                }
            }
        }
        forget_invalidations(&database, scope).await;
        if let Err(error) = database.write(scope, SweepJobs(BATCH)).await {
            tracing::warn!(error = ?error, "old jobs could not be removed");
        }
    }
}

/// As long as there is a whole batch and time.
async fn forget_invalidations(database: &Fleet, scope: Scope) {
    loop {
        let old = ForgetInvalidations { age: INVALIDATIONS };
        match database.write(scope, old).await {
            Ok(gone) if gone.output >= ForgetInvalidations::BATCH => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(error = ?error, "old invalidations could not be removed");
                return;
            }
        }
    }
}
