//! Deliveries of events to endpoints: what is to be sent, what became of it, and the log of it.

use std::time::Duration;

use jiff_sqlx::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::page::{Cursor, Page, PageRequest};
use crate::domain::task::TaskKind;
use crate::domain::webhook::give_up;
use crate::entropy;
use crate::http::answer::List;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};
use crate::store::jobs::{Hold, NewJob};

/// A delivery.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// Identifies it; the task that sends it has the same id.
    pub id: Uuid,
    /// The endpoint.
    pub webhook_id: Uuid,
    /// Which event.
    pub event_type: String,
    /// What was sent, as JSON.
    pub body: String,
    /// `pending`, `delivered` or `failed`.
    pub status: String,
    /// How often it was tried.
    pub attempts: i32,
    /// Status of the endpoint's last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<i32>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When the event happened.
    pub created_at: jiff::Timestamp,
    /// When it was last tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempted_at: Option<jiff::Timestamp>,
}

/// Deliveries of an endpoint, newest first.
#[derive(Debug)]
pub struct ListDeliveries {
    /// The endpoint.
    pub webhook_id: Uuid,
    /// Which part.
    pub page: PageRequest,
}

impl Read for ListDeliveries {
    type Output = List<Delivery>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<List<Delivery>, StoreError> {
        let (at, id) = self.page.start();
        let rows = sqlx::query!(
            r#"SELECT id, event_type, body, status, attempts, response_status, last_error, created_at AS "created_at: Timestamp",
                      attempted_at AS "attempted_at: Timestamp"
                 FROM webhook_deliveries
                WHERE webhook_id = $1 AND (created_at, id) < (COALESCE($2, 'infinity'::timestamptz), $3)
                ORDER BY created_at DESC, id DESC LIMIT $4"#,
            self.webhook_id,
            at.map(Timestamp::from) as _,
            id,
            self.page.fetch(),
        )
        .fetch_all(&mut *on.connection)
        .await?;
        if rows.is_empty() {
            // An empty log is one thing, an endpoint that is not there another.
            sqlx::query_scalar!("SELECT id FROM webhooks WHERE id = $1", self.webhook_id)
                .fetch_optional(&mut *on.connection)
                .await?
                .ok_or(StoreError::Missing)?;
        }
        let deliveries = rows
            .into_iter()
            .map(|row| Delivery {
                id: row.id,
                webhook_id: self.webhook_id,
                event_type: row.event_type,
                body: row.body,
                status: row.status,
                attempts: row.attempts,
                response_status: row.response_status,
                error: row.last_error,
                created_at: row.created_at.to_jiff(),
                attempted_at: row.attempted_at.map(Timestamp::to_jiff),
            })
            .collect();
        Ok(List::from(Page::cut(
            deliveries,
            self.page,
            |delivery: &Delivery| Cursor {
                at: delivery.created_at,
                id: delivery.id,
            },
        )))
    }
}

impl WriteHandle<'_> {
    /// Queues something for the endpoints that want it which is no event of a channel. As of events, only ids and times are told.
    pub(crate) async fn announce(
        &mut self,
        what: &'static str,
        data: serde_json::Value,
    ) -> Result<(), StoreError> {
        sqlx::query_scalar!(
            "SELECT webhook_enqueue($1, $2, $3, clock_timestamp(), $4)",
            self.tenant,
            what,
            entropy::id(),
            data,
        )
        .fetch_one(&mut *self.connection)
        .await?;
        Ok(())
    }
}

/// A task was queued.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct Queued {
    /// Ask for it at `/api/v1/tasks/{id}`.
    pub task_id: Uuid,
}

/// Sends an event again, as a delivery of its own.
#[derive(Debug)]
pub struct Redeliver {
    /// The delivery.
    pub id: Uuid,
    /// Identifies the new one.
    pub new_id: Uuid,
    /// Who asks.
    pub user_id: Uuid,
}

impl Write for Redeliver {
    type Output = Queued;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Queued, StoreError> {
        let copied = sqlx::query!(
            "INSERT INTO webhook_deliveries (id, tenant_id, webhook_id, message_id, event_type, body)
             SELECT $2, tenant_id, webhook_id, message_id, event_type, body FROM webhook_deliveries WHERE id = $1",
            self.id,
            self.new_id,
        )
        .execute(&mut *on.connection)
        .await?;
        if copied.rows_affected() == 0 {
            return Err(StoreError::Missing);
        }
        let job = NewJob {
            id: self.new_id,
            user_id: Some(self.user_id),
            kind: TaskKind::Webhook,
            payload: serde_json::json!({}),
            only_one: None,
        };
        on.activity(self.user_id, "webhook.redelivered", self.id).await?;
        let task_id = on.enqueue(&job).await?;
        Ok(Queued { task_id })
    }
}

