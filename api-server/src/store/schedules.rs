//! Schedules of syncs. One process of all starts what is due: the row is locked until it is noted when it is due next.

use jiff_sqlx::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::clock;
use crate::domain::page::{Cursor, Page, PageRequest};
use crate::domain::schedule::{MOST_SCHEDULES, Schedule as Cron};
use crate::entropy;
use crate::http::answer::List;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};
use crate::store::syncs::Described;
use crate::store::tasks::Viewer;

/// A schedule.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Schedule {
    /// Identifies it.
    pub id: Uuid,
    /// Minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// In this time zone.
    pub timezone: String,
    /// What is copied from where.
    pub source: String,
    /// And to where.
    pub target: String,
    /// When it is due next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<jiff::Timestamp>,
    /// The task that it started last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_task: Option<Uuid>,
    /// When it was made.
    pub created_at: jiff::Timestamp,
}

/// Schedules, newest first.
#[derive(Debug)]
pub struct ListSchedules {
    /// Who looks.
    pub viewer: Viewer,
    /// Which part.
    pub page: PageRequest,
}

impl Read for ListSchedules {
    type Output = List<Schedule>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<List<Schedule>, StoreError> {
        let (at, id) = self.page.start();
        let rows = sqlx::query!(
            r#"SELECT s.id, s.cron, s.timezone, o.source, o.target, s.next_at AS "next_at: Timestamp", s.last_task,
                      s.created_at AS "created_at: Timestamp"
                 FROM schedules s JOIN sync_sources o ON o.id = s.source_id
                WHERE ($1::uuid IS NULL OR s.user_id = $1) AND (s.created_at, s.id) < (COALESCE($2, 'infinity'::timestamptz), $3)
                ORDER BY s.created_at DESC, s.id DESC LIMIT $4"#,
            self.viewer.only(),
            at.map(Timestamp::from) as _,
            id,
            self.page.fetch(),
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let schedules = rows
            .into_iter()
            .map(|row| Schedule {
                id: row.id,
                cron: row.cron,
                timezone: row.timezone,
                source: row.source,
                target: row.target,
                next_at: row.next_at.map(Timestamp::to_jiff),
                last_task: row.last_task,
                created_at: row.created_at.to_jiff(),
            })
            .collect();
        Ok(List::from(Page::cut(
            schedules,
            self.page,
            |schedule: &Schedule| Cursor {
                at: schedule.created_at,
                id: schedule.id,
            },
        )))
    }
}

/// Makes a schedule.
#[derive(Debug)]
pub struct CreateSchedule {
    /// Identifies it.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// When.
    pub cron: String,
    /// In this time zone.
    pub timezone: String,
    /// First time.
    pub next_at: Option<jiff::Timestamp>,
    /// The source; the default sync without one.
    pub described: Option<Described>,
}

impl Write for CreateSchedule {
    type Output = Schedule;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Schedule, StoreError> {
        let source_id = on.source(self.user_id, self.described.as_ref()).await?;
        let row = sqlx::query!(
            r#"WITH made AS (
                   INSERT INTO schedules (id, tenant_id, user_id, source_id, cron, timezone, next_at)
                   SELECT $1, $2, $3, $4, $5, $6, $7 WHERE (SELECT count(*) FROM schedules) < $8
                   RETURNING created_at
               )
               SELECT made.created_at AS "created_at: Timestamp", o.source, o.target FROM made, sync_sources o WHERE o.id = $4"#,
            self.id,
            on.tenant,
            self.user_id,
            source_id,
            self.cron,
            self.timezone,
            self.next_at.map(Timestamp::from) as _,
            MOST_SCHEDULES,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Conflict("A tenant has at most 50 schedules."))?;
        on.activity(self.user_id, "schedule.created", self.id).await?;
        Ok(Schedule {
            id: self.id,
            cron: self.cron.clone(),
            timezone: self.timezone.clone(),
            source: row.source,
            target: row.target,
            next_at: self.next_at,
            last_task: None,
            created_at: row.created_at.to_jiff(),
        })
    }
}

/// Deletes a schedule. What it has started goes on.
#[derive(Debug)]
pub struct DeleteSchedule {
    /// Who.
    pub viewer: Viewer,
    /// Which.
    pub id: Uuid,
}

impl Write for DeleteSchedule {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        let gone = sqlx::query!(
            "DELETE FROM schedules WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2)",
            self.id,
            self.viewer.only(),
        )
        .execute(&mut *on.connection)
        .await?;
        if gone.rows_affected() == 0 {
            return Err(StoreError::Missing);
        }
        on.activity(self.viewer.user_id, "schedule.deleted", self.id)
            .await
    }
}

/// Starts what is due, of all tenants. Answers how many schedules that were.
#[derive(Debug)]
pub struct FireSchedules(pub i32);

impl Write for FireSchedules {
    type Output = usize;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<usize, StoreError> {
        let due = sqlx::query!(
            r#"SELECT id AS "id!", cron AS "cron!", timezone AS "timezone!" FROM schedules_due($1)"#,
            self.0
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let now = clock::now();
        for schedule in &due {
            let next = Cron::stored(&schedule.cron, &schedule.timezone).and_then(|cron| cron.next(now));
            sqlx::query_scalar!(
                "SELECT schedule_fire($1, $2, $3)",
                schedule.id,
                entropy::id(),
                next.map(Timestamp::from) as _,
            )
            .fetch_one(&mut *on.connection)
            .await?;
        }
        Ok(due.len())
    }
}
