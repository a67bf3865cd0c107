//! What sockets are told, and on which channel.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::keys::Keys;
use crate::routing::Position;

/// Where events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// All sockets of one person.
    User(Uuid),
    /// All sockets of a tenant.
    Tenant(Uuid),
    /// Sockets of members of a workroom that asked for it.
    Workroom(Uuid),
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Tenant(id) => write!(f, "tenant:{id}:broadcast"),
            Self::Workroom(id) => write!(f, "workroom:{id}:updates"),
        }
    }
}

impl Channel {
    /// Reads a channel's name.
    pub fn parse(name: &str) -> Option<Self> {
        let (kind, id) = name.split_once(':')?;
        match kind {
            "user" => id.parse().ok().map(Self::User),
            "tenant" => id.strip_suffix(":broadcast")?.parse().ok().map(Self::Tenant),
            "workroom" => id.strip_suffix(":updates")?.parse().ok().map(Self::Workroom),
            _ => None,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A message was written.
    MessageCreated,
    /// A conversation was begun.
    ConversationCreated,
    /// Its title changed.
    ConversationUpdated,
    /// It was deleted.
    ConversationDeleted,
    /// Somebody who manages the tenant told everybody something.
    TenantBroadcast,
    /// A session ended; its sockets are closed, and clients see a closed socket instead of this event.
    SessionRevoked,
    /// Somebody wrote into a workroom.
    WorkroomMessageCreated,
    /// A workroom has another name.
    WorkroomUpdated,
    /// A workroom was deleted; nobody is subscribed to it any more.
    WorkroomDeleted,
    /// Somebody became a member of a workroom.
    WorkroomMemberAdded,
    /// Somebody is no longer a member of a workroom, and no longer subscribed to it.
    WorkroomMemberRemoved,
    /// Tells a person that it is a member of a workroom now.
    WorkroomJoined,
    /// Tells a person that it is no longer a member of a workroom.
    WorkroomLeft,
    /// Tells a person that a task that it asked for has ended, was cancelled, or waits for another attempt.
    TaskUpdated,
}

impl EventKind {
    /// The name that clients see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MessageCreated => "message.created",
            Self::ConversationCreated => "conversation.created",
            Self::ConversationUpdated => "conversation.updated",
            Self::ConversationDeleted => "conversation.deleted",
            Self::TenantBroadcast => "tenant.broadcast",
            Self::SessionRevoked => "session.revoked",
            Self::WorkroomMessageCreated => "workroom.message.created",
            Self::WorkroomUpdated => "workroom.updated",
            Self::WorkroomDeleted => "workroom.deleted",
            Self::WorkroomMemberAdded => "workroom.member.added",
            Self::WorkroomMemberRemoved => "workroom.member.removed",
            Self::WorkroomJoined => "workroom.joined",
            Self::WorkroomLeft => "workroom.left",
            Self::TaskUpdated => "task.updated",
        }
    }
}

/// An event with its place in its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The channel.
    pub channel: Channel,
    /// Which count of positions this is; another epoch means that it started again.
    pub epoch: Uuid,
    /// Place in the channel, without gaps.
    pub position: i64,
    /// Identifies the event.
    pub id: Uuid,
    /// Name of what happened.
    pub kind: String,
    /// Details, as JSON.
    pub body: String,
    /// When it was written.
    pub at: Timestamp,
    /// An instance that is here in the log has what the event tells of; none until the change is committed.
    pub covered_by: Option<Position>,
}

/// The form in which an event reaches clients, and other processes through Redis.
#[derive(Debug, Serialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    channel: &'a str,
    epoch: Uuid,
    offset: i64,
    id: Uuid,
    event: &'a str,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    consistency_token: Option<String>,
    data: &'a serde_json::value::RawValue,
}

impl Event {
    /// Serialised once, however many sockets it goes to. The keys sign the position with which a client reads what it was told of.
    pub fn frame(&self, keys: &Keys) -> Result<String, serde_json::Error> {
        let data = serde_json::from_str(&self.body)?;
        serde_json::to_string(&Frame {
            kind: "event",
            channel: &self.channel.to_string(),
            epoch: self.epoch,
            offset: self.position,
            id: self.id,
            event: &self.kind,
            at: self.at,
            consistency_token: self.covered_by.map(|position| position.to_token(keys)),
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_read_back() {
        for channel in [
            Channel::User(Uuid::from_u128(7)),
            Channel::Tenant(Uuid::from_u128(8)),
            Channel::Workroom(Uuid::from_u128(9)),
        ] {
            assert_eq!(Channel::parse(&channel.to_string()), Some(channel));
        }
        assert_eq!(Channel::parse("tenant:x"), None);
    }

    #[test]
    fn a_frame_carries_the_body_as_it_is() {
        let event = Event {
            channel: Channel::User(Uuid::nil()),
            epoch: Uuid::nil(),
            position: 3,
            id: Uuid::nil(),
            kind: "message.created".to_owned(),
            body: r#"{"b":1,"a":2}"#.to_owned(),
            at: Timestamp::UNIX_EPOCH,
            covered_by: None,
        };
        assert!(
            event
                .frame(&Keys::from_pepper(&[3; 32]).unwrap())
                .unwrap()
                .ends_with(r#""at":"1970-01-01T00:00:00Z","data":{"b":1,"a":2}}"#)
        );
    }
}
