//! `make test`: all layers of tests, in order, up to the first failure, with the time of each.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use tokio::process::Command;
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::paths::Paths;
use crate::stage::Steps;
use crate::tools::Tools;
use crate::{alerts, demo, install, load, manifests, scenarios, slice, sweep};

/// Cluster of the end-to-end tests: not the demo's, so that a demo that runs is left alone.
const CLUSTER: &str = "tanka-test";
/// Control plane of the contract tests.
const CONTRACT: &str = "tanka-contract";
/// A layer that takes longer is stuck.
const LAYER_DEADLINE: Duration = Duration::from_mins(40);

/// Runs everything. The clusters that it starts end with it, also when a layer fails.
pub async fn run(paths: &Paths) -> Result<()> {
    let mut steps = Steps::default();
    let outcome = layers(paths, &mut steps).await;
    eprintln!("\n{}", steps.table());
    let failed = u8::from(outcome.is_err());
    println!(
        "{} passed, {failed} failed",
        steps.timings().len() - usize::from(failed)
    );
    outcome
}

/// The end-to-end layer alone.
pub async fn slice(paths: &Paths) -> Result<()> {
    end_to_end(paths, &mut Steps::default()).await
}

/// What takes too long for every change: the API server's long races, and the local cluster's own campaigns on three nodes, with recovery
/// from every fault that a run can leave behind.
pub async fn campaign(paths: &Paths) -> Result<()> {
    let mut steps = Steps::default();
    for (what, line) in API_CAMPAIGNS {
        steps.run(what, shell(paths, line)).await?;
    }
    let cluster = steps
        .run("build the cluster's programs", Cluster::build(paths, CLUSTER))
        .await?;
    let outcome = async {
        steps.run("three nodes", cluster.up_with_nodes(3)).await?;
        steps
            .run("self-test on three nodes", cluster.selftest(&[]))
            .await?;
        steps
            .run("recovery from faults", cluster.selftest(&["--robustness"]))
            .await
    };
    let outcome = outcome.await;
    cluster.down().await?;
    outcome
}

async fn layers(paths: &Paths, steps: &mut Steps) -> Result<()> {
    steps
        .run(
            "format",
            shell(
                paths,
                "cargo fmt --all --check && test -z \"$(gofmt -l e2e/cluster)\"",
            ),
        )
        .await?;
    steps
        .run("compile", shell(paths, "cargo build --workspace --all-targets"))
        .await?;
    steps
        .run(
            "generated files are up to date",
            shell(paths, "cargo e2e generate --check"),
        )
        .await?;
    steps
        .run(
            "unit tests",
            shell(
                paths,
                "cargo test --workspace --lib --bins && cargo test -p crds --test it",
            ),
        )
        .await?;
    steps
        .run("alerts and dashboards under promtool", alerts::run(paths))
        .await?;
    steps
        .run("what people install: Helm and kustomize", manifests::check(paths))
        .await?;
    let cluster = steps
        .run("build the cluster's programs", Cluster::build(paths, CLUSTER))
        .await?;
    steps
        .run("unit tests of the cluster", shell(paths, CLUSTER_UNIT))
        .await?;
    let before = paths.state.join("host-before-test");
    steps
        .run("take down what the machine is like", cluster.snapshot(&before))
        .await?;
    Box::pin(integration(paths, steps)).await?;
    contract(paths, steps).await?;
    let outcome = end_to_end(paths, steps).await;
    steps.run("remove the cluster", cluster.down()).await?;
    outcome?;
    steps
        .run("the machine is as it was", cluster.check_clean(&before))
        .await
}

async fn integration(paths: &Paths, steps: &mut Steps) -> Result<()> {
    steps
        .run(
            "integration: real PostgreSQL and Redis",
            shell(paths, INTEGRATION),
        )
        .await?;
    steps
        .run(
            "load: one user, then a hundred, played by k6",
            Box::pin(load::smoke(paths)),
        )
        .await
}

/// With the flags of the build, so that Kubernetes is not compiled a second time.
const CLUSTER_UNIT: &str =
    "cd e2e/cluster && CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false' go test ./internal/...";
const INTEGRATION: &str =
    "cargo e2e services run -- cargo test -p api-server --test it && cargo test -p e2e --test it";

