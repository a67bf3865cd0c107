//! The queue of background work. Rows are written in the caller's transaction; workers claim them over all tenants through a function of
//! the owner, and do everything else within the tenant of the job.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::domain::task::TaskKind;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// The lease on a job is somebody else's now.
pub const LOST: &str = "another worker has this job";
/// Times that a job may take its worker with it.
const MOST_CRASHES: i32 = 5;
/// Characters of an error that are kept.
const LONGEST_ERROR: usize = 500;

/// Work to be done.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Identifies it.
    pub id: Uuid,
    /// Who asked.
    pub user_id: Option<Uuid>,
    /// What kind of work.
    pub kind: TaskKind,
    /// What it needs to know.
    pub payload: Value,
    /// Of one name at most one job waits or runs.
    pub only_one: Option<String>,
}

impl WriteHandle<'_> {
    /// Queues work in this transaction; answers the id of the job that will do it, which is an older one if that waits or runs under the
    /// same name.
    pub(crate) async fn enqueue(&mut self, job: &NewJob) -> Result<Uuid, StoreError> {
        let queued = sqlx::query!(
            "INSERT INTO jobs (id, tenant_id, user_id, kind, payload, only_one) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (tenant_id, only_one) WHERE only_one IS NOT NULL AND due_at IS NOT NULL DO NOTHING",
            job.id,
            self.tenant,
            job.user_id,
            job.kind.as_str(),
            job.payload,
            job.only_one,
        )
        .execute(&mut *self.connection)
        .await?;
        if queued.rows_affected() == 1 {
            return Ok(job.id);
        }
        sqlx::query_scalar!(
            "SELECT id FROM jobs WHERE only_one = $1 AND due_at IS NOT NULL",
            job.only_one,
        )
        .fetch_optional(&mut *self.connection)
        .await?
        // It ended between the two statements.
        .ok_or(StoreError::Conflict(
            "The task before it has just ended. Try again.",
        ))
    }

    /// Fails unless the lease is still the caller's, and keeps it so until the transaction ends: what follows happens at most once.
    pub(crate) async fn hold(&mut self, hold: Hold) -> Result<(), StoreError> {
        sqlx::query_scalar!(
            "SELECT id FROM jobs WHERE id = $1 AND lease = $2 FOR UPDATE",
            hold.id,
            hold.lease,
        )
        .fetch_optional(&mut *self.connection)
        .await?
        .map(drop)
        .ok_or(StoreError::Conflict(LOST))
    }

    /// Ends a job that is done.
    pub(crate) async fn succeed(&mut self, hold: Hold, result: Option<Value>) -> Result<(), StoreError> {
        let done = sqlx::query!(
            "UPDATE jobs SET state = 'succeeded', due_at = NULL, lease = NULL, result = $3, last_error = NULL,
                    finished_at = clock_timestamp()
              WHERE id = $1 AND lease = $2",
            hold.id,
            hold.lease,
            result,
        )
        .execute(&mut *self.connection)
        .await?;
        held(&done)?;
        self.tell_task(hold.id).await
    }

    /// Ends an attempt that failed: with a pause it is tried again, without one never.
    pub(crate) async fn fail(
        &mut self,
        hold: Hold,
        pause: Option<Duration>,
        error: &str,
    ) -> Result<(), StoreError> {
        let error: String = error.chars().take(LONGEST_ERROR).collect();
        let done = sqlx::query!(
            "UPDATE jobs SET
                    state = CASE WHEN cancelling THEN 'cancelled' WHEN $3::float8 IS NULL THEN 'failed' ELSE 'queued' END,
                    due_at = CASE WHEN cancelling THEN NULL ELSE clock_timestamp() + make_interval(secs => $3) END,
                    finished_at = CASE WHEN cancelling OR $3::float8 IS NULL THEN clock_timestamp() END,
                    lease = NULL, last_error = $4
              WHERE id = $1 AND lease = $2",
            hold.id,
            hold.lease,
            pause.map(|pause| pause.as_secs_f64()) as _,
            error,
        )
        .execute(&mut *self.connection)
        .await?;
        held(&done)?;
        self.tell_task(hold.id).await
    }
}

fn held(done: &sqlx::postgres::PgQueryResult) -> Result<(), StoreError> {
    if done.rows_affected() == 1 {
        Ok(())
    } else {
        Err(StoreError::Conflict(LOST))
    }
}

/// A job in the hands of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// The job.
    pub id: Uuid,
    /// The claim.
    pub lease: Uuid,
}

