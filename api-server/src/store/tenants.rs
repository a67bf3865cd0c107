//! The tenant itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::account::Name;
use crate::domain::audit::{Origin, SecurityEvent};
use crate::domain::event::{Channel, EventKind};
use crate::domain::principal::Role;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};
use crate::store::logs::Entry;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// Identifies it.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: jiff::Timestamp,
}

/// Reads the tenant of the scope.
#[derive(Debug)]
pub struct FindTenant;

impl Read for FindTenant {
    type Output = Tenant;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Tenant, StoreError> {
        let row =
            sqlx::query!(r#"SELECT id, name, created_at AS "created_at: jiff_sqlx::Timestamp" FROM tenants"#)
                .fetch_optional(&mut *on.connection)
                .await?
                .ok_or(StoreError::Missing)?;
        Ok(Tenant {
            id: row.id,
            name: row.name,
            created_at: row.created_at.to_jiff(),
        })
    }
}

/// Changes the tenant's name.
#[derive(Debug)]
pub struct RenameTenant {
    /// Who does it.
    pub actor_id: Uuid,
    /// From where.
    pub origin: Origin,
    /// The new name.
    pub name: Name,
}

impl Write for RenameTenant {
    type Output = Tenant;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Tenant, StoreError> {
        let row = sqlx::query!(
            r#"UPDATE tenants SET name = $2 WHERE id = $1
               RETURNING id, name, created_at AS "created_at: jiff_sqlx::Timestamp""#,
            on.tenant,
            self.name.as_str(),
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?;
        on.audit(&Entry::by(
            SecurityEvent::TenantChanged,
            self.actor_id,
            None,
            &self.origin,
        ))
        .await?;
        on.activity(self.actor_id, SecurityEvent::TenantChanged.as_str(), row.id)
            .await?;
        Ok(Tenant {
            id: row.id,
            name: row.name,
            created_at: row.created_at.to_jiff(),
        })
    }
}

/// Tells all sockets of the tenant something.
#[derive(Debug)]
pub struct Broadcast {
    /// Who says it.
    pub actor_id: Uuid,
    /// What is said.
    pub message: String,
}

/// A message to everybody in the tenant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Announcement {
    /// Who said it.
    pub user_id: Uuid,
    /// What was said.
    pub message: String,
}

impl Write for Broadcast {
    type Output = Announcement;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Announcement, StoreError> {
        let tenant = on.tenant.ok_or(StoreError::Missing)?;
        let announcement = Announcement {
            user_id: self.actor_id,
            message: self.message.clone(),
        };
        on.emit(Channel::Tenant(tenant), EventKind::TenantBroadcast, &announcement)
            .await?;
        on.activity(self.actor_id, EventKind::TenantBroadcast.as_str(), tenant)
            .await?;
        Ok(announcement)
    }
}

/// An invitation to join the tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// Identifies it.
    pub id: Uuid,
    /// Who is invited.
    pub email: String,
    /// As what.
    pub role: Role,
    /// Until when.
    pub expires_at: jiff::Timestamp,
}
