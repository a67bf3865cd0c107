//! `make bench-operator`: what a hundred platforms at rest cost the operator and the API server. A control plane without nodes; a
//! puppet plays what runs on them (`operator/tests/idle`).

use anyhow::Result;

use crate::cluster::Cluster;
use crate::paths::Paths;
use crate::suite::shell;

/// Control plane of the benchmark: nobody else's.
const CLUSTER: &str = "tanka-idle";

/// Measures, and prints a table.
pub async fn run(paths: &Paths) -> Result<()> {
    let build = "cargo build --release -p operator --bin tanka-operator";
    shell(paths, build).await?;
    let cluster = Cluster::build(paths, CLUSTER).await?;
    let work = async {
        cluster.up(&["--control-plane-only"]).await?;
        let kubeconfig = cluster.kubeconfig().await?;
        let line = format!(
            "export TANKA_TEST_KUBECONFIG={} TANKA_OPERATOR={}; cargo test -p operator --test idle",
            kubeconfig.display(),
            paths.target.join("release/tanka-operator").display()
        );
        shell(paths, &line).await
    };
    let outcome = work.await;
    cluster.down().await?;
    outcome
}
