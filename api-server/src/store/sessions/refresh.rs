//! Refresh tokens: each is exchanged once, and one that comes back ends its session.

use std::time::Duration;

use uuid::Uuid;

use super::TokenPair;
use super::ending::revoke;
use crate::domain::audit::{Origin, SecurityEvent};
use crate::keys::TokenHash;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};
use crate::store::logs::Entry;

/// Whose refresh token this is, current or exchanged already.
#[derive(Debug, Clone, Copy)]
pub struct RefreshOwner {
    /// The session.
    pub session_id: Uuid,
    /// Its tenant.
    pub tenant_id: Uuid,
    /// Its person.
    pub user_id: Uuid,
}

/// Finds whose refresh token this is, before a tenant is known.
#[derive(Debug)]
pub struct FindRefresh(pub TokenHash);

impl Read for FindRefresh {
    type Output = Option<RefreshOwner>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Option<RefreshOwner>, StoreError> {
        let found = sqlx::query_as!(
            RefreshOwner,
            r#"SELECT session_id AS "session_id!", tenant_id AS "tenant_id!", user_id AS "user_id!"
                 FROM auth_find_refresh($1)"#,
            &self.0,
        )
        .fetch_optional(&mut *on.connection)
        .await?;
        Ok(found)
    }
}

/// Exchanges a refresh token.
#[derive(Debug)]
pub struct Refresh {
    /// Whose it is.
    pub owner: RefreshOwner,
    /// The token that was presented.
    pub presented: TokenHash,
    /// What replaces it.
    pub tokens: TokenPair,
    /// How long after its login a session can be refreshed.
    pub max_age: Duration,
    /// From where.
    pub origin: Origin,
}

/// What became of a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// It was exchanged.
    Exchanged,
    /// It was exchanged a moment ago by another request of the same client.
    Raced,
    /// It came back long after it was exchanged, so somebody else has it: the session was ended.
    Reused,
    /// It is no longer good.
    Ended,
}

impl Write for Refresh {
    type Output = Refreshed;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Refreshed, StoreError> {
        let exchanged = sqlx::query!(
            r#"UPDATE sessions
                  SET access_hash = $3, refresh_hash = $4, refreshed_at = now(),
                      access_expires_at = now() + make_interval(secs => $5),
                      refresh_expires_at = now() + make_interval(secs => $6)
                WHERE id = $1 AND refresh_hash = $2 AND revoked_at IS NULL AND refresh_expires_at > now()
                  AND created_at > now() - make_interval(secs => $7)
                  AND EXISTS (SELECT FROM users WHERE users.id = sessions.user_id AND is_active)"#,
            self.owner.session_id,
            &self.presented,
            &self.tokens.access,
            &self.tokens.refresh,
            self.tokens.access_ttl.as_secs_f64(),
            self.tokens.refresh_ttl.as_secs_f64(),
            self.max_age.as_secs_f64(),
        )
        .execute(&mut *on.connection)
        .await?;
        if exchanged.rows_affected() == 1 {
            sqlx::query!(
                "INSERT INTO used_refresh_tokens (hash, tenant_id, session_id) VALUES ($1, $2, $3)",
                &self.presented,
                on.tenant,
                self.owner.session_id,
            )
            .execute(&mut *on.connection)
            .await?;
            // The old access token has ended with the exchange.
            on.rights_changed(self.owner.user_id).await?;
            return Ok(Refreshed::Exchanged);
        }
        let used = sqlx::query_scalar!(
            r#"SELECT used_at > now() - interval '10 seconds' AS "recent!" FROM used_refresh_tokens WHERE hash = $1"#,
            &self.presented,
        )
        .fetch_optional(&mut *on.connection)
        .await?;
        match used {
            None => Ok(Refreshed::Ended),
            Some(true) => Ok(Refreshed::Raced),
            Some(false) => {
                revoke(on, self.owner.session_id, self.owner.user_id).await?;
                on.audit(&Entry::own(
                    SecurityEvent::RefreshReused,
                    self.owner.user_id,
                    &self.origin,
                ))
                .await?;
                Ok(Refreshed::Reused)
            }
        }
    }
}
