//! The bound on every request to the API server.

use std::time::Duration;

use tokio::time::timeout;

/// Longer than any honest answer takes.
const DEADLINE: Duration = Duration::from_secs(10);

/// Bounds a request.
///
/// # Errors
/// The request's own, or that no answer came in time.
pub async fn bounded<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let late = |_| {
        Err(kube::Error::Service(
            "the API server did not answer in time".into(),
        ))
    };
    timeout(DEADLINE, request).await.unwrap_or_else(late)
}
