//! What the audit log knows: security events, from a closed set.

use std::str::FromStr;

/// A security event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityEvent {
    /// A tenant and its owner were made.
    SignedUp,
    /// Somebody joined a tenant by invitation.
    InvitationAccepted,
    /// A session began.
    LoggedIn,
    /// A wrong password was given for a known account.
    LoginFailed,
    /// A session was ended by its owner.
    LoggedOut,
    /// All sessions were ended by their owner.
    LoggedOutEverywhere,
    /// A refresh token came back after its exchange; its session was ended.
    RefreshReused,
    /// The password was changed; other sessions were ended.
    PasswordChanged,
    /// An account was made by a manager.
    UserCreated,
    /// A role was changed.
    RoleChanged,
    /// An account was locked; its sessions were ended.
    Deactivated,
    /// An account was unlocked.
    Activated,
    /// Somebody was invited.
    Invited,
    /// The tenant itself was changed.
    TenantChanged,
    /// Events are sent to one more endpoint.
    WebhookCreated,
    /// An endpoint or its secret was changed.
    WebhookChanged,
    /// An endpoint was deleted.
    WebhookDeleted,
}

/// All events.
pub const ALL: [SecurityEvent; 17] = [
    SecurityEvent::SignedUp,
    SecurityEvent::InvitationAccepted,
    SecurityEvent::LoggedIn,
    SecurityEvent::LoginFailed,
    SecurityEvent::LoggedOut,
    SecurityEvent::LoggedOutEverywhere,
    SecurityEvent::RefreshReused,
    SecurityEvent::PasswordChanged,
    SecurityEvent::UserCreated,
    SecurityEvent::RoleChanged,
    SecurityEvent::Deactivated,
    SecurityEvent::Activated,
    SecurityEvent::Invited,
    SecurityEvent::TenantChanged,
    SecurityEvent::WebhookCreated,
    SecurityEvent::WebhookChanged,
    SecurityEvent::WebhookDeleted,
];

impl SecurityEvent {
    /// The name that is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignedUp => "signup",
            Self::InvitationAccepted => "invitation.accepted",
            Self::LoggedIn => "login.succeeded",
            Self::LoginFailed => "login.failed",
            Self::LoggedOut => "logout",
            Self::LoggedOutEverywhere => "logout.all",
            Self::RefreshReused => "refresh.reused",
            Self::PasswordChanged => "password.changed",
            Self::UserCreated => "user.created",
            Self::RoleChanged => "user.role_changed",
            Self::Deactivated => "user.deactivated",
            Self::Activated => "user.activated",
            Self::Invited => "invitation.created",
            Self::TenantChanged => "tenant.changed",
            Self::WebhookCreated => "webhook.created",
            Self::WebhookChanged => "webhook.changed",
            Self::WebhookDeleted => "webhook.deleted",
        }
    }
}

/// A name that is no event.
#[derive(Debug, thiserror::Error)]
#[error("must be one of the event types of this API, such as login.failed")]
pub struct UnknownEvent;

impl FromStr for SecurityEvent {
    type Err = UnknownEvent;

    fn from_str(text: &str) -> Result<Self, UnknownEvent> {
        ALL.into_iter()
            .find(|event| event.as_str() == text)
            .ok_or(UnknownEvent)
    }
}

/// Where a request came from, as far as it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Address of the client.
    pub address: Option<String>,
    /// What it calls itself; at most 300 characters.
    pub user_agent: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_differ() {
        for event in ALL {
            assert_eq!(event.as_str().parse::<SecurityEvent>().ok(), Some(event));
        }
        assert!("login".parse::<SecurityEvent>().is_err());
    }
}
