//! Endpoints of a tenant. Their secrets are not stored; they follow from id and version.

use jiff_sqlx::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::audit::{Origin, SecurityEvent};
use crate::domain::page::{Cursor, Page, PageRequest};
use crate::domain::webhook::{MOST_ENDPOINTS, ROTATION};
use crate::http::answer::List;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};
use crate::store::logs::Entry;

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Webhook {
    /// Identifies it.
    pub id: Uuid,
    /// Where events go.
    pub url: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Which events.
    pub event_types: Vec<String>,
    /// Whether events go there.
    pub enabled: bool,
    /// Why the server has stopped to send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled_reason: Option<String>,
    /// Since when every attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<jiff::Timestamp>,
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// When somebody last changed it.
    pub updated_at: jiff::Timestamp,
    /// Signs events, as Standard Webhooks describes it. Shown once: when the endpoint is made and when the secret is rotated.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub secret: Option<String>,
}

struct Row {
    id: Uuid,
    url: String,
    description: Option<String>,
    event_types: Vec<String>,
    is_enabled: bool,
    disabled_reason: Option<String>,
    failing_since: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Row> for Webhook {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            url: row.url,
            description: row.description,
            event_types: row.event_types,
            enabled: row.is_enabled,
            disabled_reason: row.disabled_reason,
            failing_since: row.failing_since.map(Timestamp::to_jiff),
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
            secret: None,
        }
    }
}

/// Endpoints, newest first.
#[derive(Debug)]
pub struct ListWebhooks(pub PageRequest);

impl Read for ListWebhooks {
    type Output = List<Webhook>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<List<Webhook>, StoreError> {
        let (at, id) = self.0.start();
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, url, description, event_types, is_enabled, disabled_reason, failing_since AS "failing_since: Timestamp",
                      created_at AS "created_at: Timestamp", updated_at AS "updated_at: Timestamp"
                 FROM webhooks WHERE (created_at, id) < (COALESCE($1, 'infinity'::timestamptz), $2)
                ORDER BY created_at DESC, id DESC LIMIT $3"#,
            at.map(Timestamp::from) as _,
            id,
            self.0.fetch(),
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let webhooks = rows.into_iter().map(Webhook::from).collect();
        Ok(List::from(Page::cut(webhooks, self.0, |webhook: &Webhook| {
            Cursor {
                at: webhook.created_at,
                id: webhook.id,
            }
        })))
    }
}

/// Who changes an endpoint, and from where.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The person.
    pub user_id: Uuid,
    /// From where.
    pub origin: Origin,
}

impl Actor {
    fn entry(&self, event: SecurityEvent, id: Uuid, what: &str) -> Entry {
        Entry::by(event, self.user_id, None, &self.origin).with(format!("{what} {id}"))
    }
}

/// Makes an endpoint.
#[derive(Debug)]
pub struct CreateWebhook {
    /// Identifies it.
    pub id: Uuid,
    /// Who.
    pub actor: Actor,
    /// Where events go.
    pub url: String,
    /// What it is for.
    pub description: Option<String>,
    /// Which events.
    pub event_types: Vec<String>,
}

impl Write for CreateWebhook {
    type Output = Webhook;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Webhook, StoreError> {
        let row = sqlx::query_as!(
            Row,
            r#"INSERT INTO webhooks (id, tenant_id, created_by, url, description, event_types)
               SELECT $1, $2, $3, $4, $5, $6 WHERE (SELECT count(*) FROM webhooks) < $7
               RETURNING id, url, description, event_types, is_enabled, disabled_reason, failing_since AS "failing_since: Timestamp",
                         created_at AS "created_at: Timestamp", updated_at AS "updated_at: Timestamp""#,
            self.id,
            on.tenant,
            self.actor.user_id,
            self.url,
            self.description,
            &self.event_types,
            MOST_ENDPOINTS,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Conflict("A tenant has at most 20 webhooks."))?;
        on.audit(
            &self
                .actor
                .entry(SecurityEvent::WebhookCreated, self.id, "webhook"),
        )
        .await?;
        Ok(row.into())
    }
}

/// Changes an endpoint. Absent values stay.
#[derive(Debug)]
pub struct ChangeWebhook {
    /// Which.
    pub id: Uuid,
    /// Who.
    pub actor: Actor,
    /// Where events go.
    pub url: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Which events.
    pub event_types: Option<Vec<String>>,
    /// Whether events go there; enabling forgets failures.
    pub enabled: Option<bool>,
    /// Whether a new secret is wanted.
    pub rotate: bool,
}

impl Write for ChangeWebhook {
    /// The endpoint, and the version of its secret.
    type Output = (Webhook, i32);

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(Webhook, i32), StoreError> {
        let version = sqlx::query_scalar!(
            "UPDATE webhooks SET
                    url = COALESCE($2, url), description = COALESCE($3, description), event_types = COALESCE($4, event_types),
                    is_enabled = COALESCE($5, is_enabled),
                    disabled_reason = CASE WHEN $5 THEN NULL ELSE disabled_reason END,
                    failures = CASE WHEN $5 THEN 0 ELSE failures END,
                    failing_since = CASE WHEN $5 THEN NULL ELSE failing_since END,
                    secret_version = secret_version + CASE WHEN $6 THEN 1 ELSE 0 END,
                    previous_until = CASE WHEN $6 THEN clock_timestamp() + make_interval(secs => $7) ELSE previous_until END,
                    updated_at = clock_timestamp()
              WHERE id = $1 RETURNING secret_version",
            self.id,
            self.url.as_deref(),
            self.description.as_deref(),
            self.event_types.as_deref() as _,
            self.enabled,
            self.rotate,
            ROTATION.as_secs_f64(),
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?;
        let what = if self.rotate {
            "new secret of webhook"
        } else {
            "webhook"
        };
        on.audit(&self.actor.entry(SecurityEvent::WebhookChanged, self.id, what))
            .await?;
        let row = sqlx::query_as!(
            Row,
            r#"SELECT id, url, description, event_types, is_enabled, disabled_reason, failing_since AS "failing_since: Timestamp",
                      created_at AS "created_at: Timestamp", updated_at AS "updated_at: Timestamp"
                 FROM webhooks WHERE id = $1"#,
            self.id,
        )
        .fetch_one(&mut *on.connection)
        .await?;
        Ok((row.into(), version))
    }
}

/// Deletes an endpoint and its log. What waits for it is not sent any more.
#[derive(Debug)]
pub struct DeleteWebhook {
    /// Which.
    pub id: Uuid,
    /// Who.
    pub actor: Actor,
}

impl Write for DeleteWebhook {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        let gone = sqlx::query!("DELETE FROM webhooks WHERE id = $1", self.id)
            .execute(&mut *on.connection)
            .await?;
        if gone.rows_affected() == 0 {
            return Err(StoreError::Missing);
        }
        on.audit(
            &self
                .actor
                .entry(SecurityEvent::WebhookDeleted, self.id, "webhook"),
        )
        .await
    }
}
