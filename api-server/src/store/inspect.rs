//! What PostgreSQL says about itself, for who operates the platform.

use crate::routing::{Read, ReadHandle, StoreError};

/// Rows of a list.
const MOST: i64 = 20;

/// Sessions of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sessions {
    /// Of all API servers.
    pub api: i64,
    /// Of these, in the middle of something.
    pub api_busy: i64,
    /// Of these, in a transaction that does nothing.
    pub api_waiting: i64,
    /// Of anybody.
    pub all: i64,
    /// Most that the server takes.
    pub max: i64,
}

/// Counts sessions.
#[derive(Debug)]
pub struct CountSessions;

impl Read for CountSessions {
    type Output = Sessions;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Sessions, StoreError> {
        Ok(sqlx::query_as!(
            Sessions,
            r#"SELECT count(*) FILTER (WHERE application_name = 'tanka-api') AS "api!",
                      count(*) FILTER (WHERE application_name = 'tanka-api' AND state = 'active' AND pid <> pg_backend_pid())
                          AS "api_busy!",
                      count(*) FILTER (WHERE application_name = 'tanka-api' AND state LIKE 'idle in transaction%')
                          AS "api_waiting!",
                      count(*) AS "all!", current_setting('max_connections')::bigint AS "max!"
                 FROM pg_stat_activity WHERE backend_type = 'client backend'"#
        )
        .fetch_one(&mut *on.connection)
        .await?)
    }
}

/// A statement and its times.
#[derive(Debug, Clone, PartialEq)]
pub struct SlowStatement {
    /// Its text, with placeholders.
    pub statement: String,
    /// How often it ran.
    pub calls: i64,
    /// Mean time in milliseconds.
    pub mean_ms: f64,
    /// Longest time in milliseconds.
    pub max_ms: f64,
    /// All of its time in milliseconds.
    pub total_ms: f64,
}

/// Statements of the API whose mean or longest time is over a threshold, the dearest first.
#[derive(Debug)]
pub struct SlowStatements {
    /// In milliseconds.
    pub threshold_ms: f64,
}

impl Read for SlowStatements {
    type Output = Vec<SlowStatement>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Vec<SlowStatement>, StoreError> {
        Ok(sqlx::query_as!(
            SlowStatement,
            r#"SELECT query AS "statement!", calls AS "calls!", mean_exec_time AS "mean_ms!", max_exec_time AS "max_ms!",
                      total_exec_time AS "total_ms!"
                 FROM pg_stat_statements
                WHERE userid = current_user::regrole AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND (mean_exec_time >= $1 OR max_exec_time >= $1)
                ORDER BY total_exec_time DESC LIMIT $2"#,
            self.threshold_ms,
            MOST,
        )
        .fetch_all(&mut *on.connection)
        .await?)
    }
}

/// An index and its use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexUse {
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// How often it was used since statistics began.
    pub scans: i64,
    /// Its size in bytes.
    pub bytes: i64,
    /// Rows of its table, estimated.
    pub rows: i64,
    /// Whether it can be used.
    pub is_valid: bool,
    /// Whether it also enforces something.
    pub is_unique: bool,
}

/// All indexes.
#[derive(Debug)]
pub struct IndexUses;

impl Read for IndexUses {
    type Output = Vec<IndexUse>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Vec<IndexUse>, StoreError> {
        Ok(sqlx::query_as!(
            IndexUse,
            r#"SELECT s.relname::text AS "table!", s.indexrelname::text AS "name!", COALESCE(s.idx_scan, 0) AS "scans!",
                      pg_relation_size(s.indexrelid) AS "bytes!", GREATEST(c.reltuples, 0)::bigint AS "rows!",
                      i.indisvalid AS "is_valid!", i.indisunique AS "is_unique!"
                 FROM pg_stat_user_indexes s JOIN pg_index i ON i.indexrelid = s.indexrelid
                 JOIN pg_class c ON c.oid = s.relid
                WHERE s.schemaname = 'public' ORDER BY s.relname, s.indexrelname"#
        )
        .fetch_all(&mut *on.connection)
        .await?)
    }
}

/// Blocks that were found in memory, and those that were not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferUse {
    /// Found.
    pub hits: i64,
    /// Read from the system.
    pub reads: i64,
}

/// Counts blocks of this database.
#[derive(Debug)]
pub struct CountBlocks;

impl Read for CountBlocks {
    type Output = BufferUse;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<BufferUse, StoreError> {
        Ok(sqlx::query_as!(
            BufferUse,
            r#"SELECT blks_hit AS "hits!", blks_read AS "reads!" FROM pg_stat_database WHERE datname = current_database()"#
        )
        .fetch_one(&mut *on.connection)
        .await?)
    }
}
