//! Free ports on loopback.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// Below the range that the kernel hands out to clients, so that no outgoing connection takes a port before its service does.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;

/// Finds `count` ports that nobody listens on. Runs that start at the same moment begin at different places.
pub fn free(count: usize) -> Result<Vec<u16>> {
    let span = LAST - FIRST + 1;
    let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(span)).unwrap_or_default();
    let mut held = Vec::new();
    let ports: Vec<u16> = (0..span)
        .map(|step| FIRST + (start + step) % span)
        .filter(|&port| match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => {
                held.push(listener);
                true
            }
            Err(_) => false,
        })
        .take(count)
        .collect();
    (ports.len() == count)
        .then_some(ports)
        .with_context(|| format!("{count} ports are not free between {FIRST} and {LAST}"))
}
