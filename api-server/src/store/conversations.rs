//! Conversations of one person.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::conversation::Title;
use crate::domain::event::{Channel, EventKind};
use crate::domain::page::{Cursor, Page, PageRequest};
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Conversation {
    /// Identifies it.
    pub id: Uuid,
    /// Its title.
    pub title: String,
    /// When it was begun.
    pub created_at: jiff::Timestamp,
    /// When its title last changed.
    pub updated_at: jiff::Timestamp,
    /// Text of its last message.
    pub last_message_content: Option<String>,
    /// Time of its last message.
    pub last_message_at: Option<jiff::Timestamp>,
}

/// A conversation as a row of the list, with what the list is sorted by.
struct Listed {
    conversation: Conversation,
    active_at: jiff::Timestamp,
}

/// The person's conversations, the most recently active first, each with its last message: one query.
#[derive(Debug)]
pub struct ListConversations {
    /// The person.
    pub user_id: Uuid,
    /// Which part.
    pub page: PageRequest,
}

impl Read for ListConversations {
    type Output = Page<Conversation>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Page<Conversation>, StoreError> {
        let after = self.page.after;
        let rows = sqlx::query!(
            r#"SELECT c.id, c.title, c.created_at AS "created_at: jiff_sqlx::Timestamp",
                      c.updated_at AS "updated_at: jiff_sqlx::Timestamp",
                      c.last_message_at AS "active_at: jiff_sqlx::Timestamp",
                      m.content AS "content?", m.created_at AS "sent_at?: jiff_sqlx::Timestamp"
                 FROM conversations c
                 LEFT JOIN LATERAL (
                      SELECT content, created_at FROM messages
                       WHERE conversation_id = c.id ORDER BY created_at DESC, id DESC LIMIT 1) m ON true
                WHERE c.user_id = $1 AND c.deleted_at IS NULL
                  AND (c.last_message_at, c.id) < (COALESCE($2, 'infinity'::timestamptz), $3)
                ORDER BY c.last_message_at DESC, c.id DESC
                LIMIT $4"#,
            self.user_id,
            after.map(|cursor| jiff_sqlx::Timestamp::from(cursor.at)) as _,
            after.map_or(Uuid::max(), |cursor| cursor.id),
            self.page.fetch(),
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let rows = rows
            .into_iter()
            .map(|row| Listed {
                conversation: Conversation {
                    id: row.id,
                    title: row.title,
                    created_at: row.created_at.to_jiff(),
                    updated_at: row.updated_at.to_jiff(),
                    last_message_content: row.content,
                    last_message_at: row.sent_at.map(jiff_sqlx::Timestamp::to_jiff),
                },
                active_at: row.active_at.to_jiff(),
            })
            .collect();
        let page = Page::cut(rows, self.page, |row: &Listed| Cursor {
            at: row.active_at,
            id: row.conversation.id,
        });
        Ok(Page {
            items: page.items.into_iter().map(|row| row.conversation).collect(),
            next: page.next,
        })
    }
}

/// One conversation of the person.
#[derive(Debug)]
pub struct FindConversation {
    /// The person.
    pub user_id: Uuid,
    /// Which.
    pub id: Uuid,
}

impl Read for FindConversation {
    type Output = Conversation;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Conversation, StoreError> {
        let row = sqlx::query!(
            r#"SELECT c.title, c.created_at AS "created_at: jiff_sqlx::Timestamp",
                      c.updated_at AS "updated_at: jiff_sqlx::Timestamp",
                      m.content AS "content?", m.created_at AS "sent_at?: jiff_sqlx::Timestamp"
                 FROM conversations c
                 LEFT JOIN LATERAL (
                      SELECT content, created_at FROM messages
                       WHERE conversation_id = c.id ORDER BY created_at DESC, id DESC LIMIT 1) m ON true
                WHERE c.id = $1 AND c.user_id = $2 AND c.deleted_at IS NULL"#,
            self.id,
            self.user_id,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?;
        Ok(Conversation {
            id: self.id,
            title: row.title,
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
            last_message_content: row.content,
            last_message_at: row.sent_at.map(jiff_sqlx::Timestamp::to_jiff),
        })
    }
}

/// Begins a conversation.
#[derive(Debug)]
pub struct CreateConversation {
    /// Identifies it.
    pub id: Uuid,
    /// The person.
    pub user_id: Uuid,
    /// Its title.
    pub title: Title,
}

impl Write for CreateConversation {
    type Output = Conversation;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Conversation, StoreError> {
        let row = sqlx::query!(
            r#"INSERT INTO conversations (id, tenant_id, user_id, title) VALUES ($1, $2, $3, $4)
               RETURNING created_at AS "created_at: jiff_sqlx::Timestamp""#,
            self.id,
            on.tenant,
            self.user_id,
            self.title.as_str(),
        )
        .fetch_one(&mut *on.connection)
        .await?;
        let conversation = Conversation {
            id: self.id,
            title: self.title.as_str().to_owned(),
            created_at: row.created_at.to_jiff(),
            updated_at: row.created_at.to_jiff(),
            last_message_content: None,
            last_message_at: None,
        };
        on.emit(
            Channel::User(self.user_id),
            EventKind::ConversationCreated,
            &conversation,
        )
        .await?;
        on.activity(self.user_id, EventKind::ConversationCreated.as_str(), self.id)
            .await?;
        Ok(conversation)
    }
}

/// Changes the title.
#[derive(Debug)]
pub struct RenameConversation {
    /// The person.
    pub user_id: Uuid,
    /// Which.
    pub id: Uuid,
    /// The new title.
    pub title: Title,
}

impl Write for RenameConversation {
    type Output = Conversation;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Conversation, StoreError> {
        let changed = sqlx::query!(
            "UPDATE conversations SET title = $3, updated_at = now() WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL",
            self.id,
            self.user_id,
            self.title.as_str(),
        )
        .execute(&mut *on.connection)
        .await?;
        if changed.rows_affected() == 0 {
            return Err(StoreError::Missing);
        }
        let find = FindConversation {
            user_id: self.user_id,
            id: self.id,
        };
        let conversation = find
            .run(&mut ReadHandle {
                connection: &mut *on.connection,
            })
            .await?;
        on.emit(
            Channel::User(self.user_id),
            EventKind::ConversationUpdated,
            &conversation,
        )
        .await?;
        on.activity(self.user_id, EventKind::ConversationUpdated.as_str(), self.id)
            .await?;
        Ok(conversation)
    }
}

/// Deletes a conversation: it disappears at once, its rows stay.
#[derive(Debug)]
pub struct DeleteConversation {
    /// The person.
    pub user_id: Uuid,
    /// Which.
    pub id: Uuid,
}

/// Body of the event of a deletion.
#[derive(Debug, Serialize)]
struct Deleted {
    id: Uuid,
}

impl Write for DeleteConversation {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        let changed = sqlx::query!(
            "UPDATE conversations SET deleted_at = now() WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL",
            self.id,
            self.user_id,
        )
        .execute(&mut *on.connection)
        .await?;
        if changed.rows_affected() == 0 {
            return Err(StoreError::Missing);
        }
        on.emit(
            Channel::User(self.user_id),
            EventKind::ConversationDeleted,
            &Deleted { id: self.id },
        )
        .await?;
        on.activity(self.user_id, EventKind::ConversationDeleted.as_str(), self.id)
            .await
    }
}
