//! Messages of a conversation.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::conversation::Content;
use crate::domain::event::{Channel, EventKind};
use crate::domain::page::{Cursor, Page, PageRequest};
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// Identifies it.
    pub id: Uuid,
    /// The conversation that it belongs to.
    pub conversation_id: Uuid,
    /// Who wrote it.
    pub user_id: Uuid,
    /// Its text.
    pub content: String,
    /// When it was written.
    pub created_at: jiff::Timestamp,
}

/// Messages of one of the person's conversations, newest first.
#[derive(Debug)]
pub struct ListMessages {
    /// The person.
    pub user_id: Uuid,
    /// The conversation.
    pub conversation_id: Uuid,
    /// Which part.
    pub page: PageRequest,
}

impl Read for ListMessages {
    type Output = Page<Message>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Page<Message>, StoreError> {
        let after = self.page.after;
        // One row without a message tells an empty page from a conversation that is not there.
        let rows = sqlx::query!(
            r#"SELECT m.id AS "id?", m.user_id AS "author?", m.content AS "content?",
                      m.created_at AS "created_at?: jiff_sqlx::Timestamp"
                 FROM conversations c
                 LEFT JOIN LATERAL (
                      SELECT id, user_id, content, created_at FROM messages
                       WHERE conversation_id = c.id
                         AND (created_at, id) < (COALESCE($3, 'infinity'::timestamptz), $4)
                       ORDER BY created_at DESC, id DESC LIMIT $5) m ON true
                WHERE c.id = $1 AND c.user_id = $2 AND c.deleted_at IS NULL
                ORDER BY m.created_at DESC, m.id DESC"#,
            self.conversation_id,
            self.user_id,
            after.map(|cursor| jiff_sqlx::Timestamp::from(cursor.at)) as _,
            after.map_or(Uuid::max(), |cursor| cursor.id),
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
                Some(Message {
                    id: row.id?,
                    conversation_id: self.conversation_id,
                    user_id: row.author?,
                    content: row.content?,
                    created_at: row.created_at?.to_jiff(),
                })
            })
            .collect();
        Ok(Page::cut(messages, self.page, |message: &Message| Cursor {
            at: message.created_at,
            id: message.id,
        }))
    }
}

/// Writes a message.
#[derive(Debug)]
pub struct CreateMessage {
    /// Identifies it.
    pub id: Uuid,
    /// Who writes it.
    pub user_id: Uuid,
    /// Where.
    pub conversation_id: Uuid,
    /// Its text.
    pub content: Content,
}

impl Write for CreateMessage {
    type Output = Message;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Message, StoreError> {
        let row = sqlx::query!(
            r#"WITH active AS (
                   UPDATE conversations SET last_message_at = GREATEST(last_message_at, clock_timestamp())
                    WHERE id = $2 AND user_id = $3 AND deleted_at IS NULL
                RETURNING id, tenant_id, last_message_at
               )
               INSERT INTO messages (id, tenant_id, conversation_id, user_id, content, created_at)
               SELECT $1, tenant_id, id, $3, $4, last_message_at FROM active
               RETURNING created_at AS "created_at: jiff_sqlx::Timestamp""#,
            self.id,
            self.conversation_id,
            self.user_id,
            self.content.as_str(),
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?;
        let message = Message {
            id: self.id,
            conversation_id: self.conversation_id,
            user_id: self.user_id,
            content: self.content.as_str().to_owned(),
            created_at: row.created_at.to_jiff(),
        };
        on.emit(Channel::User(self.user_id), EventKind::MessageCreated, &message)
            .await?;
        Ok(message)
    }
}
