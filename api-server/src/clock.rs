//! The rim where time enters: everything else receives it as a value.

use jiff::Timestamp;

/// The wall clock. For ordering and timeouts inside the process use `tokio::time::Instant`.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the rim: the one place that reads the wall clock"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}
