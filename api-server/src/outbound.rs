//! Requests to addresses that people gave. They reach public addresses only, whatever a name resolves to, and follow no redirect.

pub mod address;
pub mod client;
pub mod pause;

pub use client::{Outbound, OutboundError, Reply};
