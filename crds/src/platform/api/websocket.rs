//! `spec.api.websocket`: limits of real-time connections.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::platform::rules;
use crate::units::{Size, Span};

/// Real-time connections.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("quantity(self.sendBuffer).compareTo(quantity('4Ki')) >= 0 && quantity(self.sendBuffer).compareTo(quantity('16Mi')) <= 0", "api.websocket.sendBuffer must be from 4Ki to 16Mi"),
        ("quantity(self.maxMessageSize).compareTo(quantity('1Ki')) >= 0 && quantity(self.maxMessageSize).compareTo(quantity('1Mi')) <= 0", "api.websocket.maxMessageSize must be from 1Ki to 1Mi"),
        ("duration(self.idleTimeout) >= duration('10s') && duration(self.idleTimeout) <= duration('10m')", "api.websocket.idleTimeout must be from 10s to 10m: proxies end connections that are silent for longer"),
])))]
pub struct WebSocket {
    /// Most sockets of one pod.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: i32,
    /// Most sockets of one person at one pod; more are refused.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_connections_per_user: i32,
    /// Largest message of a client.
    pub max_message_size: Size,
    /// Messages that a client may send in a second, over a longer time.
    #[schemars(range(min = 1, max = 10_000))]
    pub messages_per_second: i32,
    /// Messages that may come at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub message_burst: i32,
    /// Silence after which a client is gone. It is asked twice in this time.
    pub idle_timeout: Span,
    /// Bytes that may wait for one slow socket before it is closed.
    pub send_buffer: Size,
    /// Events kept for each channel, for clients that come back.
    #[schemars(range(min = 0, max = 10_000))]
    pub history_size: i32,
    /// How long they are kept.
    pub history_ttl: Span,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            max_connections: 50_000,
            max_connections_per_user: 50,
            max_message_size: Size::from_kib(16),
            messages_per_second: 20,
            message_burst: 200,
            idle_timeout: Span::from_secs(40),
            send_buffer: Size::from_kib(128),
            history_size: 300,
            history_ttl: Span::from_secs(600),
        }
    }
}
