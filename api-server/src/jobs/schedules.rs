//! Starts syncs when their schedules are due.

use std::time::Duration;

use tokio::time::sleep;

use super::Tools;
use super::worker::all_tenants;
use crate::entropy;
use crate::store::schedules::FireSchedules;

/// How often schedules are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Schedules of one look.
const MOST: i32 = 100;

/// Looks until the drain begins. A process that does no jobs starts none.
pub async fn run(tools: Tools) {
    let work = async {
        loop {
            sleep(entropy::jitter(LOOK)).await;
            if tools.live.get().jobs.concurrency == 0 {
                continue;
            }
            match tools.database.write(all_tenants(), FireSchedules(MOST)).await {
                Ok(done) if done.output > 0 => tracing::debug!(schedules = done.output, "schedules were due"),
                Ok(_) => {}
                Err(error) => tracing::debug!(error = ?error, "schedules could not be looked at"),
            }
        }
    };
    tools.lifecycle.draining.run_until_cancelled(work).await;
}
