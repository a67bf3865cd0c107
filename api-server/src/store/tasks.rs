//! Background work as people see it: their own, and for managers all of their tenant's.

use jiff_sqlx::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::event::{Channel, EventKind};
use crate::domain::page::{Cursor, Page, PageRequest};
use crate::domain::task::TaskStatus;
use crate::http::answer::List;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// Background work.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Identifies it.
    pub id: Uuid,
    /// What kind of work: `sync` or `webhook`.
    pub kind: String,
    /// How far it is.
    pub status: TaskStatus,
    /// How often it was tried.
    pub attempts: i32,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub result: Option<serde_json::Value>,
    /// When it was asked for.
    pub created_at: jiff::Timestamp,
    /// When it was first begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<jiff::Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<jiff::Timestamp>,
    /// When it is tried next, if it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<jiff::Timestamp>,
}

struct Row {
    id: Uuid,
    kind: String,
    state: String,
    attempts: i32,
    last_error: Option<String>,
    result: Option<serde_json::Value>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    due_at: Option<Timestamp>,
}

impl TryFrom<Row> for Task {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let status: TaskStatus = row
            .state
            .parse()
            .map_err(|error| StoreError::Corrupt(format!("{error}")))?;
        Ok(Self {
            id: row.id,
            kind: row.kind,
            status,
            attempts: row.attempts,
            error: row.last_error,
            result: row.result,
            created_at: row.created_at.to_jiff(),
            started_at: row.started_at.map(Timestamp::to_jiff),
            finished_at: row.finished_at.map(Timestamp::to_jiff),
            next_attempt_at: row
                .due_at
                .filter(|_| status == TaskStatus::Queued)
                .map(Timestamp::to_jiff),
        })
    }
}

/// Who looks at tasks.
#[derive(Debug, Clone, Copy)]
pub struct Viewer {
    /// The person.
    pub user_id: Uuid,
    /// Whether the person sees everybody's.
    pub manages: bool,
}

impl Viewer {
    /// Whose tasks alone are seen.
    pub(super) const fn only(self) -> Option<Uuid> {
        if self.manages { None } else { Some(self.user_id) }
    }
}

/// One task.
#[derive(Debug)]
pub struct FindTask {
    /// Who looks.
    pub viewer: Viewer,
    /// Which.
    pub id: Uuid,
    /// Whether a run of the tenant's default sync counts, whoever started it: who starts it may be told of one that waits already.
    pub of_default: bool,
}

impl Read for FindTask {
    type Output = Task;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Task, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id, kind, state, attempts, last_error, result, created_at AS "created_at: Timestamp",
                      started_at AS "started_at: Timestamp", finished_at AS "finished_at: Timestamp", due_at AS "due_at: Timestamp"
                 FROM jobs j WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2 OR ($3 AND kind = 'sync' AND EXISTS (
                     SELECT FROM sync_sources s WHERE s.is_tenant_default AND s.tenant_id = j.tenant_id AND s.id::text = j.payload->>'source_id')))"#,
            self.id,
            self.viewer.only(),
            self.of_default,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?
        .try_into()
    }
}

/// Tasks, newest first.
#[derive(Debug)]
pub struct ListTasks {
    /// Who looks.
    pub viewer: Viewer,
    /// Only those that are so far.
    pub status: Option<TaskStatus>,
    /// Which part.
    pub page: PageRequest,
}

