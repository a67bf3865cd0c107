//! SQL, one file for each aggregate. Nothing outside of this module and `routing` writes SQL; nothing in it knows HTTP.

pub mod access;
pub mod accounts;
pub mod approximate;
pub mod conversations;
pub mod deliveries;
pub mod embeddings;
pub mod everyone;
pub mod health;
pub mod idempotency;
pub mod inspect;
pub mod invalidations;
pub mod invitations;
pub mod jobs;
pub mod logs;
pub mod maintenance;
pub mod memories;
pub mod messages;
pub mod objects;
pub mod outbox;
pub mod people;
pub mod plans;
pub mod resources;
pub mod schedules;
pub mod search;
pub mod sessions;
pub mod sync_records;
pub mod syncs;
pub mod tasks;
pub mod tenants;
pub mod usage;
pub mod webhooks;
pub mod workroom_members;
pub mod workroom_messages;
pub mod workrooms;

use crate::routing::StoreError;

/// Turns the violation of a named constraint into a meaning; messages are never parsed.
pub(crate) fn on_constraint(error: sqlx::Error, constraint: &'static str) -> StoreError {
    match &error {
        sqlx::Error::Database(refused) if refused.constraint() == Some(constraint) => {
            StoreError::Taken(constraint)
        }
        _ => StoreError::Database(error),
    }
}
