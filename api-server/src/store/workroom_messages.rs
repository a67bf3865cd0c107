//! Messages of workrooms.

use jiff_sqlx::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::conversation::Content;
use crate::domain::event::{Channel, EventKind};
use crate::domain::page::{Cursor, Page, PageRequest};
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// A message in a workroom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoomMessage {
    /// Identifies it.
    pub id: Uuid,
    /// The workroom.
    pub workroom_id: Uuid,
    /// Who wrote it; absent when that account is gone.
    pub user_id: Option<Uuid>,
    /// Its text.
    pub content: String,
    /// When it was written.
    pub created_at: jiff::Timestamp,
}

/// Messages of a workroom of which the person is a member, the newest first.
#[derive(Debug)]
pub struct ListRoomMessages {
    /// The person.
    pub user_id: Uuid,
    /// The workroom.
    pub workroom_id: Uuid,
    /// Which part.
    pub page: PageRequest,
}

impl Read for ListRoomMessages {
    type Output = Page<RoomMessage>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Page<RoomMessage>, StoreError> {
        let (at, id) = self.page.start();
        // One row without a message tells an empty page from a room that is not the person's.
        let rows = sqlx::query!(
            r#"SELECT m.id AS "id?", m.user_id AS author, m.content AS "content?", m.created_at AS "created_at?: Timestamp"
                 FROM workroom_members mine JOIN workrooms w ON w.id = mine.workroom_id
                 LEFT JOIN LATERAL (
                      SELECT id, user_id, content, created_at FROM workroom_messages
                       WHERE workroom_id = w.id AND (created_at, id) < (COALESCE($3, 'infinity'::timestamptz), $4)
                       ORDER BY created_at DESC, id DESC LIMIT $5) m ON true
                WHERE mine.workroom_id = $1 AND mine.user_id = $2 AND w.deleted_at IS NULL
                ORDER BY m.created_at DESC, m.id DESC"#,
            self.workroom_id,
            self.user_id,
            at.map(Timestamp::from) as _,
            id,
            self.page.fetch(),
        )
        .fetch_all(&mut *on.connection)
        .await?;
        if rows.is_empty() {
            return Err(StoreError::Missing);
        }
        let messages = rows
            .into_iter()
            .filter_map(|row| {
                Some(RoomMessage {
                    id: row.id?,
                    workroom_id: self.workroom_id,
                    user_id: row.author,
                    content: row.content?,
                    created_at: row.created_at?.to_jiff(),
                })
            })
            .collect();
        Ok(Page::cut(messages, self.page, |message: &RoomMessage| Cursor {
            at: message.created_at,
            id: message.id,
        }))
    }
}

/// Writes a message into a workroom of which the person is a member.
#[derive(Debug)]
pub struct CreateRoomMessage {
    /// Identifies it.
    pub id: Uuid,
    /// Who writes it.
    pub user_id: Uuid,
    /// Where.
    pub workroom_id: Uuid,
    /// Its text.
    pub content: Content,
}

impl Write for CreateRoomMessage {
    type Output = RoomMessage;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<RoomMessage, StoreError> {
        let row = sqlx::query!(
            r#"WITH active AS (
                   UPDATE workrooms w SET active_at = GREATEST(active_at, clock_timestamp())
                    WHERE id = $2 AND deleted_at IS NULL
                      AND EXISTS (SELECT FROM workroom_members m WHERE m.workroom_id = w.id AND m.user_id = $3)
                RETURNING id, tenant_id, active_at
               )
               INSERT INTO workroom_messages (id, tenant_id, workroom_id, user_id, content, created_at)
               SELECT $1, tenant_id, id, $3, $4, active_at FROM active
               RETURNING created_at AS "created_at: Timestamp""#,
            self.id,
            self.workroom_id,
            self.user_id,
            self.content.as_str(),
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?;
        let message = RoomMessage {
            id: self.id,
            workroom_id: self.workroom_id,
            user_id: Some(self.user_id),
            content: self.content.as_str().to_owned(),
            created_at: row.created_at.to_jiff(),
        };
        let room = Channel::Workroom(self.workroom_id);
        on.emit(room, EventKind::WorkroomMessageCreated, &message).await?;
        Ok(message)
    }
}
