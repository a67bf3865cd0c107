//! Free ports on loopback.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Result, bail};

/// Below the range that the kernel hands out to clients, so that no outgoing connection takes a port before its service does.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;
const SPAN: u16 = LAST - FIRST + 1;

/// How many ports this process has looked at. A port that was handed out is free until its service listens, so none is handed out
/// twice.
static LOOKED_AT: AtomicU16 = AtomicU16::new(0);

/// Finds `count` ports that nobody listens on. Runs that start at the same moment begin at different places.
pub fn free(count: usize) -> Result<Vec<u16>> {
    let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(SPAN)).unwrap_or_default();
    let mut ports = Vec::new();
    for _ in 0..SPAN {
        if ports.len() == count {
            return Ok(ports);
        }
        let step = LOOKED_AT.fetch_add(1, Ordering::Relaxed) % SPAN;
        let port = FIRST + (start + step) % SPAN;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            ports.push(port);
        }
    }
    bail!("there are no {count} free ports between {FIRST} and {LAST}")
}
