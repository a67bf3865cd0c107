//! The operator against a real API server. No node runs anything here: what is tested is what the operator asks for, not what
//! becomes of it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

mod day_two;
mod edge;
mod election;
mod gitops;
mod harness;
mod identity;
mod lifecycle;
mod process;
mod reconcile;
mod rights;
mod rollout;
mod rules;
mod traces;
