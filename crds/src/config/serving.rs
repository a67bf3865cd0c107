//! How people are served: HTTP, tokens, limits, real-time connections, and the end of all that.

use garde::Validate;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::units::{Size, Span};

section! {
    /// Limits of the HTTP listener.
    Http {
        /// Largest request body.
        body_limit: Size = Size::from_mib(1), [skip];
        /// Time for a request's line and headers to arrive, and for an idle connection.
        header_timeout: Span = Span::from_secs(10), [skip];
        /// Time for a whole request.
        request_timeout: Span = Span::from_secs(15), [skip];
        /// Time for a JSON body to arrive, and for a client to take what was sent to it.
        body_timeout: Span = Span::from_secs(10), [skip];
        /// Open connections; more are refused.
        max_connections: u32 = 60_000, [range(min = 10, max = 1_000_000)];
        /// Requests that are answered at the same time; more are refused at once with 503.
        max_in_flight: u32 = 2_000, [range(min = 10, max = 100_000)];
        /// Origins that browsers may call from, for CORS and WebSockets. Empty: same origin only.
        allowed_origins: Vec<String> = Vec::new(), [length(max = 64)];
        /// Networks of proxies whose X-Forwarded-For is believed. The first address from the right that is in none of them is the client's.
        trusted_proxies: Vec<IpNet> = private_networks(), [length(max = 64)];
        /// Whether every answer says what it cost (X-DB-Queries, X-Cache-Hit-Rate). Operators of the platform always see it.
        debug_headers: bool = false, [skip];
    }
}

section! {
    /// Lifetimes of tokens.
    Auth {
        /// How long an access token is good for.
        access_token_ttl: Span = Span::from_secs(900), [skip];
        /// How long a refresh token is good for.
        refresh_token_ttl: Span = Span::from_secs(2_592_000), [skip];
        /// How long a session can be refreshed after its login.
        session_max_age: Span = Span::from_secs(7_776_000), [skip];
        /// How long an invitation is good for.
        invitation_ttl: Span = Span::from_secs(604_800), [skip];
    }
}

section! {
    /// Requests per person; logins per address and account.
    RateLimit {
        /// Sustained requests per minute of one person.
        requests_per_minute: u32 = 600, [range(min = 1, max = 1_000_000)];
        /// Requests that may come at once.
        burst: u32 = 100, [range(min = 1, max = 100_000)];
        /// Login attempts per minute.
        login_per_minute: u32 = 10, [range(min = 1, max = 10_000)];
        /// Accounts that one address may ask for in a minute.
        signup_per_minute: u32 = 60, [range(min = 1, max = 10_000)];
    }
}

section! {
    /// Real-time connections.
    WebSocket {
        /// Sockets of this process; more are refused with 503.
        max_connections: u32 = 50_000, [range(min = 1, max = 1_000_000)];
        /// Sockets of one person at this process; more are refused.
        max_connections_per_user: u32 = 50, [range(min = 1, max = 10_000)];
        /// Largest message of a client.
        max_message_size: Size = Size::from_kib(16), [skip];
        /// Messages that a client may send in a second, over a longer time.
        messages_per_second: u32 = 20, [range(min = 1, max = 10_000)];
        /// Messages that may come at once.
        message_burst: u32 = 200, [range(min = 1, max = 100_000)];
        /// Silence after which a client is gone. It is asked twice in this time.
        idle_timeout: Span = Span::from_secs(40), [skip];
        /// Bytes that may wait for one slow socket before it is closed.
        send_buffer: Size = Size::from_kib(128), [skip];
        /// Events kept for each channel, for clients that come back.
        history_size: u32 = 300, [range(min = 0, max = 10_000)];
        /// How long they are kept.
        history_ttl: Span = Span::from_secs(600), [skip];
    }
}

section! {
    /// What happens after SIGTERM.
    Drain {
        /// Time until the process ends whatever is still in flight.
        timeout: Span = Span::from_secs(30), [skip];
    }
}

/// Networks that do not leave a site: in a cluster, proxies are there.
fn private_networks() -> Vec<IpNet> {
    [
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    ]
    .into_iter()
    .filter_map(|network| network.parse().ok())
    .collect()
}