/// What is to be sent, and where.
#[derive(Debug)]
pub struct Parcel {
    /// The endpoint.
    pub webhook_id: Uuid,
    /// Its address.
    pub url: String,
    /// Whether it is to be told.
    pub enabled: bool,
    /// Versions of its secret that are good.
    pub secret_versions: Vec<i32>,
    /// What receivers recognise the event by.
    pub message_id: Uuid,
    /// What is sent.
    pub body: String,
}

/// Finds what a job is to send; nothing if the endpoint is gone.
#[derive(Debug)]
pub struct FindParcel(pub Uuid);

impl Read for FindParcel {
    type Output = Option<Parcel>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Option<Parcel>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT w.id, w.url, w.is_enabled, w.secret_version, COALESCE(w.previous_until > clock_timestamp(), false) AS "both!",
                      d.message_id, d.body
                 FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id WHERE d.id = $1"#,
            self.0,
        )
        .fetch_optional(&mut *on.connection)
        .await?;
        Ok(row.map(|row| Parcel {
            webhook_id: row.id,
            url: row.url,
            enabled: row.is_enabled,
            secret_versions: if row.both {
                vec![row.secret_version, row.secret_version - 1]
            } else {
                vec![row.secret_version]
            },
            message_id: row.message_id,
            body: row.body,
        }))
    }
}

/// What became of an attempt.
#[derive(Debug)]
pub struct SettleDelivery {
    /// The job, whose id is that of the delivery.
    pub hold: Hold,
    /// The endpoint.
    pub webhook_id: Uuid,
    /// Status of its answer, if one came.
    pub response_status: Option<u16>,
    /// Why it failed, if it did, and when to try again.
    pub failure: Option<(String, Option<Duration>)>,
    /// Whether the endpoint was asked; otherwise nothing is learned of it.
    pub asked: bool,
}

impl Write for SettleDelivery {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        on.hold(self.hold).await?;
        let status = match &self.failure {
            None => "delivered",
            Some((_, Some(_))) => "pending",
            Some((_, None)) => "failed",
        };
        sqlx::query!(
            "UPDATE webhook_deliveries SET status = $2, attempts = attempts + CASE WHEN $5 THEN 1 ELSE 0 END, response_status = $3,
                    last_error = left($4, 500), attempted_at = clock_timestamp() WHERE id = $1",
            self.hold.id,
            status,
            self.response_status.map(i32::from),
            self.failure.as_ref().map(|(error, _)| error.as_str()),
            self.asked,
        )
        .execute(&mut *on.connection)
        .await?;
        if self.asked {
            self.note(on).await?;
        }
        match &self.failure {
            None => on.succeed(self.hold, None).await,
            Some((error, pause)) => on.fail(self.hold, *pause, error).await,
        }
    }
}

impl SettleDelivery {
    /// Notes of the endpoint how it behaves, and gives it up if that has been bad for too long.
    async fn note(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        if self.failure.is_none() {
            sqlx::query!(
                "UPDATE webhooks SET failures = 0, failing_since = NULL WHERE id = $1 AND failures > 0",
                self.webhook_id
            )
            .execute(&mut *on.connection)
            .await?;
            return Ok(());
        }
        let failing = sqlx::query!(
            r#"UPDATE webhooks SET failures = failures + 1, failing_since = COALESCE(failing_since, clock_timestamp())
                WHERE id = $1 RETURNING failures, extract(epoch FROM clock_timestamp() - failing_since)::float8 AS "seconds!""#,
            self.webhook_id,
        )
        .fetch_one(&mut *on.connection)
        .await?;
        let lasting = Duration::try_from_secs_f64(failing.seconds).unwrap_or_default();
        if let Some(reason) = give_up(failing.failures, lasting, self.response_status == Some(410)) {
            sqlx::query!(
                "UPDATE webhooks SET is_enabled = false, disabled_reason = $2 WHERE id = $1 AND is_enabled",
                self.webhook_id,
                reason,
            )
            .execute(&mut *on.connection)
            .await?;
        }
        Ok(())
    }
}

/// Ends a job whose endpoint is gone.
#[derive(Debug)]
pub struct DropDelivery(pub Hold);

impl Write for DropDelivery {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        on.succeed(
            self.0,
            Some(serde_json::json!({"skipped": "the webhook was deleted"})),
        )
        .await
    }
}
