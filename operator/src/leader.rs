//! Leader election by a Lease. Whoever loses it ends the process: two leaders are worse than none for a moment.

pub mod fence;

use std::time::Duration;

use anyhow::Context as _;
use kube::client::ClientBuilder;
use kube::{Client, Config};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower::filter::FilterLayer;
use tower::util::AndThenLayer;

use self::fence::Fence;

/// Name of the Lease.
const LEASE: &str = "tanka-operator";
/// How long a lease lasts without renewal, in seconds: the longest time without a leader after a crash.
const DURATION_SECONDS: u64 = 15;
/// How long before its end it is renewed, in seconds: every five seconds, so that one failed renewal costs nothing.
const GRACE_SECONDS: u64 = 10;
/// Time for the first request of the election.
const FIRST_DEADLINE: Duration = Duration::from_secs(10);
/// Pause before it is tried again.
const PAUSE: Duration = Duration::from_secs(2);
/// Time for giving the lease back.
const RELEASE_DEADLINE: Duration = Duration::from_secs(5);

/// The claim of this process.
pub struct Claim {
    fence: Fence,
    state: watch::Receiver<bool>,
    task: JoinHandle<Result<LeaseManager, LeaseManagerError>>,
}

/// A client whose requests change something only while the lease is held.
///
/// # Errors
/// When the configuration cannot be used.
pub fn fenced(config: Config, fence: &Fence) -> Result<Client, kube::Error> {
    let fence = fence.clone();
    let admit = FilterLayer::new(move |request: http::Request<kube::client::Body>| fence.admit(request));
    Ok(ClientBuilder::try_from(config)?.with_layer(&admit).build())
}

/// Stands in line for the lease, as soon as the API server answers: until then there is nothing else to do, and ending would only
/// make Kubernetes wait longer before each new start.
///
/// # Errors
/// When the configuration cannot be used.
pub async fn stand(config: Config, namespace: &str, identity: &str, fence: &Fence) -> anyhow::Result<Claim> {
    let seen = fence.clone();
    let inspect = AndThenLayer::new(move |answer| seen.clone().inspect(answer));
    let client = ClientBuilder::try_from(config)
        .context("the configuration of the Kubernetes API cannot be used")?
        .with_layer(&inspect)
        .build();
    let manager = loop {
        let builder = LeaseManagerBuilder::new(client.clone(), LEASE)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(DURATION_SECONDS)
            .with_grace(GRACE_SECONDS);
        match timeout(FIRST_DEADLINE, builder.build()).await {
            Ok(Ok(manager)) => break manager,
            Ok(Err(error)) => {
                tracing::warn!(%error, lease.namespace = namespace, "the Lease can neither be read nor made");
            }
            Err(_) => tracing::warn!(
                lease.namespace = namespace,
                "the API server does not answer in time"
            ),
        }
        sleep(PAUSE).await;
    };
    let (state, task) = manager.watch().await;
    Ok(Claim {
        fence: fence.clone(),
        state,
        task,
    })
}

impl Claim {
    /// Waits until this process leads.
    ///
    /// # Errors
    /// When the election itself has ended.
    pub async fn won(&mut self) -> anyhow::Result<()> {
        self.state
            .wait_for(|leads| *leads)
            .await
            .map_err(|_| anyhow::anyhow!("the leader election has ended"))?;
        self.fence.held().await;
        Ok(())
    }

    /// Waits until it does not any more.
    pub async fn lost(&mut self) {
        tokio::select! {
            // A closed channel means that nobody renews: that is a loss too.
            _ = self.state.wait_for(|leads| !*leads) => {}
            // The election may hang in a request, or wake later than this.
            () = self.fence.run_out() => {}
        }
    }

    /// Gives the lease back, so that the next leader need not wait for its end.
    pub async fn release(self) {
        drop(self.state);
        match timeout(RELEASE_DEADLINE, self.task).await {
            Ok(Ok(Ok(_))) => {}
            Ok(Ok(Err(error))) => {
                tracing::warn!(%error, "the lease was not given back");
            }
            Ok(Err(error)) => tracing::warn!(%error, "the leader election did not end as it should"),
            Err(_) => tracing::warn!("the lease was not given back in time"),
        }
    }
}
