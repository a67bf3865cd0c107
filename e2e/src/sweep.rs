//! The operator under faults at each of its requests, on a control plane of its own: by `make sweep`, and a sample as a stage of
//! `make test`.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::paths::Paths;
use crate::suite::shell_within;

/// The control plane of all faults; no controllers and no nodes run beside it, since a puppet plays them.
const CLUSTER: &str = "tanka-sweep";
/// That of the sample, so that a sweep that runs is left alone.
const SAMPLE_CLUSTER: &str = "tanka-sample";
/// Faults of a sweep for which nobody says how many: an hour's worth.
const MANY: &str = "1200";
/// Every fault, on a small machine that does other things too.
const DEADLINE: Duration = Duration::from_hours(8);
/// The sample.
const SAMPLE_DEADLINE: Duration = Duration::from_mins(20);

/// Sweeps 1,200 faults of all workloads and kinds, or as many as `SWEEP_PLANS` in the environment says, all of them for `all`; other
/// `SWEEP_*` say which. Then bugs are planted, and each must be found. The first build is
/// optimised; none that is may have bugs planted.
pub async fn run(paths: &Paths) -> Result<()> {
    let plans = match std::env::var("SWEEP_PLANS") {
        Ok(all) if all == "all" => usize::MAX.to_string(),
        Ok(number) => number,
        Err(_) => MANY.to_owned(),
    };
    let line = format!(
        "SWEEP_PLANS={plans} cargo test --profile optimised -p operator --test sweep -- --nocapture; \
         cargo test -p operator --features planted --lib --test sweep -- --nocapture planted"
    );
    on_control_plane(paths, CLUSTER, &line, DEADLINE).await
}

/// Sweeps few faults of every kind and every workload.
pub async fn sample(paths: &Paths) -> Result<()> {
    let line = "SWEEP_PLANS=80 cargo test -p operator --test sweep -- --nocapture";
    on_control_plane(paths, SAMPLE_CLUSTER, line, SAMPLE_DEADLINE).await
}

async fn on_control_plane(paths: &Paths, name: &str, line: &str, deadline: Duration) -> Result<()> {
    let cluster = Cluster::build(paths, name).await?;
    let work = async {
        cluster.up(&["--control-plane-only"]).await?;
        let kubeconfig = cluster.kubeconfig().await?;
        let line = format!("export TANKA_TEST_KUBECONFIG={}; {line}", kubeconfig.display());
        shell_within(paths, &line, deadline).await
    };
    let outcome = work.await;
    cluster.down().await?;
    outcome
}
