//! `make bench`: how long a cluster takes to boot, a platform to be ready, and writes to work again after the primary is lost.
//! Figures, not verdicts: nothing fails because a machine is slow.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;

use crate::client::Client;
use crate::cluster::Cluster;
use crate::demo;
use crate::journey;
use crate::paths::Paths;
use crate::platform::Platform;
use crate::stage::Steps;
use crate::writer::Writer;

/// Cluster of the benchmark: nobody else's.
const CLUSTER: &str = "tanka-bench";
/// Runs of each figure.
const ROUNDS: usize = 3;
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_mins(5);

/// Measures, and prints one line a figure.
pub async fn run(paths: &Paths) -> Result<()> {
    let mut steps = Steps::default();
    let cluster = Cluster::build(paths, CLUSTER).await?;
    let outcome = measure(paths, &cluster, &mut steps).await;
    cluster.down().await?;
    outcome
}

async fn measure(paths: &Paths, cluster: &Cluster, steps: &mut Steps) -> Result<()> {
    let mut boots = Vec::new();
    for _ in 0..ROUNDS {
        cluster.down().await?;
        steps.run("boot", cluster.up(&[])).await?;
        boots.push(cluster.boot()?.total_seconds);
    }
    demo::prepare(paths, steps, CLUSTER).await?;
    let mut readies = Vec::new();
    let mut gaps = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("bench-{round}");
        let platform = Platform::new(cluster, &name);
        cluster
            .apply(&format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"
            ))
            .await?;
        let manifest = format!(
            "apiVersion: tanka.dev/v1alpha1\nkind: TankaPlatform\nmetadata: {{name: {name}, namespace: {name}}}\nspec: {{}}\n"
        );
        cluster.apply(&manifest).await?;
        readies.push(
            steps
                .run("from kubectl apply to Ready", platform.ready(PATIENCE))
                .await?
                .as_secs_f64(),
        );
        gaps.push(
            steps
                .run("delete the primary's pod", failover(&platform))
                .await?
                .as_secs_f64(),
        );
        steps
            .run(
                "delete the platform",
                platform
                    .cluster
                    .get(&["delete", "namespace", &name, "--timeout=120s"]),
            )
            .await?;
    }
    println!(
        "{} logical cores; minimum, median and maximum of {ROUNDS} runs",
        std::thread::available_parallelism()?
    );
    line(
        "boot, from cached binaries to nodes ready and DNS answering",
        boots,
    );
    line("from kubectl apply to Ready", readies);
    line("longest pause of writes when the primary's pod is deleted", gaps);
    Ok(())
}

async fn failover(platform: &Platform<'_>) -> Result<Duration> {
    let door = platform
        .cluster
        .expose(&platform.namespace, &format!("{}-api", platform.name), 8000)
        .await?;
    let person = journey::join(&Client::new(&door.address), moment()).await?;
    let conversation = person.open_conversation("bench").await?;
    let before = platform.primary().await?;
    let writer = Writer::start(&person.client, &conversation, "steady");
    platform
        .kubectl(&["delete", "pod", &before, "--wait=false"])
        .await?;
    Cluster::wait("another primary", PATIENCE, || async {
        Ok(platform.primary().await.is_ok_and(|now| now != before))
    })
    .await?;
    platform.ready(PATIENCE).await?;
    let record = writer.finish().await?;
    ensure!(record.failures == 0, "{} requests failed", record.failures);
    Ok(record.longest_gap)
}

fn line(title: &str, mut seconds: Vec<f64>) {
    seconds.sort_by(f64::total_cmp);
    if let [first, .., last] = seconds.as_slice() {
        println!(
            "  {title}: {first:.2} / {:.2} / {last:.2} s",
            seconds[seconds.len() / 2]
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the rim: a new name for each run comes from the time"
)]
fn moment() -> i64 {
    Timestamp::now().as_millisecond()
}
