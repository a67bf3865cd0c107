//! Removal of what has expired.

use std::time::Duration;

use crate::routing::{StoreError, Write, WriteHandle};

/// Rows of each kind that one sweep removes.
pub const BATCH: i32 = 1_000;

/// Removes a bounded batch of expired rows, unless another process is at it.
#[derive(Debug)]
pub struct Sweep {
    /// How long events are kept.
    pub history: Duration,
}

impl Write for Sweep {
    type Output = i64;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<i64, StoreError> {
        // The number only has to differ from other advisory locks of this database.
        let gone = sqlx::query_scalar!(
            r#"SELECT CASE WHEN pg_try_advisory_xact_lock(7205759403792794)
                           THEN maintenance_sweep(make_interval(secs => $1), $2) + maintenance_sweep_identity($2) ELSE 0 END AS "gone!""#,
            self.history.as_secs_f64(),
            BATCH,
        )
        .fetch_one(&mut *on.connection)
        .await?;
        Ok(gone)
    }
}
