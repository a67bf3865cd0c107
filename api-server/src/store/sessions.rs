//! Sessions and what opens them.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::logs::Entry;
use crate::domain::audit::{Origin, SecurityEvent};
use crate::domain::page::{Cursor, Page, PageRequest};
use crate::domain::principal::{Principal, Role, UnknownRole};
use crate::keys::TokenHash;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

mod ending;
mod refresh;

pub(super) use self::ending::revoke_all;
pub use self::ending::{ChangePassword, LogOut, LogOutEverywhere, SessionRevoked};
pub use self::refresh::{FindRefresh, Refresh, RefreshOwner, Refreshed};

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
