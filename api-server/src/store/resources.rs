//! Files of people, in chunks. Whoever has a file sees it, and members of its workroom do.

use jiff_sqlx::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::page::{Cursor, Page, PageRequest};
use crate::domain::resource::StoredIn;
use crate::http::answer::List;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// A file.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Resource {
    /// Identifies it.
    pub id: Uuid,
    /// Who uploaded it.
    pub user_id: Uuid,
    /// The workroom whose members see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workroom_id: Option<Uuid>,
    /// Its name.
    pub name: String,
    /// What it is.
    pub content_type: String,
    /// Bytes.
    pub size: i64,
    /// SHA-256 of its content, in hexadecimal digits; its tag too.
    pub sha256: String,
    /// When it was uploaded.
    pub created_at: jiff::Timestamp,
    /// Bytes of a chunk.
    #[serde(skip, default)]
    pub chunk_size: i32,
    /// Whether they are in an object store.
    #[serde(skip, default)]
    pub in_objects: bool,
}

struct Row {
    id: Uuid,
    user_id: Uuid,
    workroom_id: Option<Uuid>,
    name: String,
    content_type: String,
    size: i64,
    sha256: String,
    created_at: Timestamp,
    chunk_size: i32,
    in_objects: bool,
}

impl From<Row> for Resource {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            user_id: row.user_id,
            workroom_id: row.workroom_id,
            name: row.name,
            content_type: row.content_type,
            size: row.size,
            sha256: row.sha256,
            created_at: row.created_at.to_jiff(),
            chunk_size: row.chunk_size,
            in_objects: row.in_objects,
        }
    }
}

/// One file that the person may see.
#[derive(Debug)]
pub struct FindResource {
    /// Who looks.
    pub user_id: Uuid,
    /// Which.
    pub id: Uuid,
}

impl Read for FindResource {
    type Output = Resource;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Resource, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT r.id, r.user_id, r.workroom_id, r.name, r.content_type, r.size AS "size!", encode(r.digest, 'hex') AS "sha256!",
                      r.created_at AS "created_at: Timestamp", r.chunk_size, r.stored_in = 's3' AS "in_objects!"
                 FROM resources r
                WHERE r.id = $1 AND r.is_ready AND CASE WHEN r.workroom_id IS NULL THEN r.user_id = $2 ELSE EXISTS (
                      SELECT FROM workroom_members m JOIN workrooms w ON w.id = m.workroom_id
                       WHERE m.workroom_id = r.workroom_id AND m.user_id = $2 AND w.deleted_at IS NULL) END"#,
            self.id,
            self.user_id,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .map(Resource::from)
        .ok_or(StoreError::Missing)
    }
}

/// Files that the person may see, newest first.
#[derive(Debug)]
pub struct ListResources {
    /// Who looks.
    pub user_id: Uuid,
    /// Which part.
    pub page: PageRequest,
}

impl Read for ListResources {
    type Output = List<Resource>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<List<Resource>, StoreError> {
        let (at, id) = self.page.start();
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT r.id, r.user_id, r.workroom_id, r.name, r.content_type, r.size AS "size!", encode(r.digest, 'hex') AS "sha256!",
                      r.created_at AS "created_at: Timestamp", r.chunk_size, r.stored_in = 's3' AS "in_objects!"
                 FROM resources r
                WHERE r.is_ready AND (r.created_at, r.id) < (COALESCE($2, 'infinity'::timestamptz), $3)
                  AND CASE WHEN r.workroom_id IS NULL THEN r.user_id = $1 ELSE r.workroom_id = ANY (ARRAY(
                      SELECT m.workroom_id FROM workroom_members m JOIN workrooms w ON w.id = m.workroom_id
                       WHERE m.user_id = $1 AND w.deleted_at IS NULL)) END
                ORDER BY r.created_at DESC, r.id DESC LIMIT $4"#,
            self.user_id,
            at.map(Timestamp::from) as _,
            id,
            self.page.fetch(),
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let resources = rows.into_iter().map(Resource::from).collect();
        Ok(List::from(Page::cut(
            resources,
            self.page,
            |resource: &Resource| Cursor {
                at: resource.created_at,
                id: resource.id,
            },
        )))
    }
}

/// One chunk of a file that was found.
#[derive(Debug)]
pub struct FindChunk {
    /// The file.
    pub resource_id: Uuid,
    /// Its place, from 0 on.
    pub place: i32,
}

