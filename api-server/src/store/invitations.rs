//! Invitations: made by those who manage people, taken by signing up.

use std::time::Duration;

use uuid::Uuid;

use super::accounts::{NewAccount, User};
use super::logs::Entry;
use super::tenants::Invitation;
use crate::domain::account::Email;
use crate::domain::audit::Origin;
use crate::domain::audit::SecurityEvent;
use crate::domain::principal::Role;
use crate::keys::TokenHash;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// Invites somebody.
#[derive(Debug)]
pub struct Invite {
    /// Who does it.
    pub actor_id: Uuid,
    /// From where.
    pub origin: Origin,
    /// Identifies the invitation.
    pub id: Uuid,
    /// Who is invited.
    pub email: Email,
    /// As what; never as an owner.
    pub role: Role,
    /// How long it is good.
    pub ttl: Duration,
    /// Hash of the token of an id. The token follows from the id, so that a repeated request gets the same one although none is stored.
    pub hash: TokenHash,
}

impl Write for Invite {
    type Output = Invitation;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Invitation, StoreError> {
        let made = sqlx::query!(
            r#"INSERT INTO invitations (id, tenant_id, invited_by, email, role, token_hash, expires_at)
               VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))
               RETURNING expires_at AS "expires_at: jiff_sqlx::Timestamp""#,
            self.id,
            on.tenant,
            self.actor_id,
            self.email.as_str(),
            self.role.as_str(),
            &self.hash,
            self.ttl.as_secs_f64(),
        )
        .fetch_one(&mut *on.connection)
        .await?;
        let entry = Entry::by(SecurityEvent::Invited, self.actor_id, None, &self.origin);
        on.audit(&entry.with(format!("role {}", self.role.as_str())))
            .await?;
        on.activity(self.actor_id, SecurityEvent::Invited.as_str(), self.id)
            .await?;
        Ok(Invitation {
            id: self.id,
            email: self.email.as_str().to_owned(),
            role: self.role,
            expires_at: made.expires_at.to_jiff(),
        })
    }
}

/// An invitation that can be taken.
#[derive(Debug, Clone)]
pub struct Open {
    /// Identifies it.
    pub id: Uuid,
    /// The tenant.
    pub tenant_id: Uuid,
    /// Who is invited.
    pub email: String,
    /// As what.
    pub role: String,
}

/// Finds an invitation by its token, before a tenant is known.
#[derive(Debug)]
pub struct FindInvitation(pub TokenHash);

impl Read for FindInvitation {
    type Output = Option<Open>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Option<Open>, StoreError> {
        let found = sqlx::query_as!(
            Open,
            r#"SELECT id AS "id!", tenant_id AS "tenant_id!", email AS "email!", role AS "role!"
                 FROM auth_find_invitation($1)"#,
            &self.0,
        )
        .fetch_optional(&mut *on.connection)
        .await?;
        Ok(found)
    }
}

/// Takes an invitation: makes the account and its first session.
#[derive(Debug)]
pub struct Join {
    /// The invitation.
    pub invitation: Uuid,
    /// As what.
    pub role: Role,
    /// The person, with the address that was invited.
    pub account: NewAccount,
}

impl Write for Join {
    type Output = User;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<User, StoreError> {
        let taken = sqlx::query!(
            "UPDATE invitations SET accepted_at = now()
              WHERE id = $1 AND accepted_at IS NULL AND expires_at > now()",
            self.invitation,
        )
        .execute(&mut *on.connection)
        .await?;
        if taken.rows_affected() == 0 {
            return Err(StoreError::Missing);
        }
        self.account
            .insert(on, self.role, SecurityEvent::InvitationAccepted)
            .await
    }
}
