//! Members of workrooms.

use jiff_sqlx::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::workrooms::{FindWorkroom, admit, role};
use crate::domain::event::{Channel, EventKind};
use crate::domain::page::{Cursor, Page, PageRequest};
use crate::domain::principal::Principal;
use crate::domain::workroom::{RoomAction, RoomRole};
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// Members of one workroom, at most.
const MOST_MEMBERS: i64 = 10_000;

/// A member of a workroom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoomMember {
    /// The workroom.
    pub workroom_id: Uuid,
    /// The person.
    pub user_id: Uuid,
    /// The person's name.
    pub name: String,
    /// What the person is in the room.
    pub role: RoomRole,
    /// Since when.
    pub joined_at: jiff::Timestamp,
}

struct Row {
    user_id: Uuid,
    name: String,
    role: String,
    joined_at: Timestamp,
}

impl Row {
    fn member(self, workroom_id: Uuid) -> Result<RoomMember, StoreError> {
        Ok(RoomMember {
            workroom_id,
            user_id: self.user_id,
            name: self.name,
            role: role(&self.role)?,
            joined_at: self.joined_at.to_jiff(),
        })
    }
}

/// Members of a workroom, the newest first.
#[derive(Debug)]
pub struct ListRoomMembers {
    /// Who asks.
    pub person: Principal,
    /// The workroom.
    pub workroom_id: Uuid,
    /// Which part.
    pub page: PageRequest,
}

impl Read for ListRoomMembers {
    type Output = Page<RoomMember>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Page<RoomMember>, StoreError> {
        let find = FindWorkroom {
            person: self.person.clone(),
            id: self.workroom_id,
        };
        find.run(on).await?;
        let (at, id) = self.page.start();
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT m.user_id, u.name, m.role, m.joined_at AS "joined_at: Timestamp"
                 FROM workroom_members m JOIN users u ON u.id = m.user_id
                WHERE m.workroom_id = $1 AND (m.joined_at, m.user_id) < (COALESCE($2, 'infinity'::timestamptz), $3)
                ORDER BY m.joined_at DESC, m.user_id DESC LIMIT $4"#,
            self.workroom_id,
            at.map(Timestamp::from) as _,
            id,
            self.page.fetch(),
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let members: Result<Vec<_>, _> = rows.into_iter().map(|row| row.member(self.workroom_id)).collect();
        Ok(Page::cut(members?, self.page, |member: &RoomMember| Cursor {
            at: member.joined_at,
            id: member.user_id,
        }))
    }
}

/// Makes a person of the tenant a member, or changes what a member is.
#[derive(Debug)]
pub struct PutRoomMember {
    /// Who does it.
    pub person: Principal,
    /// The workroom.
    pub workroom_id: Uuid,
    /// Who becomes a member.
    pub user_id: Uuid,
    /// As what.
    pub role: RoomRole,
}

impl Write for PutRoomMember {
    type Output = RoomMember;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<RoomMember, StoreError> {
        admit(on, &self.person, self.workroom_id, RoomAction::Govern).await?;
        // Row-level security hides people of other tenants from the SELECT; a foreign key alone would accept them.
        let row = sqlx::query_as!(
            Row,
            r#"WITH person AS (SELECT id, tenant_id, name FROM users WHERE id = $2 AND is_active), put AS (
                   INSERT INTO workroom_members AS m (workroom_id, user_id, tenant_id, role)
                   SELECT $1, id, tenant_id, $3 FROM person
                   ON CONFLICT (workroom_id, user_id) DO UPDATE SET role = excluded.role
                   RETURNING m.user_id, m.role, m.joined_at
               )
               SELECT put.user_id, person.name, put.role, put.joined_at AS "joined_at: Timestamp" FROM put, person"#,
            self.workroom_id,
            self.user_id,
            self.role.as_str(),
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?;
        let full = sqlx::query_scalar!(
            r#"SELECT count(*) > $2 AS "full!" FROM workroom_members WHERE workroom_id = $1"#,
            self.workroom_id,
            MOST_MEMBERS,
        )
        .fetch_one(&mut *on.connection)
        .await?;
        if full {
            return Err(StoreError::Conflict("The workroom is full."));
        }
        let member = row.member(self.workroom_id)?;
        let room = Channel::Workroom(self.workroom_id);
        on.emit(room, EventKind::WorkroomMemberAdded, &member).await?;
        on.emit(Channel::User(self.user_id), EventKind::WorkroomJoined, &member)
            .await?;
        on.activity(
            self.person.user_id,
            EventKind::WorkroomMemberAdded.as_str(),
            self.workroom_id,
        )
        .await?;
        Ok(member)
    }
}

/// Ends a membership: everybody may end the own one.
#[derive(Debug)]
pub struct RemoveRoomMember {
    /// Who does it.
    pub person: Principal,
    /// The workroom.
    pub workroom_id: Uuid,
    /// Whose membership ends.
    pub user_id: Uuid,
}

/// Body of the events of a removal.
#[derive(Debug, Serialize, Deserialize)]
pub struct Removed {
    /// The workroom.
    pub workroom_id: Uuid,
    /// Who is no longer a member.
    pub user_id: Uuid,
}

impl Write for RemoveRoomMember {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        let action = if self.user_id == self.person.user_id {
            RoomAction::Leave
        } else {
            RoomAction::Govern
        };
        admit(on, &self.person, self.workroom_id, action).await?;
        let gone = sqlx::query!(
            "DELETE FROM workroom_members WHERE workroom_id = $1 AND user_id = $2",
            self.workroom_id,
            self.user_id,
        )
        .execute(&mut *on.connection)
        .await?;
        if gone.rows_affected() == 0 {
            return Err(StoreError::Missing);
        }
        let removed = Removed {
            workroom_id: self.workroom_id,
            user_id: self.user_id,
        };
        let room = Channel::Workroom(self.workroom_id);
        on.emit(room, EventKind::WorkroomMemberRemoved, &removed).await?;
        on.emit(Channel::User(self.user_id), EventKind::WorkroomLeft, &removed)
            .await?;
        // Beside the event, which a process may get late: subscriptions of this person are looked at again.
        on.rights_changed(self.user_id).await?;
        on.activity(
            self.person.user_id,
            EventKind::WorkroomMemberRemoved.as_str(),
            self.workroom_id,
        )
        .await
    }
}

/// Of which of these workrooms a person is a member, and whether a session is still good.
#[derive(Debug)]
pub struct Standing {
    /// The session.
    pub session_id: Uuid,
    /// Its person.
    pub user_id: Uuid,
    /// The workrooms.
    pub workrooms: Vec<Uuid>,
}

/// What a person may listen to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stands {
    /// Whether the session is good and the person may log in.
    pub session: bool,
    /// The workrooms of which the person is a member.
    pub workrooms: Vec<Uuid>,
}

impl Read for Standing {
    type Output = Stands;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Stands, StoreError> {
        let row = sqlx::query!(
            r#"SELECT EXISTS (SELECT FROM sessions s JOIN users u ON u.id = s.user_id
                               WHERE s.id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND u.is_active) AS "session!",
                      ARRAY(SELECT m.workroom_id FROM workroom_members m JOIN workrooms w ON w.id = m.workroom_id
                             WHERE m.user_id = $2 AND m.workroom_id = ANY ($3) AND w.deleted_at IS NULL) AS "workrooms!""#,
            self.session_id,
            self.user_id,
            &self.workrooms,
        )
        .fetch_one(&mut *on.connection)
        .await?;
        Ok(Stands {
            session: row.session,
            workrooms: row.workrooms,
        })
    }
}
