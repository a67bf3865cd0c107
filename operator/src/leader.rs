//! Leader election by a Lease. Whoever loses it ends the process: two leaders are worse than none for a moment.

use kube::Client;
use kube_lease_manager::{LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Name of the Lease.
const LEASE: &str = "tanka-operator";
/// How long a lease lasts without renewal, in seconds: the longest time without a leader after a crash.
const DURATION_SECONDS: u64 = 15;
/// How long before its end it is renewed, in seconds.
const GRACE_SECONDS: u64 = 5;

/// The claim of this process.
pub struct Claim {
    state: watch::Receiver<bool>,
    task: JoinHandle<Result<kube_lease_manager::LeaseManager, LeaseManagerError>>,
}

/// Stands in line for the lease.
///
/// # Errors
/// When the Lease cannot be read or made.
pub async fn stand(client: Client, namespace: &str, identity: &str) -> Result<Claim, LeaseManagerError> {
    let manager = LeaseManagerBuilder::new(client, LEASE)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_duration(DURATION_SECONDS)
        .with_grace(GRACE_SECONDS)
        .build()
        .await?;
    let (state, task) = manager.watch().await;
    Ok(Claim { state, task })
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
            .map(|_| ())
            .map_err(|_| anyhow::anyhow!("the leader election has ended"))
    }

    /// Waits until it does not any more.
    pub async fn lost(&mut self) {
        // A closed channel means that nobody renews: that is a loss too.
        let _ = self.state.wait_for(|leads| !*leads).await;
    }

    /// Gives the lease back, so that the next leader need not wait for its end.
    pub async fn release(self) {
        drop(self.state);
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the leader election did not end as it should");
        }
    }
}
