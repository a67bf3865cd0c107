//! Sessions and what opens them.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::logs::Entry;
use crate::domain::audit::{Origin, SecurityEvent};
use crate::domain::event::{Channel, EventKind};
use crate::domain::page::{Cursor, Page, PageRequest};
use crate::domain::principal::{Principal, Role, UnknownRole};
use crate::keys::TokenHash;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// Hashes of a pair of tokens and how long they are good.
#[derive(Debug, Clone, Copy)]
pub struct TokenPair {
    /// Hash of the access token.
    pub access: TokenHash,
    /// How long it is good.
    pub access_ttl: Duration,
    /// Hash of the refresh token.
    pub refresh: TokenHash,
    /// How long it is good.
    pub refresh_ttl: Duration,
}

/// A session to be made.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Identifies it.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// Its tokens.
    pub tokens: TokenPair,
    /// From where it was begun.
    pub origin: Origin,
}

impl NewSession {
    pub(super) async fn insert(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        sqlx::query!(
            r#"INSERT INTO sessions (id, tenant_id, user_id, access_hash, refresh_hash, access_expires_at, refresh_expires_at,
                                     user_agent, address)
               VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), now() + make_interval(secs => $7), $8, $9)"#,
            self.id,
            on.tenant,
            self.user_id,
            &self.tokens.access,
            &self.tokens.refresh,
            self.tokens.access_ttl.as_secs_f64(),
            self.tokens.refresh_ttl.as_secs_f64(),
            self.origin.user_agent,
            self.origin.address,
        )
        .execute(&mut *on.connection)
        .await?;
        Ok(())
    }
}

/// Begins a session; the password was checked.
#[derive(Debug)]
pub struct LogIn {
    /// The session.
    pub session: NewSession,
    /// A new hash of the password, when the old one was made with weaker parameters.
    pub rehashed: Option<String>,
}

impl Write for LogIn {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        if let Some(hash) = &self.rehashed {
            sqlx::query!(
                "UPDATE users SET password_hash = $2 WHERE id = $1",
                self.session.user_id,
                hash
            )
            .execute(&mut *on.connection)
            .await?;
        }
        self.session.insert(on).await?;
        let session = &self.session;
        on.audit(&Entry::own(
            SecurityEvent::LoggedIn,
            session.user_id,
            &session.origin,
        ))
        .await
    }
}

/// Finds whose access token this is, before a tenant is known.
#[derive(Debug)]
pub struct FindSession(pub TokenHash);

impl Read for FindSession {
    type Output = Option<Principal>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Option<Principal>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT session_id AS "session_id!", user_id AS "user_id!", tenant_id AS "tenant_id!", role AS "role!",
                      is_operator AS "is_operator!", expires_at AS "expires_at!: jiff_sqlx::Timestamp"
                 FROM auth_find_access($1)"#,
            &self.0,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .map(Row::principal)
        .transpose()
    }
}

/// Takes a ticket, which thereby ends.
#[derive(Debug)]
pub struct TakeTicket(pub TokenHash);

impl Write for TakeTicket {
    type Output = Option<Principal>;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Option<Principal>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT session_id AS "session_id!", user_id AS "user_id!", tenant_id AS "tenant_id!", role AS "role!",
                      false AS "is_operator!", expires_at AS "expires_at!: jiff_sqlx::Timestamp"
                 FROM auth_take_ticket($1)"#,
            &self.0,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .map(Row::principal)
        .transpose()
    }
}

struct Row {
    session_id: Uuid,
    user_id: Uuid,
    tenant_id: Uuid,
    role: String,
    is_operator: bool,
    expires_at: jiff_sqlx::Timestamp,
}

impl Row {
    fn principal(self) -> Result<Principal, StoreError> {
        Ok(Principal {
            session_id: self.session_id,
            user_id: self.user_id,
            tenant_id: self.tenant_id,
            role: self
                .role
                .parse::<Role>()
                .map_err(|error: UnknownRole| StoreError::Corrupt(error.to_string()))?,
            is_operator: self.is_operator,
            expires_at: self.expires_at.to_jiff(),
        })
    }
}

/// Makes a ticket for a WebSocket.
#[derive(Debug)]
pub struct MakeTicket {
    /// The session that it opens a socket for.
    pub session_id: Uuid,
    /// Its hash.
    pub hash: TokenHash,
    /// How long it is good.
    pub ttl: Duration,
}

impl Write for MakeTicket {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        sqlx::query!(
            r#"INSERT INTO ws_tickets (hash, tenant_id, session_id, expires_at)
               VALUES ($1, $2, $3, now() + make_interval(secs => $4))"#,
            &self.hash,
            on.tenant,
            self.session_id,
            self.ttl.as_secs_f64(),
        )
        .execute(&mut *on.connection)
        .await?;
        Ok(())
    }
}

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

/// A session, as its owner sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Session {
    /// Identifies it.
    pub id: Uuid,
    /// Whether it is the one that asks.
    pub current: bool,
    /// When it was begun.
    pub created_at: jiff::Timestamp,
    /// When its tokens were last exchanged.
    pub refreshed_at: jiff::Timestamp,
    /// When it ends unless it is refreshed.
    pub expires_at: jiff::Timestamp,
    /// What began it, as it calls itself.
    pub user_agent: Option<String>,
    /// From which address it was begun.
    pub address: Option<String>,
}

/// The person's sessions that can still be used, the newest first.
#[derive(Debug)]
pub struct ListSessions {
    /// The person.
    pub user_id: Uuid,
    /// The session that asks.
    pub current: Uuid,
    /// Which part.
    pub page: PageRequest,
}

impl Read for ListSessions {
    type Output = Page<Session>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Page<Session>, StoreError> {
        let (at, id) = self.page.start();
        let rows = sqlx::query!(
            r#"SELECT id, created_at AS "created_at: jiff_sqlx::Timestamp", refreshed_at AS "refreshed_at: jiff_sqlx::Timestamp",
                      refresh_expires_at AS "expires_at: jiff_sqlx::Timestamp", user_agent, address
                 FROM sessions
                WHERE user_id = $1 AND revoked_at IS NULL AND refresh_expires_at > now()
                  AND (created_at, id) < (COALESCE($2, 'infinity'::timestamptz), $3)
                ORDER BY created_at DESC, id DESC LIMIT $4"#,
            self.user_id,
            at.map(jiff_sqlx::Timestamp::from) as _,
            id,
            self.page.fetch(),
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let sessions = rows
            .into_iter()
            .map(|row| Session {
                id: row.id,
                current: row.id == self.current,
                created_at: row.created_at.to_jiff(),
                refreshed_at: row.refreshed_at.to_jiff(),
                expires_at: row.expires_at.to_jiff(),
                user_agent: row.user_agent,
                address: row.address,
            })
            .collect();
        Ok(Page::cut(sessions, self.page, |session: &Session| Cursor {
            at: session.created_at,
            id: session.id,
        }))
    }
}

/// Body of the event that closes the sockets of a session, in every process.
#[derive(Debug, Serialize, serde::Deserialize)]
pub struct SessionRevoked {
    /// The session.
    pub session_id: Uuid,
}

/// Ends a session; answers whether there was one.
async fn revoke(on: &mut WriteHandle<'_>, session_id: Uuid, user_id: Uuid) -> Result<bool, StoreError> {
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
pub(super) async fn revoke_all(
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
