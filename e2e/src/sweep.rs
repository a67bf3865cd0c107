//! The operator under faults at each of its requests, on a control plane of its own: every fault by `make sweep`, a sample of them as a
//! stage of `make test`.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::paths::Paths;
use crate::suite::shell_within;

/// The control plane of all faults; no controllers and no nodes run beside it, since a puppet plays them.
const CLUSTER: &str = "tanka-sweep";
/// That of the sample, so that a sweep that runs is left alone.
const SAMPLE_CLUSTER: &str = "tanka-sample";
/// All faults on a small machine that does other things too.
const DEADLINE: Duration = Duration::from_hours(8);
/// The sample.
const SAMPLE_DEADLINE: Duration = Duration::from_mins(20);

/// Sweeps every fault, unless `SWEEP_PLANS` in the environment says how many; other `SWEEP_*` say which.
pub async fn run(paths: &Paths) -> Result<()> {
    let plans = std::env::var("SWEEP_PLANS").unwrap_or_else(|_| usize::MAX.to_string());
    sweep(paths, CLUSTER, &plans, DEADLINE).await
}

/// Sweeps few faults of every kind and every workload.
pub async fn sample(paths: &Paths) -> Result<()> {
    sweep(paths, SAMPLE_CLUSTER, "80", SAMPLE_DEADLINE).await
}

async fn sweep(paths: &Paths, name: &str, plans: &str, deadline: Duration) -> Result<()> {
    let cluster = Cluster::build(paths, name).await?;
    let work = async {
        cluster.up(&["--control-plane-only"]).await?;
        let kubeconfig = cluster.kubeconfig().await?;
        let line = format!(
            "export TANKA_TEST_KUBECONFIG={} SWEEP_PLANS={plans}; cargo test -p operator --test sweep -- --nocapture",
            kubeconfig.display()
        );
        shell_within(paths, &line, deadline).await
    };
    let outcome = work.await;
    cluster.down().await?;
    outcome
}
