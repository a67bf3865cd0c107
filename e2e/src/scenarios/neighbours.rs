//! Platforms beside each other: what happens to one leaves the others alone.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::Scenario;
use super::ground::{Ground, until};
use super::operator;
use super::specs;
use super::subject::TOLD_WITHIN;
use super::visitor::Visitor;

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "neighbours-same-namespace",
        shows: "two platforms in one namespace, one named like a part of the other, do not touch each other",
        quick: false,
        play: |ground| Box::pin(same_namespace(ground)),
    },
    Scenario {
        name: "neighbours-unreadable",
        shows: "a platform that cannot be read stops nothing else",
        quick: false,
        play: |ground| Box::pin(unreadable(ground)),
    },
    Scenario {
        name: "neighbours-paused",
        shows: "a paused platform is left as it is, and told about; changes wait until it goes on",
        quick: false,
        play: |ground| Box::pin(paused(ground)),
    },
];

/// Several of the operator's regular looks.
const SEVERAL_LOOKS: Duration = Duration::from_secs(12);

async fn same_namespace(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::single()).await?;
    let visitor = Visitor::enter(&acme).await?;
    let before = acme.incarnations().await?;
    let other = ground.platform_named("acme-postgres", &specs::single()).await?;
    let took = other.ready().await?;
    ground.note(format!("the second ready after {:.1} s", took.as_secs_f64()));
    acme.unchanged_since(&before).await?;
    let stranger = visitor.person.client.get("/api/v1/auth/me", &[]).await?;
    ensure!(
        stranger.status == 200,
        "the first platform answers {}",
        stranger.status
    );
    other.delete().await?;
    until("the second to go", Duration::from_mins(2), || async {
        Ok(other.pods("postgres").await?.is_empty() && other.pods("api").await?.is_empty())
    })
    .await?;
    acme.ready().await?;
    acme.unchanged_since(&before).await
}

async fn unreadable(ground: &Ground<'_>) -> Result<()> {
    // The schema leaves this field to Kubernetes; as a toleration it makes no sense.
    let nonsense = specs::with(
        specs::single(),
        &json!({"api": {"podTemplate": {"tolerations": [{"tolerationSeconds": "soon"}]}}}),
    );
    ground.platform_named("nonsense", &nonsense).await?;
    let acme = ground.ready_platform(&specs::single()).await?;
    operator::restart(ground).await?;
    let deployment = ground.object("apps/v1", "deployments", "acme-api");
    acme.change(json!({"api": {"replicas": 2}})).await?;
    let took = until("a change of the other platform", TOLD_WITHIN * 3, || async {
        Ok(ground.kubernetes.get(&deployment).await?["spec"]["replicas"] == 2)
    })
    .await?;
    ground.note(format!(
        "the other platform changes after {:.1} s",
        took.as_secs_f64()
    ));
    acme.ready().await.map(drop)
}

async fn paused(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::single()).await?;
    let deployment = ground.object("apps/v1", "deployments", "acme-api");
    let replicas =
        || async { anyhow::Ok(ground.kubernetes.get(&deployment).await?["spec"]["replicas"].clone()) };
    acme.change(json!({"paused": true})).await?;
    acme.change(json!({"api": {"replicas": 2}})).await?;
    ground
        .kubernetes
        .delete(&ground.object("v1", "services", "acme-postgres-ro"))
        .await?;
    tokio::time::sleep(SEVERAL_LOOKS).await;
    ensure!(replicas().await? == 1, "a paused platform was changed");
    // Health goes on being told.
    ground
        .kubernetes
        .delete(&ground.object("v1", "pods", "acme-postgres-0"))
        .await?;
    acme.status_says("an outage that is told of", TOLD_WITHIN, |status| {
        super::subject::condition(status, "Ready")["status"] == "False"
    })
    .await?;
    acme.change(json!({"paused": false})).await?;
    let took = acme.ready().await?;
    ensure!(replicas().await? == 2, "the change was forgotten");
    ground.note(format!("up to date {:.1} s after it went on", took.as_secs_f64()));
    Ok(())
}
