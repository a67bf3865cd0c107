//! The end of sessions, and who is told of it.

use serde::Serialize;
use uuid::Uuid;

use crate::domain::audit::{Origin, SecurityEvent};
use crate::domain::event::{Channel, EventKind};
use crate::routing::{StoreError, Write, WriteHandle};
use crate::store::logs::Entry;

/// Ends a session.
#[derive(Debug)]
pub struct LogOut {
    /// The session.
    pub session_id: Uuid,
    /// Its person.
    pub user_id: Uuid,
    /// From where.
    pub origin: Origin,
}

impl Write for LogOut {
    type Output = ();

    /// A session that is not the person's, or has ended, is missing.
    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        if !revoke(on, self.session_id, self.user_id).await? {
            return Err(StoreError::Missing);
        }
        on.audit(&Entry::own(SecurityEvent::LoggedOut, self.user_id, &self.origin))
            .await
    }
}

/// Ends all sessions of the person.
#[derive(Debug)]
pub struct LogOutEverywhere {
    /// The person.
    pub user_id: Uuid,
    /// From where.
    pub origin: Origin,
}

impl Write for LogOutEverywhere {
    type Output = usize;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<usize, StoreError> {
        let ended = revoke_all(on, self.user_id, None).await?;
        let entry = Entry::own(SecurityEvent::LoggedOutEverywhere, self.user_id, &self.origin);
        on.audit(&entry.with(format!("{ended} sessions"))).await?;
        Ok(ended)
    }
}

/// Replaces the password; the old one was checked. All sessions but the one that asks end.
#[derive(Debug)]
pub struct ChangePassword {
    /// The person.
    pub user_id: Uuid,
    /// The session that stays.
    pub session_id: Uuid,
    /// Hash of the new password.
    pub password_hash: String,
    /// From where.
    pub origin: Origin,
}

impl Write for ChangePassword {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE users SET password_hash = $2, updated_at = now() WHERE id = $1",
            self.user_id,
            self.password_hash,
        )
        .execute(&mut *on.connection)
        .await?;
        revoke_all(on, self.user_id, Some(self.session_id)).await?;
        on.audit(&Entry::own(
            SecurityEvent::PasswordChanged,
            self.user_id,
            &self.origin,
        ))
        .await
    }
}

/// Body of the event that closes the sockets of a session, in every process.
#[derive(Debug, Serialize, serde::Deserialize)]
pub struct SessionRevoked {
    /// The session.
    pub session_id: Uuid,
}

/// Ends a session; answers whether there was one.
pub(super) async fn revoke(
    on: &mut WriteHandle<'_>,
    session_id: Uuid,
    user_id: Uuid,
) -> Result<bool, StoreError> {
    let ended = sqlx::query!(
        "UPDATE sessions SET revoked_at = now() WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL",
        session_id,
        user_id,
    )
    .execute(&mut *on.connection)
    .await?;
    if ended.rows_affected() == 0 {
        return Ok(false);
    }
    on.rights_changed(user_id).await?;
    tell(on, session_id, user_id).await?;
    Ok(true)
}

/// Ends all sessions of a person, but for one that may stay; answers how many there were.
pub(in crate::store) async fn revoke_all(
    on: &mut WriteHandle<'_>,
    user_id: Uuid,
    but: Option<Uuid>,
) -> Result<usize, StoreError> {
    let ended = sqlx::query_scalar!(
        "UPDATE sessions SET revoked_at = now()
          WHERE user_id = $1 AND revoked_at IS NULL AND ($2::uuid IS NULL OR id <> $2) RETURNING id",
        user_id,
        but,
    )
    .fetch_all(&mut *on.connection)
    .await?;
    on.rights_changed(user_id).await?;
    for session_id in &ended {
        tell(on, *session_id, user_id).await?;
    }
    Ok(ended.len())
}

/// Tells the sockets of a session that it has ended.
async fn tell(on: &mut WriteHandle<'_>, session_id: Uuid, user_id: Uuid) -> Result<(), StoreError> {
    on.emit(
        Channel::User(user_id),
        EventKind::SessionRevoked,
        &SessionRevoked { session_id },
    )
    .await
}
