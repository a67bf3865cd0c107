//! The audit log of security events and the log of changes. Both are written in the transaction of what they tell of.

use jiff_sqlx::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::audit::{Origin, SecurityEvent};
use crate::domain::page::{Cursor, Page, PageRequest};
use crate::entropy;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// An entry for the audit log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What happened.
    pub event: SecurityEvent,
    /// Whom it is about.
    pub user_id: Option<Uuid>,
    /// Who did it.
    pub actor_id: Option<Uuid>,
    /// From where.
    pub address: Option<String>,
    /// Details in words, without secrets.
    pub detail: Option<String>,
}

impl Entry {
    /// Something that a person did to the own account.
    pub fn own(event: SecurityEvent, user_id: Uuid, origin: &Origin) -> Self {
        Self {
            event,
            user_id: Some(user_id),
            actor_id: Some(user_id),
            address: origin.address.clone(),
            detail: None,
        }
    }

    /// Something that a person did to another one, or to the tenant.
    pub fn by(event: SecurityEvent, actor_id: Uuid, user_id: Option<Uuid>, origin: &Origin) -> Self {
        Self {
            event,
            user_id,
            actor_id: Some(actor_id),
            address: origin.address.clone(),
            detail: None,
        }
    }

    /// The same with details.
    #[must_use]
    pub fn with(mut self, detail: String) -> Self {
        self.detail = Some(detail);
        self
    }
}

impl WriteHandle<'_> {
    /// Notes a security event.
    pub(crate) async fn audit(&mut self, entry: &Entry) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO audit_logs (id, tenant_id, user_id, actor_id, event_type, address, detail)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            entropy::id(),
            self.tenant,
            entry.user_id,
            entry.actor_id,
            entry.event.as_str(),
            entry.address,
            entry.detail,
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Notes that a person changed something. `action` is from a closed set: the names of events.
    pub(crate) async fn activity(
        &mut self,
        user_id: Uuid,
        action: &'static str,
        subject_id: Uuid,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO activity_logs (id, tenant_id, user_id, action, subject_id) VALUES ($1, $2, $3, $4, $5)",
            entropy::id(),
            self.tenant,
            user_id,
            action,
            subject_id,
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }
}

/// Notes a security event that changes nothing else.
#[derive(Debug)]
pub struct Note(pub Entry);

impl Write for Note {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        on.audit(&self.0).await
    }
}

/// A line of the audit log.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AuditLine {
    /// Identifies it.
    pub id: Uuid,
    /// What happened.
    pub event_type: String,
    /// Whom it is about.
    pub user_id: Option<Uuid>,
    /// Who did it.
    pub actor_id: Option<Uuid>,
    /// From which address.
    pub address: Option<String>,
    /// Details.
    pub detail: Option<String>,
    /// When.
    pub created_at: jiff::Timestamp,
}

/// The tenant's audit log, newest first.
#[derive(Debug)]
pub struct ListAudit {
    /// Only about this person.
    pub user_id: Option<Uuid>,
    /// Only of this type.
    pub event: Option<SecurityEvent>,
    /// Which part.
    pub page: PageRequest,
}

struct AuditRow {
    id: Uuid,
    event_type: String,
    user_id: Option<Uuid>,
    actor_id: Option<Uuid>,
    address: Option<String>,
    detail: Option<String>,
    created_at: Timestamp,
}

impl Read for ListAudit {
    type Output = Page<AuditLine>;

    /// A statement for each combination of filters: one for all of them would be planned for none.
    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Page<AuditLine>, StoreError> {
        let (at, id) = self.page.start();
        let at = at.map(Timestamp::from);
        let event = self.event.map(SecurityEvent::as_str);
        let limit = self.page.fetch();
        let rows = match (self.user_id, event) {
            (None, None) => {
                sqlx::query_as!(
                    AuditRow,
                    r#"SELECT id, event_type, user_id, actor_id, address, detail, created_at AS "created_at: Timestamp"
                         FROM audit_logs WHERE (created_at, id) < (COALESCE($1, 'infinity'::timestamptz), $2)
                        ORDER BY created_at DESC, id DESC LIMIT $3"#,
                    at as _,
                    id,
                    limit
                )
                .fetch_all(&mut *on.connection)
                .await?
            }
            (Some(user_id), event) => {
                sqlx::query_as!(
                    AuditRow,
                    r#"SELECT id, event_type, user_id, actor_id, address, detail, created_at AS "created_at: Timestamp"
                         FROM audit_logs WHERE user_id = $4 AND ($5::text IS NULL OR event_type = $5)
                          AND (created_at, id) < (COALESCE($1, 'infinity'::timestamptz), $2)
                        ORDER BY created_at DESC, id DESC LIMIT $3"#,
                    at as _,
                    id,
                    limit,
                    user_id,
                    event
                )
                .fetch_all(&mut *on.connection)
                .await?
            }
            (None, Some(event)) => {
                sqlx::query_as!(
                    AuditRow,
                    r#"SELECT id, event_type, user_id, actor_id, address, detail, created_at AS "created_at: Timestamp"
                         FROM audit_logs WHERE event_type = $4
                          AND (created_at, id) < (COALESCE($1, 'infinity'::timestamptz), $2)
                        ORDER BY created_at DESC, id DESC LIMIT $3"#,
                    at as _,
                    id,
                    limit,
                    event
                )
                .fetch_all(&mut *on.connection)
                .await?
            }
        };
        let lines = rows.into_iter().map(AuditRow::line).collect();
        Ok(Page::cut(lines, self.page, |line: &AuditLine| Cursor {
            at: line.created_at,
            id: line.id,
        }))
    }
}

impl AuditRow {
    fn line(self) -> AuditLine {
        AuditLine {
            id: self.id,
            event_type: self.event_type,
            user_id: self.user_id,
            actor_id: self.actor_id,
            address: self.address,
            detail: self.detail,
            created_at: self.created_at.to_jiff(),
        }
    }
}

/// A line of the log of changes.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ActivityLine {
    /// Identifies it.
    pub id: Uuid,
    /// Who.
    pub user_id: Option<Uuid>,
    /// Did what.
    pub action: String,
    /// To what.
    pub subject_id: Option<Uuid>,
    /// When.
    pub created_at: jiff::Timestamp,
}

/// Changes in the tenant, newest first.
#[derive(Debug)]
pub struct ListActivity(pub PageRequest);

impl Read for ListActivity {
    type Output = Page<ActivityLine>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Page<ActivityLine>, StoreError> {
        let (at, id) = self.0.start();
        let rows = sqlx::query!(
            r#"SELECT id, user_id, action, subject_id, created_at AS "created_at: Timestamp"
                 FROM activity_logs WHERE (created_at, id) < (COALESCE($1, 'infinity'::timestamptz), $2)
                ORDER BY created_at DESC, id DESC LIMIT $3"#,
            at.map(Timestamp::from) as _,
            id,
            self.0.fetch(),
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let lines = rows
            .into_iter()
            .map(|row| ActivityLine {
                id: row.id,
                user_id: row.user_id,
                action: row.action,
                subject_id: row.subject_id,
                created_at: row.created_at.to_jiff(),
            })
            .collect();
        Ok(Page::cut(lines, self.0, |line: &ActivityLine| Cursor {
            at: line.created_at,
            id: line.id,
        }))
    }
}