impl Read for ListTasks {
    type Output = List<Task>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<List<Task>, StoreError> {
        let (at, id) = self.page.start();
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, kind, state, attempts, last_error, result, created_at AS "created_at: Timestamp",
                      started_at AS "started_at: Timestamp", finished_at AS "finished_at: Timestamp", due_at AS "due_at: Timestamp"
                 FROM jobs WHERE ($1::uuid IS NULL OR user_id = $1) AND ($2::text IS NULL OR state = $2)
                  AND (created_at, id) < (COALESCE($3, 'infinity'::timestamptz), $4)
                ORDER BY created_at DESC, id DESC LIMIT $5"#,
            self.viewer.only(),
            self.status.map(TaskStatus::as_str),
            at.map(Timestamp::from) as _,
            id,
            self.page.fetch(),
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let tasks = rows
            .into_iter()
            .map(Task::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(List::from(Page::cut(tasks, self.page, |task| Cursor {
            at: task.created_at,
            id: task.id,
        })))
    }
}

impl WriteHandle<'_> {
    /// Tells who asked for a task how far it is now. What the server does of itself is told to nobody.
    pub(super) async fn tell_task(&mut self, id: Uuid) -> Result<(), StoreError> {
        let asked = sqlx::query_scalar!("SELECT user_id FROM jobs WHERE id = $1", id)
            .fetch_optional(&mut *self.connection)
            .await?;
        let Some(user_id) = asked.flatten() else {
            return Ok(());
        };
        let viewer = Viewer {
            user_id,
            manages: false,
        };
        let find = FindTask {
            viewer,
            id,
            of_default: false,
        };
        let task = find
            .run(&mut ReadHandle {
                connection: self.connection,
            })
            .await?;
        self.emit(Channel::User(user_id), EventKind::TaskUpdated, &task)
            .await
    }
}

/// Tries a task again that failed or was cancelled.
#[derive(Debug)]
pub struct RetryTask {
    /// Who asks.
    pub viewer: Viewer,
    /// Which.
    pub id: Uuid,
}

impl Write for RetryTask {
    type Output = Task;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Task, StoreError> {
        let find = FindTask {
            viewer: self.viewer,
            id: self.id,
            of_default: false,
        };
        let changed = sqlx::query!(
            "UPDATE jobs SET state = 'queued', due_at = clock_timestamp(), attempts = 0, crashes = 0, cancelling = false,
                    finished_at = NULL, result = NULL
              WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2) AND state IN ('failed', 'cancelled')",
            self.id,
            self.viewer.only(),
        )
        .execute(&mut *on.connection)
        .await
        .map_err(|error| match super::on_constraint(error, "jobs_only_one_key") {
            StoreError::Taken(_) => StoreError::Conflict("Another task does the same already."),
            other => other,
        })?;
        let task = find
            .run(&mut ReadHandle {
                connection: on.connection,
            })
            .await?;
        if changed.rows_affected() == 0 {
            return Err(StoreError::Conflict(
                "Only a task that failed or was cancelled can be tried again.",
            ));
        }
        on.tell_task(self.id).await?;
        on.activity(self.viewer.user_id, "task.retried", self.id).await?;
        Ok(task)
    }
}

/// Ends a task: at once if it waits, as soon as its worker learns of it if it runs.
#[derive(Debug)]
pub struct CancelTask {
    /// Who asks.
    pub viewer: Viewer,
    /// Which.
    pub id: Uuid,
}

impl Write for CancelTask {
    type Output = Task;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Task, StoreError> {
        let find = FindTask {
            viewer: self.viewer,
            id: self.id,
            of_default: false,
        };
        let changed = sqlx::query!(
            "UPDATE jobs SET cancelling = true,
                    state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END,
                    due_at = CASE WHEN state = 'queued' THEN NULL ELSE due_at END,
                    finished_at = CASE WHEN state = 'queued' THEN clock_timestamp() END
              WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2) AND state IN ('queued', 'running')",
            self.id,
            self.viewer.only(),
        )
        .execute(&mut *on.connection)
        .await?;
        let task = find
            .run(&mut ReadHandle {
                connection: on.connection,
            })
            .await?;
        if changed.rows_affected() == 0 {
            return Err(StoreError::Conflict("The task has ended already."));
        }
        on.tell_task(self.id).await?;
        on.activity(self.viewer.user_id, "task.cancelled", self.id)
            .await?;
        Ok(task)
    }
}
