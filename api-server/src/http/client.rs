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
    let named = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok());
    Some(nearest(*peer, named, &app.config().http.trusted_proxies))
}

/// The first address from the right that is no trusted proxy. What stands left of it may be invented.
fn nearest<'a>(peer: IpAddr, named: impl DoubleEndedIterator<Item = &'a str>, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer.to_canonical();
    for text in named.rev().flat_map(|line| line.rsplit(',')) {
        if !trusted.iter().any(|network| network.contains(&nearest)) {
            break;
        }
        match text.trim().parse::<IpAddr>() {
            Ok(ip) => nearest = ip.to_canonical(),
            Err(_) => break,
        }
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
    use rstest::rstest;

    use super::*;

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
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let found = nearest(peer.parse().unwrap(), named.iter().copied(), &trusted);
        assert_eq!(found, client.parse::<IpAddr>().unwrap());
    }

    #[test]
    fn addresses_of_one_subscriber_share_a_bucket() {
        let of = |text: &str| bucket(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::7"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::7"), of("2001:db8:1:3::7"));
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
    }
}