impl Read for FindChunk {
    type Output = Vec<u8>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Vec<u8>, StoreError> {
        sqlx::query_scalar!(
            "SELECT data FROM resource_chunks WHERE resource_id = $1 AND place = $2",
            self.resource_id,
            self.place,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)
    }
}

/// Begins an upload; nobody sees it before it is whole.
#[derive(Debug)]
pub struct BeginResource {
    /// Identifies it.
    pub id: Uuid,
    /// Who uploads.
    pub user_id: Uuid,
    /// The workroom whose members are to see it.
    pub workroom_id: Option<Uuid>,
    /// Its name.
    pub name: String,
    /// What it is.
    pub content_type: String,
    /// Where its chunks go.
    pub stored_in: StoredIn,
}

impl Write for BeginResource {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        let begun = sqlx::query!(
            "INSERT INTO resources (id, tenant_id, user_id, workroom_id, name, content_type, chunk_size, stored_in)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE $4::uuid IS NULL OR EXISTS (
                    SELECT FROM workroom_members m JOIN workrooms w ON w.id = m.workroom_id
                     WHERE m.workroom_id = $4 AND m.user_id = $3 AND w.deleted_at IS NULL)",
            self.id,
            on.tenant,
            self.user_id,
            self.workroom_id,
            self.name,
            self.content_type,
            i32::try_from(self.stored_in.chunk()).unwrap_or(i32::MAX),
            self.stored_in.as_str(),
        )
        .execute(&mut *on.connection)
        .await?;
        if begun.rows_affected() == 0 {
            return Err(StoreError::Missing);
        }
        Ok(())
    }
}

/// Stores a chunk of an upload.
#[derive(Debug)]
pub struct StoreChunk {
    /// The upload.
    pub resource_id: Uuid,
    /// Its place.
    pub place: i32,
    /// Its bytes.
    pub data: Vec<u8>,
}

impl Write for StoreChunk {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        // A commit whose answer was lost is not repeated, so the same chunk does not come twice.
        sqlx::query!(
            "INSERT INTO resource_chunks (resource_id, place, tenant_id, data) VALUES ($1, $2, $3, $4)",
            self.resource_id,
            self.place,
            on.tenant,
            self.data,
        )
        .execute(&mut *on.connection)
        .await?;
        Ok(())
    }
}

/// Ends an upload: from now on the file is there.
#[derive(Debug)]
pub struct FinishResource {
    /// The upload.
    pub id: Uuid,
    /// Who uploads.
    pub user_id: Uuid,
    /// Bytes in all.
    pub size: i64,
    /// SHA-256 of them.
    pub digest: [u8; 32],
}

impl Write for FinishResource {
    type Output = Resource;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Resource, StoreError> {
        let row = sqlx::query_as!(
            Row,
            r#"UPDATE resources SET size = $2, digest = $3, is_ready = true WHERE id = $1 AND NOT is_ready
               RETURNING id, user_id, workroom_id, name, content_type, size AS "size!", encode(digest, 'hex') AS "sha256!",
                         created_at AS "created_at: Timestamp", chunk_size, stored_in = 's3' AS "in_objects!""#,
            self.id,
            self.size,
            &self.digest,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?;
        on.activity(self.user_id, "resource.created", self.id).await?;
        let made = Resource::from(row);
        let told = json!({
            "id": made.id, "workroom_id": made.workroom_id, "user_id": self.user_id, "created_at": made.created_at,
        });
        on.announce("resource.created", told).await?;
        Ok(made)
    }
}

/// Deletes a file, or an upload that failed. Only who uploaded it may.
#[derive(Debug)]
pub struct DeleteResource {
    /// Who.
    pub user_id: Uuid,
    /// Which.
    pub id: Uuid,
}

impl Write for DeleteResource {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        let gone = sqlx::query!(
            "DELETE FROM resources WHERE id = $1 AND user_id = $2 RETURNING is_ready, workroom_id",
            self.id,
            self.user_id,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?;
        if gone.is_ready {
            on.activity(self.user_id, "resource.deleted", self.id).await?;
            let told = json!({"id": self.id, "workroom_id": gone.workroom_id, "user_id": self.user_id});
            on.announce("resource.deleted", told).await?;
        }
        Ok(())
    }
}
