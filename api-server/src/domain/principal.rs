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

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// To see own data, and what the tenant shares.
    Read,
    /// To change own data, and what the tenant shares.
    Write,
    /// To manage people of the tenant and to see what they did.
    Manage,
    /// To change the tenant itself.
    Own,
    /// To operate the platform, across tenants.
    Operate,
}

/// All permissions.
pub const PERMISSIONS: [Permission; 5] = [
    Permission::Read,
    Permission::Write,
    Permission::Manage,
    Permission::Own,
    Permission::Operate,
];

impl Permission {
    /// The name that descriptions of routes use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Manage => "manage",
            Self::Own => "own",
            Self::Operate => "operate",
        }
    }
}

/// A name that is no permission.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a permission")]
pub struct UnknownPermission(String);

impl FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(text: &str) -> Result<Self, UnknownPermission> {
        PERMISSIONS
            .into_iter()
            .find(|permission| permission.as_str() == text)
            .ok_or_else(|| UnknownPermission(text.to_owned()))
    }
}

/// A role that this release does not know.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a role")]
pub struct UnknownRole(String);

impl Role {
    /// Whether the role carries a permission within the tenant. No role operates the platform.
    pub const fn may(self, permission: Permission) -> bool {
        match permission {
            Permission::Read => true,
            Permission::Write => !matches!(self, Self::Viewer),
            Permission::Manage => matches!(self, Self::Owner | Self::Admin),
            Permission::Own => matches!(self, Self::Owner),
            Permission::Operate => false,
        }
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
    /// Whether the person operates the platform.
    pub is_operator: bool,
    /// When the access token ends.
    pub expires_at: Timestamp,
}

impl Principal {
    /// Whether the person has a permission.
    pub const fn may(&self, permission: Permission) -> bool {
        match permission {
            Permission::Operate => self.is_operator,
            _ => self.role.may(permission),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API5: the whole matrix, as it was reviewed.
    #[test]
    fn roles_carry_exactly_these_permissions() {
        let matrix: Vec<String> = [Role::Owner, Role::Admin, Role::Member, Role::Viewer]
            .into_iter()
            .map(|role| {
                let may: Vec<_> = PERMISSIONS
                    .into_iter()
                    .filter(|permission| role.may(*permission))
                    .map(Permission::as_str)
                    .collect();
                format!("{}: {}", role.as_str(), may.join(" "))
            })
            .collect();
        assert_eq!(
            matrix,
            [
                "owner: read write manage own",
                "admin: read write manage",
                "member: read write",
                "viewer: read",
            ]
        );
    }
}
