//! Memories of one person.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::cache::tiers::Cached;
use crate::cache::{Entity, Kind};
use crate::domain::memory::{MemoryType, Note};
use crate::domain::page::{Cursor, Page, PageRequest};
use crate::http::answer::List;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// A memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Memory {
    /// Identifies it.
    pub id: Uuid,
    /// What kind of note it is.
    pub memory_type: String,
    /// Its text.
    pub content: String,
    /// When it was written.
    pub created_at: jiff::Timestamp,
}

pub(super) struct Row {
    id: Uuid,
    memory_type: String,
    content: String,
    created_at: jiff_sqlx::Timestamp,
}

impl From<Row> for Memory {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            memory_type: row.memory_type,
            content: row.content,
            created_at: row.created_at.to_jiff(),
        }
    }
}

/// Lists of memories of a person.
pub(super) fn entity(tenant: Option<Uuid>, user_id: Uuid) -> Entity {
    Entity {
        kind: Kind::Memories,
        tenant,
        id: Some(user_id),
    }
}

/// The person's memories, newest first, of one type or of all.
#[derive(Debug, Clone)]
pub struct ListMemories {
    /// The person.
    pub user_id: Uuid,
    /// Only of this type.
    pub memory_type: Option<MemoryType>,
    /// Which part.
    pub page: PageRequest,
}

impl Cached for ListMemories {
    fn entity(&self, tenant: Option<Uuid>) -> Entity {
        entity(tenant, self.user_id)
    }

    fn arguments(&self) -> impl Serialize {
        let after = self.page.after.map(Cursor::encode);
        let memory_type = self.memory_type.as_ref().map(|kind| kind.as_str().to_owned());
        ("list", memory_type, after, self.page.limit)
    }
}

impl Read for ListMemories {
    type Output = List<Memory>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<List<Memory>, StoreError> {
        let after = self.page.after;
        let at = after.map(|cursor| jiff_sqlx::Timestamp::from(cursor.at));
        let id = after.map_or(Uuid::max(), |cursor| cursor.id);
        // Two statements, each with an index in the order of its list.
        let rows = match &self.memory_type {
            None => {
                sqlx::query_as!(
                    Row,
                    r#"SELECT id, memory_type, content, created_at AS "created_at: jiff_sqlx::Timestamp" FROM memories
                        WHERE user_id = $1 AND (created_at, id) < (COALESCE($2, 'infinity'::timestamptz), $3)
                        ORDER BY created_at DESC, id DESC LIMIT $4"#,
                    self.user_id,
                    at as _,
                    id,
                    self.page.fetch(),
                )
                .fetch_all(&mut *on.connection)
                .await?
            }
            Some(memory_type) => {
                sqlx::query_as!(
                    Row,
                    r#"SELECT id, memory_type, content, created_at AS "created_at: jiff_sqlx::Timestamp" FROM memories
                        WHERE user_id = $1 AND memory_type = $5
                          AND (created_at, id) < (COALESCE($2, 'infinity'::timestamptz), $3)
                        ORDER BY created_at DESC, id DESC LIMIT $4"#,
                    self.user_id,
                    at as _,
                    id,
                    self.page.fetch(),
                    memory_type.as_str(),
                )
                .fetch_all(&mut *on.connection)
                .await?
            }
        };
        let rows: Vec<Memory> = rows.into_iter().map(Memory::from).collect();
        let page = Page::cut(rows, self.page, |memory| Cursor {
            at: memory.created_at,
            id: memory.id,
        });
        Ok(List::from(page))
    }
}

/// One memory of the person.
#[derive(Debug, Clone)]
pub struct FindMemory {
    /// The person.
    pub user_id: Uuid,
    /// Which.
    pub id: Uuid,
}

impl Read for FindMemory {
    type Output = Memory;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Memory, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id, memory_type, content, created_at AS "created_at: jiff_sqlx::Timestamp" FROM memories
                WHERE id = $1 AND user_id = $2"#,
            self.id,
            self.user_id,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .map(Memory::from)
        .ok_or(StoreError::Missing)
    }
}

/// Writes a memory down.
#[derive(Debug)]
pub struct CreateMemory {
    /// Identifies it.
    pub id: Uuid,
    /// The person.
    pub user_id: Uuid,
    /// What kind of note it is.
    pub memory_type: MemoryType,
    /// Its text.
    pub note: Note,
    /// Whether a vector is to be computed for it.
    pub embed: bool,
}

impl Write for CreateMemory {
    type Output = Memory;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Memory, StoreError> {
        let created_at = sqlx::query_scalar!(
            r#"INSERT INTO memories (id, tenant_id, user_id, memory_type, content) VALUES ($1, $2, $3, $4, $5)
               RETURNING created_at AS "created_at: jiff_sqlx::Timestamp""#,
            self.id,
            on.tenant,
            self.user_id,
            self.memory_type.as_str(),
            self.note.as_str(),
        )
        .fetch_one(&mut *on.connection)
        .await?;
        if self.embed {
            sqlx::query!(
                "INSERT INTO embedding_queue (memory_id, tenant_id) VALUES ($1, $2)",
                self.id,
                on.tenant,
            )
            .execute(&mut *on.connection)
            .await?;
        }
        on.invalidate(&[entity(on.tenant, self.user_id).into()]).await?;
        Ok(Memory {
            id: self.id,
            memory_type: self.memory_type.as_str().to_owned(),
            content: self.note.as_str().to_owned(),
            created_at: created_at.to_jiff(),
        })
    }
}

/// Deletes a memory, for good.
#[derive(Debug)]
pub struct DeleteMemory {
    /// The person.
    pub user_id: Uuid,
    /// Which.
    pub id: Uuid,
}

impl Write for DeleteMemory {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        let gone = sqlx::query!(
            "DELETE FROM memories WHERE id = $1 AND user_id = $2",
            self.id,
            self.user_id,
        )
        .execute(&mut *on.connection)
        .await?;
        if gone.rows_affected() == 0 {
            return Err(StoreError::Missing);
        }
        on.invalidate(&[entity(on.tenant, self.user_id).into()]).await
    }
}
