//! Truthful status inside the data plane: what stops working is named, and `Ready` is true exactly while a write, a replica read, a
//! Redis round trip and an answer of the API work.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Scenario;
use super::frozen::Frozen;
use super::ground::{Ground, until};
use super::specs;
use super::status::row;
use super::subject::{Complaint, Subject, TOLD_WITHIN};

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "outage-replica",
        shows: "a replica that does not stream, or does not replay, is named",
        quick: false,
        play: |ground| Box::pin(replica(ground)),
    },
    Scenario {
        name: "outage-redis-quorum",
        shows: "Sentinels without a majority are named",
        quick: false,
        play: |ground| Box::pin(redis_quorum(ground)),
    },
    Scenario {
        name: "outage-ready",
        shows: "Ready is true exactly while a write, a replica read, a Redis round trip and the API work",
        quick: false,
        play: |ground| Box::pin(ready(ground)),
    },
];

/// How long a part may need to work again once nothing is in its way.
const RECOVERY: Duration = Duration::from_mins(2);

async fn replica(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::full()).await?;
    let replicas = acme.replicas().await?;
    let victim = replicas.first().context("no replica")?.clone();
    let complaint = Complaint::new("DatabaseReady", "ReplicaNotStreaming|ReplicaLagging", &[&victim]);
    row(
        &acme,
        "stream cut",
        &complaint,
        async {
            let frozen = Frozen::process(ground, &victim, "walreceiver").await?;
            streaming(&acme, 1).await?;
            Ok(frozen)
        },
        async |frozen| {
            drop(frozen);
            streaming(&acme, 2).await
        },
    )
    .await?;
    acme.ready().await?;
    // A replay that is merely paused Patroni itself resumes within a loop; one that hangs it does not see.
    row(
        &acme,
        "replay hangs",
        &complaint,
        Frozen::process(ground, &victim, "startup recovering"),
        async |frozen| {
            drop(frozen);
            let query = "SELECT pg_last_wal_receive_lsn() - pg_last_wal_replay_lsn() < 100000";
            until("the replica to catch up", RECOVERY, || async {
                Ok(ground.sql(&victim, query).await? == "t")
            })
            .await
            .map(drop)
        },
    )
    .await?;
    acme.ready().await.map(drop)
}

/// Waits until that many replicas stream, as the primary itself sees it.
async fn streaming(acme: &Subject<'_>, number: u8) -> Result<()> {
    let primary = acme.primary().await?;
    let wanted = number.to_string();
    let query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    until("the primary to see the stream", RECOVERY, || async {
        Ok(acme.ground.sql(&primary, query).await? == wanted)
    })
    .await
    .map(drop)
}

async fn redis_quorum(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::full()).await?;
    let complaint = Complaint::new("CacheReady", "NoQuorum", &["acme-redis"]);
    row(
        &acme,
        "no majority of Sentinels",
        &complaint,
        async {
            let mut frozen = Vec::new();
            for pod in ["acme-redis-1", "acme-redis-2"] {
                frozen.push(Frozen::process(ground, pod, "[sentinel]").await?);
            }
            Ok(frozen)
        },
        async |frozen| {
            drop(frozen);
            Ok(())
        },
    )
    .await?;
    acme.ready().await.map(drop)
}

async fn ready(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::full()).await?;
    let postgres = acme.pod_names("postgres").await?;
    let redis = acme.pod_names("redis").await?;
    let api = acme.pod_names("api").await?;
    outage(&acme, "API", &api, "tanka-api").await?;
    outage(&acme, "Redis", &redis, "redis-server").await?;
    outage(&acme, "replicas", &acme.replicas().await?, "postgres").await?;
    outage(&acme, "all of PostgreSQL", &postgres, "postgres").await
}

/// Freezes the processes of some pods: `Ready` must be false within ten seconds, and true again once they go on.
async fn outage(acme: &Subject<'_>, title: &str, pods: &[String], word: &str) -> Result<()> {
    let ground = acme.ground;
    let mut frozen = Vec::new();
    for pod in pods {
        frozen.push(Frozen::process(ground, pod, word).await?);
    }
    let begun = std::time::Instant::now();
    let is =
        |wanted: &'static str| move || async move { Ok(acme.condition("Ready").await?["status"] == wanted) };
    let outcome =
        super::ground::until_since(begun, &format!("{title}: Ready=False"), TOLD_WITHIN, is("False")).await;
    drop(frozen);
    let named = match outcome {
        Ok(took) => took,
        Err(error) => return Err(error.context(acme.summary().await)),
    };
    let again = acme
        .settles()
        .await
        .with_context(|| format!("{title}: after the outage"))?;
    ground.note(format!(
        "{title}: unready after {:.1} s, ready again after {:.1} s",
        named.as_secs_f64(),
        again.as_secs_f64()
    ));
    Ok(())
}