/// A claimed job.
#[derive(Debug, Clone)]
pub struct Job {
    /// What is held.
    pub hold: Hold,
    /// Its tenant.
    pub tenant_id: Uuid,
    /// Who asked.
    pub user_id: Option<Uuid>,
    /// What kind of work.
    pub kind: TaskKind,
    /// What it needs to know.
    pub payload: Value,
    /// Attempts, with this one.
    pub attempt: u32,
}

/// Takes jobs for a while.
#[derive(Debug)]
pub struct ClaimJobs {
    /// Of these kinds.
    pub kinds: &'static [TaskKind],
    /// At most so many.
    pub most: i32,
    /// For so long, unless it is renewed.
    pub lease: Duration,
    /// Tenants that have so many running get no more.
    pub each: i32,
}

impl Write for ClaimJobs {
    type Output = Vec<Job>;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Vec<Job>, StoreError> {
        let kinds: Vec<String> = self.kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
        let rows = sqlx::query!(
            r#"SELECT id AS "id!", tenant_id AS "tenant_id!", user_id, kind AS "kind!", payload AS "payload!", attempts AS "attempts!",
                      lease AS "lease!"
                 FROM jobs_claim($1, $2, make_interval(secs => $3), $4, $5)"#,
            &kinds,
            self.most,
            self.lease.as_secs_f64(),
            self.each,
            MOST_CRASHES,
        )
        .fetch_all(&mut *on.connection)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Job {
                    hold: Hold {
                        id: row.id,
                        lease: row.lease,
                    },
                    tenant_id: row.tenant_id,
                    user_id: row.user_id,
                    kind: row
                        .kind
                        .parse()
                        .map_err(|error| StoreError::Corrupt(format!("{error}")))?,
                    payload: row.payload,
                    attempt: row.attempts.unsigned_abs(),
                })
            })
            .collect()
    }
}

/// Keeps a job for longer. Answers whether somebody wants it to end.
#[derive(Debug)]
pub struct RenewJob {
    /// What is held.
    pub hold: Hold,
    /// From now on for so long.
    pub lease: Duration,
}

impl Write for RenewJob {
    type Output = bool;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<bool, StoreError> {
        sqlx::query_scalar!(
            "UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => $3) WHERE id = $1 AND lease = $2 RETURNING cancelling",
            self.hold.id,
            self.hold.lease,
            self.lease.as_secs_f64(),
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Conflict(LOST))
    }
}

/// Ends an attempt that failed.
#[derive(Debug)]
pub struct FailJob {
    /// What was held.
    pub hold: Hold,
    /// When to try again; never without one.
    pub pause: Option<Duration>,
    /// Why.
    pub error: String,
}

impl Write for FailJob {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        on.fail(self.hold, self.pause, &self.error).await
    }
}

/// Gives a job back that was not finished, through no fault of its own. The attempt does not count.
#[derive(Debug)]
pub struct ReleaseJob(pub Hold);

impl Write for ReleaseJob {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        let done = sqlx::query!(
            "UPDATE jobs SET state = CASE WHEN cancelling THEN 'cancelled' ELSE 'queued' END,
                    due_at = CASE WHEN cancelling THEN NULL ELSE clock_timestamp() END,
                    finished_at = CASE WHEN cancelling THEN clock_timestamp() END,
                    lease = NULL, attempts = attempts - 1
              WHERE id = $1 AND lease = $2",
            self.0.id,
            self.0.lease,
        )
        .execute(&mut *on.connection)
        .await?;
        held(&done)?;
        on.tell_task(self.0.id).await
    }
}

/// How much waits longer than it should.
#[derive(Debug)]
pub struct Backlog {
    /// Jobs that are due.
    pub due: i64,
    /// Seconds since the oldest of them is.
    pub oldest: f64,
}

/// Asks for the backlog of all tenants.
#[derive(Debug)]
pub struct FindBacklog;

impl Read for FindBacklog {
    type Output = Backlog;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Backlog, StoreError> {
        Ok(sqlx::query_as!(
            Backlog,
            r#"SELECT due AS "due!", oldest AS "oldest!" FROM jobs_backlog()"#
        )
        .fetch_one(&mut *on.connection)
        .await?)
    }
}

/// Removes old jobs and deliveries, a bounded number of each.
#[derive(Debug)]
pub struct SweepJobs(pub i32);

impl Write for SweepJobs {
    type Output = i64;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT maintenance_sweep_deliveries($1) + maintenance_sweep_syncs($1) + maintenance_sweep_resources($1) + maintenance_sweep_jobs($1) AS "gone!""#,
            self.0
        )
        .fetch_one(&mut *on.connection)
        .await?)
    }
}
