//! Events of a tenant, sent to endpoints of its choice.

pub mod deliver;
pub mod sign;
