//! What was replaced by committed writes: the truth behind the cache. Rows name entities, never their content.

use std::time::Duration;

use sqlx::PgExecutor;

use crate::cache::Target;
use crate::routing::{Position, Read, ReadHandle, StoreError, Write, WriteHandle};

/// Rows that one look reads at most.
pub const FETCH: usize = 5_000;

/// Notes what the transaction replaces; answers the numbers of the rows.
pub(crate) async fn record(on: impl PgExecutor<'_>, targets: &[Target]) -> Result<Vec<i64>, StoreError> {
    let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
    Ok(sqlx::query_scalar!(
        "INSERT INTO cache_invalidations (target) SELECT unnest($1::text[]) RETURNING id",
        &names,
    )
    .fetch_all(on)
    .await?)
}

/// Rows of transactions that an earlier look may have missed: those that had not ended when its snapshot was taken, and later ones.
/// Without an earlier look: rows of the last minute.
#[derive(Debug)]
pub struct InvalidationsSince(pub Option<String>);

/// What a look saw.
#[derive(Debug)]
pub struct Seen {
    /// Rows, by number.
    pub rows: Vec<(i64, Target)>,
    /// All of them were committed before this position.
    pub position: Position,
    /// Transaction from which on the next look has to look.
    pub horizon: String,
}

impl Read for InvalidationsSince {
    type Output = Seen;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Seen, StoreError> {
        let horizon =
            sqlx::query_scalar!(r#"SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS "horizon!""#)
                .fetch_one(&mut *on.connection)
                .await?;
        let limit = i64::try_from(FETCH).unwrap_or(i64::MAX);
        let rows = match &self.0 {
            Some(since) => {
                sqlx::query_as!(
                    Row,
                    "SELECT id, target FROM cache_invalidations WHERE tx >= $1::text::xid8 ORDER BY tx, id LIMIT $2",
                    since,
                    limit,
                )
                .fetch_all(&mut *on.connection)
                .await?
            }
            None => {
                sqlx::query_as!(
                    Row,
                    "SELECT id, target FROM cache_invalidations
                      WHERE created_at > now() - interval '1 minute' ORDER BY id LIMIT $1",
                    limit,
                )
                .fetch_all(&mut *on.connection)
                .await?
            }
        };
        // After the rows were read, so that it is behind all of their commits.
        let place = sqlx::query!(
            r#"SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                            ELSE pg_current_wal_insert_lsn() END - '0/0'::pg_lsn)::bigint AS "lsn!",
                      CASE WHEN pg_is_in_recovery() THEN timeline
                           ELSE ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::integer
                      END AS "timeline!"
                 FROM replication_heartbeat WHERE id = 1"#
        )
        .fetch_one(&mut *on.connection)
        .await?;
        Ok(Seen {
            // A row of a newer release may name what this one does not know, and so cannot have cached.
            rows: rows
                .into_iter()
                .filter_map(|row| Some((row.id, row.target.parse().ok()?)))
                .collect(),
            position: Position {
                timeline: place.timeline.unsigned_abs(),
                lsn: place.lsn.unsigned_abs(),
            },
            horizon,
        })
    }
}

struct Row {
    id: i64,
    target: String,
}

/// Invalidates without changing anything else.
#[derive(Debug)]
pub struct Invalidate(pub Vec<Target>);

impl Write for Invalidate {
    type Output = usize;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<usize, StoreError> {
        on.invalidate(&self.0).await?;
        Ok(self.0.len())
    }
}

/// Removes a bounded batch of rows that every process has seen.
#[derive(Debug)]
pub struct ForgetInvalidations {
    /// Older than this.
    pub age: Duration,
}

impl ForgetInvalidations {
    /// Rows of a batch.
    pub const BATCH: u64 = 5_000;
}

impl Write for ForgetInvalidations {
    type Output = u64;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<u64, StoreError> {
        let gone = sqlx::query!(
            // No lock beforehand: that needs a right to change rows, which nobody has here.
            "DELETE FROM cache_invalidations WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM cache_invalidations WHERE created_at < now() - make_interval(secs => $1) LIMIT 5000))",
            self.age.as_secs_f64(),
        )
        .execute(&mut *on.connection)
        .await?;
        Ok(gone.rows_affected())
    }
}
