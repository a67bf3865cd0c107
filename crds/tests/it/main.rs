//! The contract as others see it: the installed schema and the rules in it.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod cel;
mod schema;
