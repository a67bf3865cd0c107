//! `make sweep`: the operator under faults at each of its requests, on a control plane of its own.

use anyhow::Result;

use crate::cluster::Cluster;
use crate::paths::Paths;
use crate::suite::shell;

/// The control plane; no controllers and no nodes run beside it, since a puppet plays them.
const CLUSTER: &str = "tanka-sweep";

/// Runs it. How many faults, how many at a time and which workloads is said by `SWEEP_*` in the environment.
pub async fn run(paths: &Paths) -> Result<()> {
    let cluster = Cluster::build(paths, CLUSTER).await?;
    let work = async {
        cluster.up(&["--control-plane-only"]).await?;
        let kubeconfig = cluster.kubeconfig().await?;
        let line = format!(
            "TANKA_TEST_KUBECONFIG={} cargo test -p operator --test sweep -- --ignored --nocapture",
            kubeconfig.display()
        );
        shell(paths, &line).await
    };
    let outcome = work.await;
    cluster.down().await?;
    outcome
}
