//! Where a request comes from. The connection's other end is known; behind a proxy, the address that the proxy names is believed,
//! and only as far as proxies reach that the configuration trusts.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, header};
use ipnet::IpNet;

use super::error::ApiError;
use crate::app::App;
use crate::domain::audit::Origin;

/// The other end of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Longest name of a client that is kept.
const LONGEST_AGENT: usize = 300;

/// Where a request comes from.
#[derive(Debug, Clone)]
pub struct Client(pub Origin);

impl FromRequestParts<App> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let agent = parts.headers.get(header::USER_AGENT);
        let agent = agent.and_then(|value| value.to_str().ok());
        Ok(Self(Origin {
            address: address(app, &parts.headers, &parts.extensions).map(|ip| ip.to_string()),
            user_agent: agent.map(|text| text.chars().take(LONGEST_AGENT).collect()),
        }))
    }
}

/// The client's address.
pub fn address(app: &App, headers: &HeaderMap, extensions: &Extensions) -> Option<IpAddr> {
    let Peer(peer) = extensions.get::<Peer>()?;
    Some(nearest(*peer, headers, &app.config().http.trusted_proxies))
}

/// The first address from the right that is no trusted proxy. What stands left of it may be invented, and may be no text: the search goes
/// part by part, because a client whose bytes spoil a whole line would hide what a proxy has added to it.
pub fn nearest(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    for part in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
        if !trusted.iter().any(|network| network.contains(&nearest)) {
            break;
        }
        let text = std::str::from_utf8(part).unwrap_or_default();
        let Ok(ip) = text.trim().parse::<IpAddr>() else {
            break;
        };
        nearest = ip.to_canonical();
    }
    nearest
}

/// What limits count: one address, or the network that a subscriber of IPv6 gets.
pub fn bucket(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    fn found(peer: &str, lines: &[&[u8]]) -> IpAddr {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(line).unwrap());
        }
        nearest(peer.parse().unwrap(), &headers, &["10.0.0.0/8".parse().unwrap()])
    }

    #[rstest]
    #[case("203.0.113.9", &[], "203.0.113.9")]
    #[case("10.0.0.1", &["203.0.113.9"], "203.0.113.9")]
    #[case("10.0.0.1", &["198.51.100.1, 203.0.113.9"], "203.0.113.9")]
    #[case("10.0.0.1", &["198.51.100.1, 203.0.113.9, 10.0.0.2"], "203.0.113.9")]
    #[case("10.0.0.1", &["198.51.100.1", "203.0.113.9"], "203.0.113.9")]
    #[case("203.0.113.9", &["198.51.100.1"], "203.0.113.9")]
    #[case("10.0.0.1", &["nonsense"], "10.0.0.1")]
    #[case("::ffff:10.0.0.1", &["2001:db8::1"], "2001:db8::1")]
    fn only_trusted_proxies_are_believed(#[case] peer: &str, #[case] named: &[&str], #[case] client: &str) {
        let lines: Vec<&[u8]> = named.iter().map(|line| line.as_bytes()).collect();
        assert_eq!(found(peer, &lines), client.parse::<IpAddr>().unwrap());
    }

    /// B25: the client's bytes stand before the address that the proxy adds, in its line or in the one before.
    #[test]
    fn bytes_that_are_no_text_do_not_hide_what_a_proxy_adds() {
        let client: IpAddr = "203.0.113.9".parse().unwrap();
        let lines: [&[u8]; 2] = [b"198.51.100.1", b"\xFF, 203.0.113.9"];
        assert_eq!(found("10.0.0.1", &lines), client);
        let lines: [&[u8]; 2] = [b"\xFF", b"203.0.113.9"];
        assert_eq!(found("10.0.0.1", &lines), client);
        let proxy: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(found("10.0.0.1", &[b"198.51.100.1, \xFF"]), proxy);
    }

    #[test]
    fn addresses_of_one_subscriber_share_a_bucket() {
        let of = |text: &str| bucket(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::7"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::7"), of("2001:db8:1:3::7"));
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
    }
}
