//! Who is asking.

use std::str::FromStr;

use jiff::Timestamp;
use uuid::Uuid;

/// What a person may do in the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, and the tenant itself.
    Owner,
    /// Everything but the tenant itself.
    Admin,
    /// Own data.
    Member,
    /// Own data, reading only.
    Viewer,
}

/// A role that this release does not know.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a role")]
pub struct UnknownRole(String);

impl Role {
    /// Whether the role may change anything.
    pub const fn may_write(self) -> bool {
        !matches!(self, Self::Viewer)
    }

    /// The name that is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
        }
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        [Self::Owner, Self::Admin, Self::Member, Self::Viewer]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// A person with a session that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The session.
    pub session_id: Uuid,
    /// The person.
    pub user_id: Uuid,
    /// The tenant; it comes from the session and from nowhere else.
    pub tenant_id: Uuid,
    /// What the person may do.
    pub role: Role,
    /// When the access token ends.
    pub expires_at: Timestamp,
}
