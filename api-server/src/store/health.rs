//! The two smallest operations that prove something: a write and a read of the heartbeat table.

use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// Writes as durably as any request does.
#[derive(Debug)]
pub struct Touch;

impl Write for Touch {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        sqlx::query!("UPDATE replication_heartbeat SET beat_at = clock_timestamp() WHERE id = 2")
            .execute(&mut *on.connection)
            .await?;
        Ok(())
    }
}

/// Seconds since the heartbeat that the instance has.
#[derive(Debug)]
pub struct BeatAge;

impl Read for BeatAge {
    type Output = f64;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<f64, StoreError> {
        let age = sqlx::query_scalar!(
            r#"SELECT GREATEST(0, extract(epoch FROM clock_timestamp() - beat_at))::float8 AS "age!"
                 FROM replication_heartbeat WHERE id = 1 AND beat_at > '-infinity'"#
        )
        .fetch_optional(&mut *on.connection)
        .await?;
        age.ok_or(StoreError::Missing)
    }
}

/// The newest migration that was applied.
#[derive(Debug)]
pub struct SchemaVersion;

impl Read for SchemaVersion {
    type Output = i64;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<i64, StoreError> {
        // Not a checked macro: the table belongs to the migration tool, which makes it when it first runs.
        let version: Option<i64> =
            sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
                .fetch_one(&mut *on.connection)
                .await?;
        version.ok_or(StoreError::Missing)
    }
}
