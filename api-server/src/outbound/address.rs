//! Which addresses may be reached. The decision is about the address that is connected to, never about its name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::Uri;
use ipnet::IpNet;

use crate::domain::Unacceptable;

/// Longest address of a resource in the web.
const LONGEST: usize = 2_048;

/// Networks of IPv4 that are not the public internet (IANA's registry of special purposes, and multicast).
const SPECIAL_4: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Whether an address may be reached: it is public, or the configuration allows it.
pub fn is_allowed(address: IpAddr, allowed: &[IpNet]) -> bool {
    let address = address.to_canonical();
    is_public(address) || allowed.iter().any(|network| network.contains(&address))
}

/// Whether an address belongs to the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_4
            .iter()
            .any(|(network, length)| within(address, *network, *length)),
        // Only what is given out at all; what carries another address inside leads to that one.
        IpAddr::V6(address) => {
            let s = address.segments();
            s[0] & 0xe000 == 0x2000
                && !carries(address)
                && !(s[0] == 0x2001 && s[1] == 0x0db8)
                && s[0] & 0xfff0 != 0x3ff0
        }
    }
}

/// Addresses of tunnels and special purposes within 2000::/3: 2001::/23 (Teredo, ORCHID, benchmarks) and 2002::/16 (6to4).
fn carries(address: Ipv6Addr) -> bool {
    let s = address.segments();
    s[0] == 0x2002 || (s[0] == 0x2001 && s[1] < 0x0200)
}

fn within(address: Ipv4Addr, network: Ipv4Addr, length: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    address.to_bits() & mask == network.to_bits() & mask
}

/// Reads an address of the web. A host that is an IP address is checked at once; a name when it is connected to.
pub fn parse(text: &str, allowed: &[IpNet]) -> Result<Uri, Unacceptable> {
    let unacceptable = |why: &str| Unacceptable(why.to_owned());
    if text.len() > LONGEST {
        return Err(Unacceptable(format!("must have at most {LONGEST} characters")));
    }
    if text.contains('#') {
        return Err(unacceptable("must not have a fragment"));
    }
    let uri: Uri = text
        .parse()
        .map_err(|_| unacceptable("must be an address such as https://example.com/path"))?;
    check(&uri, allowed)?;
    Ok(uri)
}

/// Checks an address that was read.
pub fn check(uri: &Uri, allowed: &[IpNet]) -> Result<(), Unacceptable> {
    let unacceptable = |why: &str| Unacceptable(why.to_owned());
    if !matches!(uri.scheme_str(), Some("https" | "http")) {
        return Err(unacceptable("must begin with https:// or http://"));
    }
    let host = uri.host().unwrap_or_default();
    if host.is_empty() {
        return Err(unacceptable("must name a host"));
    }
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(unacceptable("must not contain a name or password"));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let refused = || unacceptable("must lead to a public address");
    if let Ok(address) = bare.parse::<IpAddr>() {
        return if is_allowed(address, allowed) {
            Ok(())
        } else {
            Err(refused())
        };
    }
    // Never public, and resolved by the host itself.
    let name = bare.trim_end_matches('.').to_ascii_lowercase();
    let local = ["localhost", "local", "internal"]
        .iter()
        .any(|suffix| name == *suffix || name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')));
    if local && allowed.is_empty() {
        Err(refused())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("8.8.8.8", true)]
    #[case("1.1.1.1", true)]
    #[case("2606:4700:4700::1111", true)]
    #[case("127.0.0.1", false)]
    #[case("127.255.255.254", false)]
    #[case("0.0.0.0", false)]
    #[case("10.1.2.3", false)]
    #[case("100.64.0.1", false)]
    #[case("169.254.169.254", false)]
    #[case("172.31.255.255", false)]
    #[case("172.32.0.1", true)]
    #[case("192.168.1.1", false)]
    #[case("224.0.0.1", false)]
    #[case("255.255.255.255", false)]
    #[case("::", false)]
    #[case("::1", false)]
    #[case("::ffff:127.0.0.1", false)]
    #[case("::ffff:8.8.8.8", true)]
    #[case("::127.0.0.1", false)]
    #[case("64:ff9b::7f00:1", false)]
    #[case("2002:7f00:1::", false)]
    #[case("2001:0:7f00:1::", false)]
    #[case("2001:db8::1", false)]
    #[case("fc00::1", false)]
    #[case("fd12:3456::1", false)]
    #[case("fe80::1", false)]
    #[case("ff02::1", false)]
    #[case("fec0::1", false)]
    fn only_public_addresses_are_reached(#[case] address: IpAddr, #[case] public: bool) {
        assert_eq!(is_allowed(address, &[]), public);
    }

    #[test]
    fn the_configuration_allows_networks() {
        let allowed = ["10.1.0.0/16".parse().unwrap()];
        assert!(is_allowed("10.1.2.3".parse().unwrap(), &allowed));
        assert!(is_allowed("::ffff:10.1.2.3".parse().unwrap(), &allowed));
        assert!(!is_allowed("10.2.2.3".parse().unwrap(), &allowed));
    }

    #[rstest]
    #[case("https://example.com/hook?x=1", true)]
    #[case("http://example.com:8080/", true)]
    #[case("https://8.8.8.8/", true)]
    #[case("https://127.0.0.1/", false)]
    #[case("https://[::1]/", false)]
    #[case("https://[::ffff:10.0.0.1]/", false)]
    #[case("https://localhost/", false)]
    #[case("https://LOCALHOST./", false)]
    #[case("https://metadata.google.internal/", false)]
    #[case("https://user:secret@example.com/", false)]
    #[case("ftp://example.com/", false)]
    #[case("file:///etc/passwd", false)]
    #[case("/relative", false)]
    #[case("https:///nohost", false)]
    #[case("https://example.com/#part", false)]
    #[case("not an address", false)]
    fn addresses_are_checked_when_they_are_given(#[case] text: &str, #[case] fine: bool) {
        assert_eq!(parse(text, &[]).is_ok(), fine);
    }
}
