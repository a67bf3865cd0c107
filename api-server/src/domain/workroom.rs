//! Who may do what in a workroom. Pure.

use std::str::FromStr;

use super::principal::{Permission, Principal};

/// What a member may do in a workroom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoomRole {
    /// To change the room and its members.
    Owner,
    /// To read and write messages.
    Member,
}

/// A role that this release does not know.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a role of a workroom")]
pub struct UnknownRoomRole(String);

impl RoomRole {
    /// The name that is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Member => "member",
        }
    }
}

impl FromStr for RoomRole {
    type Err = UnknownRoomRole;

    fn from_str(text: &str) -> Result<Self, UnknownRoomRole> {
        [Self::Owner, Self::Member]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownRoomRole(text.to_owned()))
    }
}

/// What is done to a workroom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomAction {
    /// To see that it is there, and its members.
    See,
    /// To read and write its messages.
    Talk,
    /// To rename or delete it, and to add or remove others.
    Govern,
    /// To leave it.
    Leave,
}

/// Whether somebody may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Allowed,
    /// Somebody else may.
    Denied,
    /// For this person there is no such room.
    Hidden,
}

/// Decides. Who manages the tenant governs all of its rooms and reads none of them: for that a manager becomes a member, and the members
/// are told.
pub fn judge(person: &Principal, membership: Option<RoomRole>, action: RoomAction) -> Verdict {
    let manages = person.may(Permission::Manage);
    match (action, membership) {
        (RoomAction::See | RoomAction::Talk | RoomAction::Leave, Some(_))
        | (RoomAction::Govern, Some(RoomRole::Owner)) => Verdict::Allowed,
        (RoomAction::See | RoomAction::Govern, _) if manages => Verdict::Allowed,
        (RoomAction::Govern, Some(RoomRole::Member)) => Verdict::Denied,
        (_, None) => Verdict::Hidden,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rstest::rstest;
    use uuid::Uuid;

    use super::super::principal::Role;
    use super::*;

    #[rstest]
    #[case(Role::Member, Some(RoomRole::Owner), "allowed allowed allowed allowed")]
    #[case(Role::Member, Some(RoomRole::Member), "allowed allowed denied allowed")]
    #[case(Role::Member, None, "hidden hidden hidden hidden")]
    #[case(Role::Admin, Some(RoomRole::Member), "allowed allowed allowed allowed")]
    #[case(Role::Admin, None, "allowed hidden allowed hidden")]
    #[case(Role::Viewer, Some(RoomRole::Member), "allowed allowed denied allowed")]
    fn members_see_and_owners_govern(
        #[case] role: Role,
        #[case] membership: Option<RoomRole>,
        #[case] verdicts: &str,
    ) {
        let person = Principal {
            session_id: Uuid::nil(),
            user_id: Uuid::nil(),
            tenant_id: Uuid::nil(),
            role,
            is_operator: false,
            expires_at: Timestamp::UNIX_EPOCH,
        };
        let judged = [
            RoomAction::See,
            RoomAction::Talk,
            RoomAction::Govern,
            RoomAction::Leave,
        ]
        .map(|action| format!("{:?}", judge(&person, membership, action)).to_lowercase());
        assert_eq!(judged.join(" "), verdicts);
    }
}
