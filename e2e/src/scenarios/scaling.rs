//! Size: more and fewer pods of the API by the spec and by an autoscaler, of PostgreSQL and Redis, and larger volumes.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Scenario;
use super::ground::{Ground, until};
use super::specs;
use super::subject::Subject;
use super::visitor::Visitor;

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "scale-api",
        shows: "the API grows and shrinks by the spec and by an autoscaler, and the hand-over between them costs no pod",
        quick: false,
        play: |ground| Box::pin(api(ground)),
    },
    Scenario {
        name: "scale-postgres",
        shows: "PostgreSQL grows from one instance to three and to five and shrinks to three, under load",
        quick: false,
        play: |ground| Box::pin(postgres(ground)),
    },
    Scenario {
        name: "scale-redis",
        shows: "Redis grows from one member to three",
        quick: false,
        play: |ground| Box::pin(redis(ground)),
    },
    Scenario {
        name: "scale-volume",
        shows: "a volume grows while it is in use",
        quick: false,
        play: |ground| Box::pin(volume(ground)),
    },
];

/// How long Kubernetes' autoscaler may take to do what it is told.
const AUTOSCALER: Duration = Duration::from_mins(2);
/// Bound of the pause while instances come and go.
const PAUSE: Duration = Duration::from_secs(15);

async fn api(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::single()).await?;
    acme.change(json!({"api": {"replicas": 3}})).await?;
    let up = acme.ready().await?;
    ensure!(acme.pods("api").await?.len() == 3, "the API has not grown");
    ground.note(format!("1 to 3 by the spec in {:.1} s", up.as_secs_f64()));
    never_fewer(&acme, 3, async {
        let autoscaling = json!({"enabled": true, "minReplicas": 2, "maxReplicas": 4, "scaleDown": {"stabilizationWindowSeconds": 0}});
        acme.change(json!({"api": {"autoscaling": autoscaling, "replicas": 1}})).await?;
        acme.ready().await.map(drop)
    })
    .await?;
    acme.change(json!({"api": {"autoscaling": {"minReplicas": 4}}}))
        .await?;
    until("the autoscaler's least number", AUTOSCALER, || async {
        Ok(ready_pods(&acme).await? == 4)
    })
    .await?;
    never_fewer(&acme, 4, async {
        acme.change(json!({"api": {"autoscaling": {"enabled": false}, "replicas": 4}}))
            .await?;
        acme.ready().await?;
        until("the autoscaler to be gone", AUTOSCALER, || async {
            let path = ground.object("autoscaling/v2", "horizontalpodautoscalers", "acme-api");
            Ok(ground.kubernetes.find(&path).await?.is_none())
        })
        .await
        .map(drop)
    })
    .await?;
    acme.change(json!({"api": {"replicas": 1}})).await?;
    until("the API to shrink", AUTOSCALER, || async {
        Ok(acme.pods("api").await?.len() == 1)
    })
    .await?;
    acme.ready().await.map(drop)
}

async fn ready_pods(acme: &Subject<'_>) -> Result<i64> {
    let deployment = acme.ground.object("apps/v1", "deployments", "acme-api");
    let object = acme.ground.kubernetes.get(&deployment).await?;
    Ok(object["status"]["readyReplicas"].as_i64().unwrap_or(0))
}

/// Counts the API's ready pods while something happens: there must never be fewer.
async fn never_fewer(acme: &Subject<'_>, least: i64, event: impl Future<Output = Result<()>>) -> Result<()> {
    let fewest = AtomicI64::new(i64::MAX);
    let watch = async {
        loop {
            if let Ok(ready) = ready_pods(acme).await {
                fewest.fetch_min(ready, Ordering::Relaxed);
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        outcome = event => outcome?,
        () = watch => {}
    }
    let fewest = fewest.into_inner();
    ensure!(
        fewest >= least,
        "there were only {fewest} ready pods, {least} before"
    );
    Ok(())
}

async fn postgres(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::single()).await?;
    let visitor = Visitor::enter(&acme).await?;
    for instances in [3, 5, 3] {
        let title = format!("to {instances} instances");
        visitor
            .writes_through(&acme, &title, PAUSE, async {
                acme.change(json!({"postgres": {"managed": {"instances": instances}}}))
                    .await?;
                acme.ready().await.map(drop)
            })
            .await?;
        let pods = acme.pods("postgres").await?;
        ensure!(
            pods.len() == instances,
            "{} pods for {instances} instances",
            pods.len()
        );
        let status = acme.status().await?;
        ensure!(
            status["postgres"]["ready"] == Value::String(format!("{instances}/{instances}")),
            "the status says {}",
            status["postgres"]
        );
        // Patroni keeps the slot of a member that is gone for ten minutes, should it come back; the log that it holds must have a bound.
        let slots = "SELECT count(*) FILTER (WHERE active) || ' ' || count(*) FILTER (WHERE NOT active AND safe_wal_size IS NULL) \
                     FROM pg_replication_slots";
        let primary = acme.primary().await?;
        until(
            "a slot for each replica, none without a bound",
            PAUSE * 3,
            || async { Ok(ground.sql(&primary, slots).await? == format!("{} 0", instances - 1)) },
        )
        .await?;
    }
    Ok(())
}

async fn redis(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::single()).await?;
    acme.change(json!({"redis": {"managed": {"replicas": 3}}}))
        .await?;
    let took = acme.ready().await?;
    ensure!(
        acme.status().await?["redis"]["ready"] == "3/3",
        "Redis has not grown"
    );
    ground.note(format!("1 to 3 members in {:.1} s", took.as_secs_f64()));
    Ok(())
}

async fn volume(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::single()).await?;
    let before = acme.incarnations().await?;
    acme.change(json!({"postgres": {"managed": {"storage": {"size": "2Gi"}}}}))
        .await?;
    let claim = ground.object("v1", "persistentvolumeclaims", "data-acme-postgres-0");
    let took = until("the volume to have grown", Duration::from_mins(1), || async {
        Ok(ground.kubernetes.get(&claim).await?["status"]["capacity"]["storage"] == "2Gi")
    })
    .await?;
    acme.ready().await?;
    acme.unchanged_since(&before).await?;
    ground.note(format!(
        "1 Gi to 2 Gi in {:.1} s, no pod restarted",
        took.as_secs_f64()
    ));
    Ok(())
}
