//! Tenants and people.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::logs::Entry;
use super::people;
use crate::cache::kind::{Entity, Kind};
use crate::cache::tiers::Cached;
use crate::domain::account::{Email, Name};
use crate::domain::audit::SecurityEvent;
use crate::domain::principal::Role;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};
use crate::store::sessions::NewSession;

/// A person, as everybody may see it who may see the person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Identifies the person.
    pub id: Uuid,
    /// The tenant that the person belongs to.
    pub tenant_id: Uuid,
    /// Address.
    pub email: String,
    /// Name.
    pub name: String,
    /// What the person may do.
    pub role: Role,
    /// When the account was made.
    pub created_at: jiff::Timestamp,
}

/// What a login is checked against.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The person.
    pub user_id: Uuid,
    /// The person's tenant.
    pub tenant_id: Uuid,
    /// Hash of the password, with its parameters.
    pub password_hash: String,
    /// Whether the person may log in.
    pub is_active: bool,
}

/// Finds what a login is checked against, before a tenant is known.
#[derive(Debug)]
pub struct FindCredentials(pub Email);

impl Read for FindCredentials {
    type Output = Option<Credentials>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Option<Credentials>, StoreError> {
        let found = sqlx::query_as!(
            Credentials,
            r#"SELECT user_id AS "user_id!", tenant_id AS "tenant_id!", password_hash AS "password_hash!",
                      is_active AS "is_active!"
                 FROM auth_find_login($1)"#,
            self.0.as_str(),
        )
        .fetch_optional(&mut *on.connection)
        .await?;
        Ok(found)
    }
}

/// Makes a tenant, its owner, and the owner's first session. The scope's tenant is the one to be made.
#[derive(Debug)]
pub struct SignUp {
    /// Identifies the tenant.
    pub tenant_id: Uuid,
    /// Name of the tenant.
    pub tenant_name: Name,
    /// The owner.
    pub account: NewAccount,
}

/// Somebody who had no account.
#[derive(Debug)]
pub struct NewAccount {
    /// Identifies the person.
    pub user_id: Uuid,
    /// Address.
    pub email: Email,
    /// Name.
    pub name: Name,
    /// Hash of the password.
    pub password_hash: String,
    /// The first session.
    pub session: NewSession,
}

/// Constraint that keeps an address to one account.
pub const EMAIL_TAKEN: &str = "users_email_key";

impl NewAccount {
    /// Makes the account in the tenant of the scope, its first session, and the entry in the audit log.
    pub(super) async fn insert(
        &self,
        on: &mut WriteHandle<'_>,
        role: Role,
        event: SecurityEvent,
    ) -> Result<User, StoreError> {
        let tenant_id = on.tenant.ok_or(StoreError::Missing)?;
        let (id, hash) = (self.user_id, &self.password_hash);
        let created_at = people::insert(on, id, &self.email, &self.name, role, hash).await?;
        self.session.insert(on).await?;
        on.audit(&Entry::own(event, id, &self.session.origin)).await?;
        Ok(User {
            id,
            tenant_id,
            email: self.email.as_str().to_owned(),
            name: self.name.as_str().to_owned(),
            role,
            created_at,
        })
    }
}

impl Write for SignUp {
    type Output = User;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<User, StoreError> {
        sqlx::query!(
            "INSERT INTO tenants (id, name) VALUES ($1, $2)",
            self.tenant_id,
            self.tenant_name.as_str()
        )
        .execute(&mut *on.connection)
        .await?;
        self.account
            .insert(on, Role::Owner, SecurityEvent::SignedUp)
            .await
    }
}

/// Reads a person of the tenant.
#[derive(Debug, Clone)]
pub struct FindUser(pub Uuid);

/// What a change of a person's profile replaces.
pub(super) const fn profile(tenant: Option<Uuid>, user_id: Uuid) -> Entity {
    Entity {
        kind: Kind::UserProfile,
        tenant,
        id: Some(user_id),
    }
}

impl Cached for FindUser {
    fn entity(&self, tenant: Option<Uuid>) -> Entity {
        profile(tenant, self.0)
    }

    fn arguments(&self) -> impl Serialize {
        "profile"
    }
}

impl Read for FindUser {
    type Output = User;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<User, StoreError> {
        let row = sqlx::query!(
            r#"SELECT id, tenant_id, email, name, role, created_at AS "created_at: jiff_sqlx::Timestamp"
                 FROM users WHERE id = $1"#,
            self.0,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?;
        Ok(User {
            id: row.id,
            tenant_id: row.tenant_id,
            email: row.email,
            name: row.name,
            role: row
                .role
                .parse()
                .map_err(|error| StoreError::Corrupt(format!("{error}")))?,
            created_at: row.created_at.to_jiff(),
        })
    }
}
