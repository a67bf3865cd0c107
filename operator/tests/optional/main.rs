//! The operator where other APIs come and go. Definitions are the cluster's, not a namespace's, so these tests do not run beside the
//! others, whose platforms would change with them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

mod definitions;
mod gateway;
#[expect(dead_code, reason = "shared with the other tests, which use all of it")]
#[path = "../it/harness.rs"]
mod harness;
mod monitoring;
#[expect(dead_code, reason = "shared with the other tests, which use all of it")]
#[path = "../it/process.rs"]
mod process;
