//! Workrooms: who is a member sees them.

use jiff_sqlx::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::conversation::Title;
use crate::domain::event::{Channel, EventKind};
use crate::domain::page::{Cursor, Page, PageRequest};
use crate::domain::principal::Principal;
use crate::domain::workroom::{RoomAction, RoomRole, Verdict, judge};
use crate::routing::statement::Session;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// A workroom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Workroom {
    /// Identifies it.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// What the caller is in it; absent for a manager of the tenant who is no member, and in events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoomRole>,
    /// Its members.
    pub members: i64,
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// When its name last changed.
    pub updated_at: jiff::Timestamp,
    /// When somebody last wrote into it.
    pub active_at: jiff::Timestamp,
}

struct Row {
    id: Uuid,
    name: String,
    role: Option<String>,
    members: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    active_at: Timestamp,
}

impl Row {
    fn workroom(self) -> Result<Workroom, StoreError> {
        Ok(Workroom {
            id: self.id,
            name: self.name,
            role: self.role.as_deref().map(role).transpose()?,
            members: self.members,
            created_at: self.created_at.to_jiff(),
            updated_at: self.updated_at.to_jiff(),
            active_at: self.active_at.to_jiff(),
        })
    }
}

/// Reads a stored role.
pub(super) fn role(text: &str) -> Result<RoomRole, StoreError> {
    text.parse()
        .map_err(|error| StoreError::Corrupt(format!("{error}")))
}

/// Workrooms of which the person is a member, the most recently active first.
#[derive(Debug)]
pub struct ListWorkrooms {
    /// The person.
    pub user_id: Uuid,
    /// Which part.
    pub page: PageRequest,
}

impl Read for ListWorkrooms {
    type Output = Page<Workroom>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Page<Workroom>, StoreError> {
        let (at, id) = self.page.start();
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT w.id, w.name, mine.role AS "role?", counted.members AS "members!", w.created_at AS "created_at: Timestamp",
                      w.updated_at AS "updated_at: Timestamp", w.active_at AS "active_at: Timestamp"
                 FROM workroom_members mine JOIN workrooms w ON w.id = mine.workroom_id
                CROSS JOIN LATERAL (SELECT count(*) AS members FROM workroom_members m WHERE m.workroom_id = w.id) counted
                WHERE mine.user_id = $1 AND w.deleted_at IS NULL
                  AND (w.active_at, w.id) < (COALESCE($2, 'infinity'::timestamptz), $3)
                ORDER BY w.active_at DESC, w.id DESC LIMIT $4"#,
            self.user_id,
            at.map(Timestamp::from) as _,
            id,
            self.page.fetch(),
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let rooms: Result<Vec<_>, _> = rows.into_iter().map(Row::workroom).collect();
        Ok(Page::cut(rooms?, self.page, |room: &Workroom| Cursor {
            at: room.active_at,
            id: room.id,
        }))
    }
}

/// One workroom, if the person may see it.
#[derive(Debug)]
pub struct FindWorkroom {
    /// Who asks.
    pub person: Principal,
    /// Which.
    pub id: Uuid,
}

impl Read for FindWorkroom {
    type Output = Workroom;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Workroom, StoreError> {
        let room = find(on.connection, self.id, self.person.user_id).await?;
        match judge(&self.person, room.role, RoomAction::See) {
            Verdict::Allowed => Ok(room),
            Verdict::Denied | Verdict::Hidden => Err(StoreError::Missing),
        }
    }
}

async fn find(on: &mut Session, id: Uuid, user_id: Uuid) -> Result<Workroom, StoreError> {
    sqlx::query_as!(
        Row,
        r#"SELECT w.id, w.name, (SELECT m.role FROM workroom_members m WHERE m.workroom_id = w.id AND m.user_id = $2) AS role,
                  (SELECT count(*) FROM workroom_members m WHERE m.workroom_id = w.id) AS "members!",
                  w.created_at AS "created_at: Timestamp", w.updated_at AS "updated_at: Timestamp",
                  w.active_at AS "active_at: Timestamp"
             FROM workrooms w WHERE w.id = $1 AND w.deleted_at IS NULL"#,
        id,
        user_id,
    )
    .fetch_optional(on)
    .await?
    .ok_or(StoreError::Missing)?
    .workroom()
}

