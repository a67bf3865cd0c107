//! Until when this process may act as the leader. Every Lease that the API server hands to the election passes here, and every
//! request that changes something is held against it: a process that was stopped or cut off for longer than its lease writes
//! nothing when it wakes, whatever its tasks were about to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::client::Body;
use tokio::time::{Instant, sleep, sleep_until};
use tower::BoxError;

use crate::planted::{self, Bug};

/// A Lease is smaller.
const MAX_LEASE: usize = 1 << 20;
/// How often is looked whether the lease has been renewed after all.
const STEP: Duration = Duration::from_millis(100);

/// The end of the lease that was seen last, by the clock of this process that never jumps.
#[derive(Debug, Clone)]
pub struct Fence {
    identity: Arc<str>,
    origin: Instant,
    /// Milliseconds after the origin.
    until: Arc<AtomicU64>,
}

impl Fence {
    /// A fence that is closed: `identity` has not been seen as the holder yet.
    pub fn new(identity: &str) -> Self {
        Self {
            identity: identity.into(),
            origin: Instant::now(),
            until: Arc::default(),
        }
    }

    /// Whether this process holds the lease now.
    pub fn holds(&self) -> bool {
        Instant::now() < self.end()
    }

    /// Waits until the lease has run out without renewal.
    pub async fn run_out(&self) {
        while self.holds() {
            sleep_until(self.end()).await;
        }
    }

    /// Waits until this process holds the lease.
    pub async fn held(&self) {
        while !self.holds() {
            sleep(STEP).await;
        }
    }

    /// Lets a request pass that only reads, or any while the lease is held.
    ///
    /// # Errors
    /// When the request would change something and the lease is not held.
    pub fn admit<B>(&self, request: Request<B>) -> Result<Request<B>, BoxError> {
        if matches!(*request.method(), Method::GET | Method::HEAD)
            || self.holds()
            || planted::is(Bug::FenceOpen)
        {
            Ok(request)
        } else {
            Err("not sent: the lease of this process has run out".into())
        }
    }

    /// Takes note of a Lease in an answer of the API server, and passes the answer on.
    ///
    /// # Errors
    /// When the answer cannot be read to its end.
    pub async fn inspect<B>(self, answer: Response<B>) -> Result<Response<Body>, BoxError>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let (head, body) = answer.into_parts();
        let bytes = Limited::new(body, MAX_LEASE).collect().await?.to_bytes();
        if let Ok(lease) = serde_json::from_slice::<Lease>(&bytes)
            && head.status.is_success()
        {
            let left = left(&lease, &self.identity, now());
            let end = Instant::now().duration_since(self.origin) + left;
            let end = if left.is_zero() { Duration::ZERO } else { end };
            self.until.store(
                u64::try_from(end.as_millis()).unwrap_or(u64::MAX),
                Ordering::Relaxed,
            );
        }
        Ok(Response::from_parts(head, Body::from(bytes)))
    }

    fn end(&self) -> Instant {
        self.origin + Duration::from_millis(self.until.load(Ordering::Relaxed))
    }
}

/// How much of a lease is left to `identity`. The holder's own clock wrote the time, so no other clock matters; a clock that was set
/// back meanwhile does not make a lease longer than it is.
fn left(lease: &Lease, identity: &str, now: Timestamp) -> Duration {
    let Some(spec) = &lease.spec else {
        return Duration::ZERO;
    };
    let (Some(renewed), Some(seconds)) = (&spec.renew_time, spec.lease_duration_seconds) else {
        return Duration::ZERO;
    };
    if spec.holder_identity.as_deref() != Some(identity) {
        return Duration::ZERO;
    }
    let whole = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let age = now.duration_since(renewed.0).max(jiff::SignedDuration::ZERO);
    whole.saturating_sub(age.unsigned_abs())
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the rim: the age of a lease is told by the clock"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn lease(holder: &str, renewed: &str) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {},
            "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15},
        })
    }

    #[rstest]
    #[case::fresh("me", "2026-01-01T00:00:00.000000Z", 15)]
    #[case::aged("me", "2025-12-31T23:59:50.000000Z", 5)]
    #[case::over("me", "2025-12-31T23:59:00.000000Z", 0)]
    #[case::somebody_else("you", "2026-01-01T00:00:00.000000Z", 0)]
    #[case::clock_set_back("me", "2026-01-01T01:00:00.000000Z", 15)]
    fn what_is_left_of_a_lease(#[case] holder: &str, #[case] renewed: &str, #[case] seconds: u64) {
        let lease = serde_json::from_value(lease(holder, renewed)).unwrap();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(left(&lease, "me", now), Duration::from_secs(seconds));
    }

    fn request(method: Method) -> Request<()> {
        Request::builder().method(method).body(()).unwrap()
    }

    async fn see(fence: &Fence, lease: &Value) {
        let answer = Response::new(Full::from(serde_json::to_vec(lease).unwrap()));
        fence.clone().inspect(answer).await.unwrap();
    }

    /// What the fence lets through: before there is a lease, while it lasts, and after it.
    async fn admitted() -> [bool; 5] {
        let fence = Fence::new("me");
        let admits = |method| fence.admit(request(method)).is_ok();
        let before = admits(Method::PATCH);
        see(&fence, &lease("me", &now().to_string())).await;
        let during = admits(Method::PATCH);
        tokio::time::advance(Duration::from_secs(16)).await;
        let after = [Method::PATCH, Method::DELETE, Method::GET].map(admits);
        [before, during, after[0], after[1], after[2]]
    }

    const RIGHT: [bool; 5] = [false, true, false, false, true];

    #[tokio::test(start_paused = true)]
    async fn a_process_that_slept_through_its_lease_writes_nothing() {
        assert_eq!(admitted().await, RIGHT);
    }

    #[cfg(feature = "planted")]
    #[tokio::test(start_paused = true)]
    async fn planted_hole_in_the_fence_is_found() {
        planted::plant_here(Some(Bug::FenceOpen));
        assert_ne!(admitted().await, RIGHT);
        planted::plant_here(None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_somebody_else_has_taken_ends_at_once() {
        let fence = Fence::new("me");
        see(&fence, &lease("me", &now().to_string())).await;
        see(&fence, &lease("you", &now().to_string())).await;
        fence.run_out().await;
        assert!(fence.admit(request(Method::POST)).is_err());
    }
}
