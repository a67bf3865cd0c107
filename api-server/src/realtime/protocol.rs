//! What clients and the server say to each other, as JSON. `docs/realtime.md` describes it for those who write clients.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::hub::Resume;

/// Channels that one connection listens to, at most, beside those that it always listens to.
pub const MOST_CHANNELS: usize = 100;

/// What a client sends.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Request {
    /// The first frame.
    Connect {
        /// Who it is.
        #[serde(flatten)]
        proof: Proof,
        /// Channels to listen to beside those that every connection listens to.
        #[serde(default)]
        channels: Vec<String>,
        /// Where the client was, by channel.
        #[serde(default)]
        resume: HashMap<String, Resume>,
        /// Of the client's last write: channels without a place in `resume` begin after it.
        consistency_token: Option<String>,
    },
    /// Listens to one more channel.
    Subscribe {
        /// Which.
        channel: String,
        /// Where the client was.
        resume: Option<Resume>,
        /// Of the client's last write, as in `connect`.
        consistency_token: Option<String>,
    },
    /// Ends that.
    Unsubscribe {
        /// Which.
        channel: String,
    },
    /// Answered with `pong`, for clients that cannot send protocol pings.
    Ping {},
    /// A newer access token of the same session, so that the connection outlives the old one.
    Renew {
        /// The token.
        token: String,
    },
}

/// What proves who connects.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// An access token.
    Token(String),
    /// A ticket.
    Ticket(String),
}

/// From where the events of a channel follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The channel.
    pub channel: String,
    /// Its epoch; none before its first event.
    pub epoch: Option<Uuid>,
    /// Position of its last event; what the client missed up to here follows if it was recovered.
    pub offset: i64,
    /// Whether the client has, or is about to get, everything since the place that it named.
    pub recovered: bool,
}

/// What the server sends besides events.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Reply {
    /// The client is known; events follow from here.
    Connected {
        /// Identifies the connection on its process.
        connection: u64,
        /// When the token ends, and with it the connection unless it is renewed.
        expires_at: jiff::Timestamp,
        /// The channels.
        channels: Vec<Place>,
    },
    /// Events of one more channel follow from here.
    Subscribed(Place),
    /// No more events of this channel follow.
    Unsubscribed {
        /// Which.
        channel: String,
        /// `asked`, or `removed` when the client may no longer listen.
        reason: &'static str,
    },
    /// Answers `ping`.
    Pong,
    /// Answers `renew`.
    Renewed {
        /// When the new token ends.
        expires_at: jiff::Timestamp,
    },
    /// Something was refused, or the connection is about to be closed.
    Error {
        /// Why.
        code: &'static str,
        /// The channel that it is about.
        #[serde(skip_serializing_if = "Option::is_none")]
        channel: Option<String>,
        /// Whether a close follows.
        fatal: bool,
    },
    /// The process ends; sent before the close.
    Closing {
        /// When to come back.
        reconnect_after_ms: u64,
        /// With this in `resume`.
        resume: HashMap<String, Resume>,
    },
}

/// Why a channel is refused; the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such channel, or the person may not listen to it: the two are not told apart.
    Forbidden,
    /// The connection listens to it already.
    Subscribed,
    /// The connection does not listen to it.
    NotSubscribed,
    /// Every connection listens to it.
    Permanent,
    /// The connection listens to too many.
    TooManyChannels,
    /// It cannot be found out now.
    Unavailable,
}

impl Refusal {
    /// The code in the error frame.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Subscribed => "already_subscribed",
            Self::NotSubscribed => "not_subscribed",
            Self::Permanent => "permanent_channel",
            Self::TooManyChannels => "too_many_channels",
            Self::Unavailable => "unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(r#"{"type":"connect","token":"tka_x"}"#, true)]
    #[case(
        r#"{"type":"connect","ticket":"tkt_x","channels":["workroom:1:updates"],"resume":{"user:1":{"offset":3,"epoch":null}}}"#,
        true
    )]
    #[case(r#"{"type":"connect","token":"x","resume":{"user:1":{"epoch":null}}}"#, false)]
    #[case(r#"{"type":"connect"}"#, false)]
    #[case(r#"{"type":"subscribe","channel":"workroom:1:updates"}"#, true)]
    #[case(r#"{"type":"subscribe"}"#, false)]
    #[case(r#"{"type":"unsubscribe","channel":"workroom:1:updates"}"#, true)]
    #[case(r#"{"type":"ping"}"#, true)]
    #[case(r#"{"type":"renew","token":"tka_x"}"#, true)]
    #[case(r#"{"type":"else"}"#, false)]
    #[case("", false)]
    fn requests_are_read(#[case] text: &str, #[case] good: bool) {
        assert_eq!(serde_json::from_str::<Request>(text).is_ok(), good);
    }

    proptest! {
        /// W-10: whatever a client sends is a request or is refused.
        #[test]
        fn no_text_makes_reading_panic(text in r#"[\{\}\[\]":,a-z0-9\\ué ]{0,200}"#) {
            let _ = serde_json::from_str::<Request>(&text);
        }
    }

    #[test]
    fn replies_look_as_documented() {
        let subscribed = Reply::Subscribed(Place {
            channel: "workroom:1:updates".to_owned(),
            epoch: None,
            offset: 0,
            recovered: false,
        });
        assert_eq!(
            serde_json::to_string(&subscribed).unwrap(),
            r#"{"type":"subscribed","channel":"workroom:1:updates","epoch":null,"offset":0,"recovered":false}"#
        );
        let refused = Reply::Error {
            code: Refusal::Forbidden.code(),
            channel: Some("user:2".to_owned()),
            fatal: false,
        };
        assert_eq!(
            serde_json::to_string(&refused).unwrap(),
            r#"{"type":"error","code":"forbidden","channel":"user:2","fatal":false}"#
        );
    }
}