/// Refuses what the person may not do in a workroom. In a write, the room stays as it is until the transaction ends.
pub(super) async fn admit(
    on: &mut WriteHandle<'_>,
    person: &Principal,
    id: Uuid,
    action: RoomAction,
) -> Result<Option<RoomRole>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT (SELECT m.role FROM workroom_members m WHERE m.workroom_id = w.id AND m.user_id = $2) AS role
             FROM workrooms w WHERE w.id = $1 AND w.deleted_at IS NULL FOR NO KEY UPDATE"#,
        id,
        person.user_id,
    )
    .fetch_optional(&mut *on.connection)
    .await?
    .ok_or(StoreError::Missing)?;
    let membership = row.role.as_deref().map(role).transpose()?;
    match judge(person, membership, action) {
        Verdict::Allowed => Ok(membership),
        Verdict::Denied => Err(StoreError::Denied(
            "Only owners of the workroom and managers of the tenant may do this.",
        )),
        Verdict::Hidden => Err(StoreError::Missing),
    }
}

/// Makes a workroom; who makes it owns it.
#[derive(Debug)]
pub struct CreateWorkroom {
    /// Identifies it.
    pub id: Uuid,
    /// Who makes it.
    pub user_id: Uuid,
    /// Its name.
    pub name: Title,
}

impl Write for CreateWorkroom {
    type Output = Workroom;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Workroom, StoreError> {
        sqlx::query!(
            "WITH room AS (
                 INSERT INTO workrooms (id, tenant_id, name, created_by) VALUES ($1, $2, $3, $4) RETURNING id, tenant_id, created_by
             )
             INSERT INTO workroom_members (workroom_id, user_id, tenant_id, role)
             SELECT id, created_by, tenant_id, 'owner' FROM room",
            self.id,
            on.tenant,
            self.name.as_str(),
            self.user_id,
        )
        .execute(&mut *on.connection)
        .await?;
        let room = find(on.connection, self.id, self.user_id).await?;
        on.emit(Channel::User(self.user_id), EventKind::WorkroomJoined, &room)
            .await?;
        on.activity(self.user_id, "workroom.created", self.id).await?;
        let told = json!({"id": room.id, "user_id": self.user_id, "created_at": room.created_at});
        on.announce("workroom.created", told).await?;
        Ok(room)
    }
}

/// Changes a workroom's name.
#[derive(Debug)]
pub struct RenameWorkroom {
    /// Who does it.
    pub person: Principal,
    /// Which.
    pub id: Uuid,
    /// The new name.
    pub name: Title,
}

impl Write for RenameWorkroom {
    type Output = Workroom;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Workroom, StoreError> {
        admit(on, &self.person, self.id, RoomAction::Govern).await?;
        sqlx::query!(
            "UPDATE workrooms SET name = $2, updated_at = now() WHERE id = $1",
            self.id,
            self.name.as_str(),
        )
        .execute(&mut *on.connection)
        .await?;
        let room = find(on.connection, self.id, self.person.user_id).await?;
        let told = Workroom {
            role: None,
            ..room.clone()
        };
        on.emit(Channel::Workroom(self.id), EventKind::WorkroomUpdated, &told)
            .await?;
        on.activity(self.person.user_id, EventKind::WorkroomUpdated.as_str(), self.id)
            .await?;
        Ok(room)
    }
}

/// Deletes a workroom: it disappears at once, its rows stay.
#[derive(Debug)]
pub struct DeleteWorkroom {
    /// Who does it.
    pub person: Principal,
    /// Which.
    pub id: Uuid,
}

/// Body of the event of a deletion.
#[derive(Debug, Serialize)]
struct Deleted {
    workroom_id: Uuid,
}

impl Write for DeleteWorkroom {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        admit(on, &self.person, self.id, RoomAction::Govern).await?;
        sqlx::query!("UPDATE workrooms SET deleted_at = now() WHERE id = $1", self.id)
            .execute(&mut *on.connection)
            .await?;
        let deleted = Deleted { workroom_id: self.id };
        on.emit(Channel::Workroom(self.id), EventKind::WorkroomDeleted, &deleted)
            .await?;
        // Beside the event, which a process may get late: subscriptions of these people are looked at again.
        let members = sqlx::query_scalar!(
            "INSERT INTO access_changes (tenant_id, user_id)
             SELECT tenant_id, user_id FROM workroom_members WHERE workroom_id = $1 RETURNING user_id",
            self.id,
        )
        .fetch_all(&mut *on.connection)
        .await?;
        for member in members {
            on.note_person(member);
        }
        on.activity(self.person.user_id, EventKind::WorkroomDeleted.as_str(), self.id)
            .await
    }
}
