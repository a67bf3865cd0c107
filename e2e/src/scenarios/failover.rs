//! Loss of a primary, of its node, and what people do on purpose: nothing that was acknowledged is lost, and writes go on by
//! themselves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Scenario;
use super::frozen::Frozen;
use super::ground::{Ground, until, until_since};
use super::operator;
use super::specs;
use super::subject::Subject;
use super::visitor::Visitor;

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "failover-primary-pod",
        shows: "the primary's pod is deleted under load: another takes over, nothing acknowledged is lost",
        quick: false,
        play: |ground| Box::pin(primary_pod(ground)),
    },
    Scenario {
        name: "failover-primary-hangs",
        shows: "a primary that hangs with everything in its pod is replaced, and takes no write when it wakes up",
        quick: false,
        play: |ground| Box::pin(primary_hangs(ground)),
    },
    Scenario {
        name: "failover-no-operator",
        shows: "PostgreSQL and Redis fail over while no operator runs",
        quick: false,
        play: |ground| Box::pin(without_operator(ground)),
    },
    Scenario {
        name: "failover-node-loss",
        shows: "the primary's node is lost: writes go on, and the platform is whole again when the node is back",
        quick: false,
        play: |ground| Box::pin(node_loss(ground)),
    },
    Scenario {
        name: "failover-drain",
        shows: "a drained node's pods leave one after the other, as the budgets say, under load",
        quick: false,
        play: |ground| Box::pin(drain(ground)),
    },
];

/// How long a takeover may take whatever happened.
const TAKEOVER: Duration = Duration::from_mins(2);
/// Bound of the pause when a primary's pod ends in good order.
const ORDERLY: Duration = Duration::from_secs(15);
/// Bound of the pause when nobody could let go of the lock: its time to live, and a loop and the promotion.
const SUDDEN: Duration = Duration::from_secs(40);

/// Whether Patroni itself has marked another pod as primary. One that hangs cannot take its own mark away.
async fn has_other_primary(acme: &Subject<'_>, than: &str) -> Result<bool> {
    let pods = acme.pods("postgres").await?;
    Ok(pods.iter().any(|pod| {
        pod["metadata"]["labels"]["tanka.dev/postgres-role"] == "primary" && super::subject::name(pod) != than
    }))
}

async fn another_primary(acme: &Subject<'_>, than: &str) -> Result<()> {
    until("another primary", TAKEOVER, || async {
        has_other_primary(acme, than).await
    })
    .await
    .map(drop)
}

async fn primary_pod(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::full()).await?;
    let visitor = Visitor::enter(&acme).await?;
    let before = acme.primary().await?;
    visitor
        .writes_through(&acme, "primary's pod deleted", ORDERLY, async {
            ground
                .kubernetes
                .delete(&ground.object("v1", "pods", &before))
                .await?;
            another_primary(&acme, &before).await?;
            acme.ready().await.map(drop)
        })
        .await?;
    let status = acme.status().await?;
    let failover = &status["postgres"]["lastFailover"];
    ensure!(
        failover["from"] == before.as_str(),
        "the status tells of another failover: {failover}"
    );
    Ok(())
}

async fn primary_hangs(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::full()).await?;
    let visitor = Visitor::enter(&acme).await?;
    let before = acme.primary().await?;
    visitor
        .writes_through(&acme, "primary hangs", SUDDEN, async {
            let frozen = Frozen::pod(ground, &before).await?;
            another_primary(&acme, &before).await?;
            drop(frozen);
            acme.ready().await.map(drop)
        })
        .await
        .map(drop)
}

async fn without_operator(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::full()).await?;
    let visitor = Visitor::enter(&acme).await?;
    let postgres = acme.primary().await?;
    let redis = acme.status().await?["redis"]["primary"]
        .as_str()
        .context("status names no primary of Redis")?
        .to_owned();
    operator::scale(ground, 0).await?;
    let outcome = visitor
        .writes_through(&acme, "no operator", ORDERLY, async {
            ground
                .kubernetes
                .delete(&ground.object("v1", "pods", &postgres))
                .await?;
            ground
                .kubernetes
                .delete(&ground.object("v1", "pods", &redis))
                .await?;
            another_primary(&acme, &postgres).await?;
            until("all pods to be ready", TAKEOVER, || all_ready(&acme))
                .await
                .map(drop)
        })
        .await;
    operator::scale(ground, 2).await?;
    outcome?;
    acme.ready().await?;
    let status = acme.status().await?;
    ensure!(
        status["redis"]["primary"] != redis.as_str(),
        "Redis has not failed over: {}",
        status["redis"]
    );
    Ok(())
}

async fn all_ready(acme: &Subject<'_>) -> Result<bool> {
    for (component, number) in [("postgres", 3), ("redis", 3), ("api", 2)] {
        let pods = acme.pods(component).await?;
        let ready = pods.iter().filter(|pod| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        });
        if ready.count() < number {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn node_loss(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::full()).await?;
    // The way in leads through node 1, which must not be the one that is lost.
    let primary = acme.primary().await?;
    if node_of(&acme, &primary).await? == 1 {
        ground
            .kubernetes
            .delete(&ground.object("v1", "pods", &primary))
            .await?;
        another_primary(&acme, &primary).await?;
        acme.ready().await?;
    }
    let before = acme.primary().await?;
    let node = node_of(&acme, &before).await?;
    ensure!(
        node != 1,
        "both primaries were on node 1: the pods are not spread"
    );
    let visitor = Visitor::enter(&acme).await?;
    let outcome = visitor
        .writes_through(&acme, "node lost", SUDDEN, async {
            ground.cluster.kill_node(node).await?;
            another_primary(&acme, &before).await
        })
        .await;
    ground.cluster.start_node(node).await?;
    outcome?;
    let begun = Instant::now();
    let took = acme.ready_since(begun, Duration::from_mins(5)).await?;
    ground.note(format!(
        "whole {:.1} s after the node's return",
        took.as_secs_f64()
    ));
    Ok(())
}

async fn node_of(acme: &Subject<'_>, pod: &str) -> Result<u8> {
    let object = acme
        .ground
        .kubernetes
        .get(&acme.ground.object("v1", "pods", pod))
        .await?;
    let name = object["spec"]["nodeName"].as_str().unwrap_or_default();
    name.rsplit('-')
        .next()
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{pod} runs on {name:?}, which is no node of a local cluster"))
}

async fn drain(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::full()).await?;
    let primary = acme.primary().await?;
    let node = format!("node-{}", node_of(&acme, &primary).await?);
    let visitor = Visitor::enter(&acme).await?;
    let outcome = visitor
        .writes_through(&acme, "node drained", ORDERLY, async {
            let begun = Instant::now();
            let arguments = [
                "drain",
                &node,
                "--ignore-daemonsets",
                "--delete-emptydir-data",
                "--force",
                "--timeout=110s",
            ];
            ground.cluster.get(&arguments).await?;
            ground.note(format!("drained in {:.1} s", begun.elapsed().as_secs_f64()));
            until_since(begun, "another primary", TAKEOVER, || async {
                has_other_primary(&acme, &primary).await
            })
            .await
            .map(drop)
        })
        .await;
    ground.cluster.get(&["uncordon", &node]).await?;
    outcome?;
    acme.ready().await.map(drop)
}