/// Tests of the API server that `make test` runs with smaller numbers, with those that show what is claimed.
const API_CAMPAIGNS: [(&str, &str); 4] = [
    (
        "100,000 requests of 100 tenants, with clients that leave",
        "TANKA_ISOLATION_REQUESTS=100000 cargo e2e services run -- cargo test -p api-server --test it -- --nocapture no_tenant_sees_a_foreign_row",
    ),
    (
        "100,000 races of a load with a write",
        "TANKA_TRIALS=100000 cargo e2e services run -- cargo test -p api-server --test it -- --nocapture no_race_of_a_load_with_a_write",
    ),
    (
        "recall of searches through the index, among 6,000 and 60,000 memories of a person",
        "TANKA_MANY_MEMORIES=60000 cargo e2e services run -- cargo test -p api-server --test it -- --nocapture people_with_very_many",
    ),
    (
        "recall of searches among 100 to 30,000 memories of a person",
        "TANKA_MEMORIES=100,1000,10000,30000 cargo e2e services run -- cargo test -p api-server --test it -- --nocapture the_nearest_are_found",
    ),
];

async fn contract(paths: &Paths, steps: &mut Steps) -> Result<()> {
    let cluster = Cluster::build(paths, CONTRACT).await?;
    let work = async {
        cluster
            .up(&["--control-plane-only", "--controller-manager"])
            .await?;
        let kubeconfig = cluster.kubeconfig().await?;
        let line = format!(
            "export TANKA_TEST_KUBECONFIG={}; cargo test -p operator --test it && cargo test -p operator --test optional",
            kubeconfig.display()
        );
        shell(paths, &line).await
    };
    let outcome = steps.run("contract: a real API server", work).await;
    cluster.down().await?;
    outcome?;
    steps
        .run(
            "fault sweep: a sample of all faults of the operator",
            sweep::sample(paths),
        )
        .await
}

async fn end_to_end(paths: &Paths, steps: &mut Steps) -> Result<()> {
    let (cluster, images) = demo::prepare_nodes(paths, steps, CLUSTER, 1).await?;
    if let Ok(boot) = cluster.boot() {
        eprintln!("    from binaries to nodes ready: {:.1} s", boot.total_seconds);
    }
    let outcome = slice::run(&cluster, steps, moment()).await;
    let outcome = match outcome {
        Ok(()) => after_slice(paths, &cluster, &images, steps).await,
        failed => failed,
    };
    if outcome.is_err() {
        let picture = cluster
            .get(&["get", "tankaplatforms,pods,events", "-A"])
            .await
            .unwrap_or_default();
        let log = cluster
            .get(&[
                "-n",
                "tanka-system",
                "logs",
                "-l",
                "app.kubernetes.io/name=tanka-operator",
                "--tail=60",
            ])
            .await
            .unwrap_or_default();
        eprintln!("{picture}\n{log}");
    }
    outcome
}

/// What needs a cluster on which a platform runs: another way to install, and the quick scenarios.
async fn after_slice(
    paths: &Paths,
    cluster: &Cluster,
    images: &install::Images,
    steps: &mut Steps,
) -> Result<()> {
    steps
        .run(
            "every object that runs keeps the rules",
            install::hardened(cluster),
        )
        .await?;
    let tools = Tools::build(paths).await?;
    steps
        .run(
            "from kustomize to Helm, upgrade, removal: no platform notices",
            install::changes_hands(cluster, &tools, images),
        )
        .await?;
    let quick = scenarios::choose(&[], true)?;
    steps
        .run(
            "scenarios, the quick ones",
            scenarios::play(paths, cluster, &quick),
        )
        .await
}

/// Runs a line in the repository, with its output passed on.
pub async fn shell(paths: &Paths, line: &str) -> Result<()> {
    shell_within(paths, line, LAYER_DEADLINE).await
}

/// The same for what may take longer, or must not take as long.
pub async fn shell_within(paths: &Paths, line: &str, deadline: Duration) -> Result<()> {
    run_line(&paths.repo, line, deadline).await
}

async fn run_line(folder: &Path, line: &str, deadline: Duration) -> Result<()> {
    let mut child = Command::new("sh")
        .args(["-ec", line])
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("failed to start sh")?;
    let status = timeout(deadline, child.wait())
        .await
        .with_context(|| format!("took longer than {} s: {line}", deadline.as_secs()))??;
    if !status.success() {
        bail!("this failed: {line}");
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the rim: a new name for each run comes from the time"
)]
fn moment() -> i64 {
    Timestamp::now().as_millisecond()
}
