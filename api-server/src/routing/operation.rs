//! What runs on an instance: reads and writes as values, so that they can be run again elsewhere.

use std::future::Future;

use serde::Serialize;
use sqlx::error::DatabaseError;
use tokio::time::Instant;
use uuid::Uuid;

use super::choose::Role;
use super::position::Position;
use super::statement::Session;
use crate::cache::Target;
use crate::domain::event::{Channel, Event, EventKind};
use crate::store::{invalidations, outbox};

/// In whose name, how long, and how fresh.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// The tenant whose rows are visible; none before it is known.
    pub tenant: Option<Uuid>,
    /// When the answer is worthless.
    pub deadline: Instant,
    /// The reader's own last write.
    pub at_least: Option<Position>,
    /// Whether only the primary will do.
    pub primary_only: bool,
}

/// Which instance answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Name of the configuration.
    pub instance: String,
    /// What it was.
    pub role: Role,
    /// Every write up to here was visible, if that is known.
    pub position: Option<Position>,
}

/// A committed write.
#[derive(Debug, Clone)]
pub struct Written<T> {
    /// What it answers.
    pub output: T,
    /// Where it is in the log; absent if nothing was written now.
    pub position: Position,
    /// Which instance took it.
    pub served: Served,
    /// Whether the answer is that of an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// Makes a repeated request have the effect of one.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// Whose key.
    pub user_id: Uuid,
    /// The key.
    pub key: String,
    /// Digest of the request; the same key with another request is a mistake.
    pub fingerprint: [u8; 32],
}

/// An operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such row, or it belongs to somebody else.
    #[error("not found")]
    Missing,
    /// Something unique is taken; names the constraint.
    #[error("{0} is taken")]
    Taken(&'static str),
    /// An idempotency key came with another request than before.
    #[error("idempotency key was used for another request")]
    KeyReused,
    /// The caller may not do this.
    #[error("denied: {0}")]
    Denied(&'static str),
    /// It does not fit what is there.
    #[error("conflict: {0}")]
    Conflict(&'static str),
    /// Nobody can serve it now; later it may work.
    #[error("database is unavailable: {0}")]
    Unavailable(&'static str),
    /// The write may or may not have happened.
    #[error("the outcome of the write is unknown")]
    Unknown,
    /// The database refused.
    #[error("database operation failed")]
    Database(#[from] sqlx::Error),
    /// Data could not be written or read as JSON.
    #[error("stored data is not valid")]
    Encoding(#[from] serde_json::Error),
    /// Data in a table is not what this release expects.
    #[error("stored data is not valid: {0}")]
    Corrupt(String),
}

/// Whether the database lacks room, locks or time for a statement, by SQLSTATE: `insufficient_resources`, `lock_not_available`,
/// `query_canceled`, `serialization_failure` and `deadlock_detected` pass, and are no mistakes of ours.
pub fn is_busy(error: &sqlx::Error) -> bool {
    let state = error.as_database_error().and_then(DatabaseError::code);
    state.is_some_and(|state| {
        state.starts_with("53") || matches!(&*state, "55P03" | "57014" | "40001" | "40P01")
    })
}

/// A connection that can only read: its transaction is read-only, on the primary too.
#[derive(Debug)]
pub struct ReadHandle<'c> {
    pub(crate) connection: &'c mut Session,
}

/// A transaction on the primary.
#[derive(Debug)]
pub struct WriteHandle<'c> {
    pub(crate) connection: &'c mut Session,
    /// The tenant of the transaction.
    pub(crate) tenant: Option<Uuid>,
    pub(super) events: Vec<Event>,
    /// People whose rights the transaction changes.
    pub(super) people: Vec<Uuid>,
    pub(super) invalidations: Vec<(i64, Target)>,
}

impl WriteHandle<'_> {
    /// Writes an event into the outbox; it is published when the transaction is committed.
    pub async fn emit(
        &mut self,
        channel: Channel,
        kind: EventKind,
        body: &impl Serialize,
    ) -> Result<(), StoreError> {
        let tenant = self
            .tenant
            .ok_or_else(|| StoreError::Corrupt("event without a tenant".to_owned()))?;
        let body = serde_json::to_string(body)?;
        let event = outbox::append(self.connection, tenant, channel, kind, body).await?;
        self.events.push(event);
        Ok(())
    }

    /// Remembers whom the transaction concerns, for after the commit.
    pub(crate) fn note_person(&mut self, user_id: Uuid) {
        if !self.people.contains(&user_id) {
            self.people.push(user_id);
        }
    }

    /// Notes in the transaction that cached answers are replaced by it; they are gone before the write is answered.
    pub async fn invalidate(&mut self, targets: &[Target]) -> Result<(), StoreError> {
        let ids = invalidations::record(&mut *self.connection, targets).await?;
        self.invalidations
            .extend(ids.into_iter().zip(targets.iter().copied()));
        Ok(())
    }
}

/// Something that can be read.
pub trait Read: Sync {
    /// What it answers.
    type Output: Send;

    /// Reads; may run more than once.
    fn run(&self, on: &mut ReadHandle<'_>) -> impl Future<Output = Result<Self::Output, StoreError>> + Send;
}

/// Something that changes rows.
pub trait Write: Send + Sync + 'static {
    /// What it answers.
    type Output: Send + 'static;

    /// Writes within one transaction; may run more than once, each time in a new one.
    fn run(&self, on: &mut WriteHandle<'_>) -> impl Future<Output = Result<Self::Output, StoreError>> + Send;
}
