//! A connection that was taken from a pool, and its transaction. It goes back only in a known state: one that was
//! abandoned in the middle (a timeout, a client that left) is closed, because its next user would wait for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use tokio::time::timeout;
use uuid::Uuid;

use super::instance::Instance;
use super::position::Position;
use super::statement::{Session, Watch};

/// How long an ended read may take to give its transaction back.
const GIVE_BACK: Duration = Duration::from_secs(1);

/// Ends the transaction and reads its position in the same round trip. The flushed position covers an own commit unless
/// commits are asynchronous.
const COMMIT: &str = "COMMIT; SELECT (CASE current_setting('synchronous_commit') WHEN 'off' \
    THEN pg_current_wal_insert_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn)::bigint AS lsn, \
    ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::integer AS timeline";

/// What makes a tenant's rows visible until the transaction ends. The text of a UUID holds only hexadecimal digits and hyphens, so it may
/// stand in a statement. A function and not `SET`: `pg_stat_statements` would keep an entry of that for every tenant.
fn set_tenant(tenant: Uuid) -> String {
    format!("SELECT set_config('tanka.tenant_id', '{tenant}', true)")
}

/// A connection in use.
#[derive(Debug)]
pub(super) struct Lease {
    session: Option<Session>,
    instance: Arc<Instance>,
    clean: bool,
}

impl Lease {
    /// Takes a connection.
    pub(super) async fn take(instance: &Arc<Instance>, watch: &Arc<Watch>) -> Result<Self, sqlx::Error> {
        // Counted before it waits, so that others choose a less busy instance meanwhile.
        instance.busy.fetch_add(1, Ordering::Relaxed);
        let mut lease = Self {
            session: None,
            instance: instance.clone(),
            clean: true,
        };
        lease.session = Some(Session::new(instance.pool.acquire().await?, watch.clone()));
        Ok(lease)
    }

    /// The connection, for the statements of an operation.
    pub(super) fn session(&mut self) -> Result<&mut Session, sqlx::Error> {
        self.session.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.session().map(Session::unwatched)
    }

    /// Begins a transaction and sets its tenant in one round trip. Without a tenant, a read needs no transaction.
    pub(super) async fn begin(&mut self, tenant: Option<Uuid>, read_only: bool) -> Result<(), sqlx::Error> {
        self.clean = false;
        let mode = if read_only { "READ ONLY" } else { "READ WRITE" };
        let statement = match (tenant, read_only) {
            (None, true) => return Ok(()),
            (None, false) => "BEGIN READ WRITE".to_owned(),
            (Some(tenant), _) => format!("BEGIN {mode}; {}", set_tenant(tenant)),
        };
        self.connection()?
            .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
            .await?;
        Ok(())
    }

    /// Commits and tells where in the log that was.
    pub(super) async fn commit(mut self) -> Result<Position, sqlx::Error> {
        let row = sqlx::raw_sql(COMMIT).fetch_one(self.connection()?).await?;
        self.clean = true;
        let (lsn, timeline) = (row.try_get::<i64, _>("lsn")?, row.try_get::<i32, _>("timeline")?);
        Ok(Position {
            timeline: timeline.unsigned_abs(),
            lsn: lsn.unsigned_abs(),
        })
    }

    /// Ends a transaction without effect. The caller does not wait for it: its answer is complete.
    pub(super) fn give_back(mut self, tenant: Option<Uuid>) {
        if tenant.is_none() {
            self.clean = true;
            return;
        }
        tokio::spawn(async move {
            self.end().await;
            drop(self);
        });
    }

    /// Ends a failed write, so that its locks are gone before it is tried again.
    pub(super) async fn roll_back(mut self) {
        self.end().await;
    }

    async fn end(&mut self) {
        if let Ok(connection) = self.connection() {
            let ended = timeout(GIVE_BACK, connection.execute("ROLLBACK")).await;
            self.clean = matches!(ended, Ok(Ok(_)));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.instance.busy.fetch_sub(1, Ordering::Relaxed);
        if !self.clean
            && let Some(session) = &mut self.session
        {
            session.close_on_drop();
        }
    }
}
