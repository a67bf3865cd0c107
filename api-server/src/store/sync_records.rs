//! Runs of syncs, as people see them.

use jiff_sqlx::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::page::{Cursor, Page, PageRequest};
use crate::routing::{Read, ReadHandle, StoreError};
use crate::store::tasks::Viewer;

/// A run of a sync.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SyncRecord {
    /// Identifies it; it is the id of its task too.
    pub id: Uuid,
    /// From where.
    pub source: String,
    /// To where.
    pub target: String,
    /// `pending`, `running`, `succeeded`, `failed` or `cancelled`.
    pub status: String,
    /// Records that were new or changed.
    pub records: i32,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: jiff::Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<jiff::Timestamp>,
}

struct Row {
    id: Uuid,
    source: String,
    target: String,
    status: String,
    records: i32,
    error: Option<String>,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
}

impl From<Row> for SyncRecord {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            source: row.source,
            target: row.target,
            status: row.status,
            records: row.records,
            error: row.error,
            created_at: row.created_at.to_jiff(),
            finished_at: row.finished_at.map(Timestamp::to_jiff),
        }
    }
}

/// Runs, newest first.
#[derive(Debug)]
pub struct ListSyncs {
    /// Who looks.
    pub viewer: Viewer,
    /// Which part.
    pub page: PageRequest,
}

impl Read for ListSyncs {
    type Output = Page<SyncRecord>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Page<SyncRecord>, StoreError> {
        let (at, id) = self.page.start();
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, source, target, status, records, error, created_at AS "created_at: Timestamp",
                      finished_at AS "finished_at: Timestamp"
                 FROM sync_records WHERE ($1::uuid IS NULL OR user_id = $1)
                  AND (created_at, id) < (COALESCE($2, 'infinity'::timestamptz), $3)
                ORDER BY created_at DESC, id DESC LIMIT $4"#,
            self.viewer.only(),
            at.map(Timestamp::from) as _,
            id,
            self.page.fetch(),
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let records = rows.into_iter().map(SyncRecord::from).collect();
        Ok(Page::cut(records, self.page, |record: &SyncRecord| Cursor {
            at: record.created_at,
            id: record.id,
        }))
    }
}

/// A counted page, for older clients. It reads all rows before it, so its depth is bounded by whoever asks.
#[derive(Debug)]
pub struct CountedSyncs {
    /// Who looks.
    pub viewer: Viewer,
    /// Rows before the page.
    pub offset: i64,
    /// Rows of the page.
    pub limit: i64,
}

impl Read for CountedSyncs {
    /// Rows, and how many there are in all.
    type Output = (Vec<SyncRecord>, i64);

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<(Vec<SyncRecord>, i64), StoreError> {
        let total = sqlx::query_scalar!(
            r#"SELECT count(*) AS "total!" FROM sync_records WHERE $1::uuid IS NULL OR user_id = $1"#,
            self.viewer.only(),
        )
        .fetch_one(&mut *on.connection)
        .await?;
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, source, target, status, records, error, created_at AS "created_at: Timestamp",
                      finished_at AS "finished_at: Timestamp"
                 FROM sync_records WHERE $1::uuid IS NULL OR user_id = $1
                ORDER BY created_at DESC, id DESC OFFSET $2 LIMIT $3"#,
            self.viewer.only(),
            self.offset,
            self.limit,
        )
        .fetch_all(&mut *on.connection)
        .await?;
        Ok((rows.into_iter().map(SyncRecord::from).collect(), total))
    }
}
