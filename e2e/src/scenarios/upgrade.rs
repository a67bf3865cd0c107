//! Change of what runs: images, parameters, resources. It comes to the serving pods only after it has shown that it works, one pod
//! at a time, and under load costs at most a short pause.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Scenario;
use super::ground::{Ground, until, until_since};
use super::specs;
use super::status::{SHORT_PEPPER, restart, set_pepper};
use super::subject::{Complaint, Subject, TOLD_WITHIN, condition};
use super::visitor::Visitor;

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "upgrade-failing-migration",
        shows: "a migration that fails is told of with its last words; serving pods are untouched; a correction goes on by itself",
        quick: false,
        play: |ground| Box::pin(failing_migration(ground)),
    },
    Scenario {
        name: "upgrade-canary",
        shows: "a release that never gets ready stops at its first pod; a correction goes on by itself",
        quick: false,
        play: |ground| Box::pin(canary(ground)),
    },
    Scenario {
        name: "upgrade-api",
        shows: "the API rolls to another template without a failed request",
        quick: false,
        play: |ground| Box::pin(api(ground)),
    },
    Scenario {
        name: "upgrade-postgres",
        shows: "PostgreSQL rolls one pod at a time, the primary last and after a switchover, under load",
        quick: false,
        play: |ground| Box::pin(postgres(ground)),
    },
    Scenario {
        name: "upgrade-redis",
        shows: "Redis rolls one pod at a time, under load",
        quick: false,
        play: |ground| Box::pin(redis(ground)),
    },
    Scenario {
        name: "upgrade-parameters",
        shows: "a parameter that can be reloaded restarts nothing; one that needs a restart is in force everywhere afterwards",
        quick: false,
        play: |ground| Box::pin(parameters(ground)),
    },
];

/// How long a rollout of three pods may take.
const ROLLOUT: Duration = Duration::from_mins(5);
/// Bound of the pause of writes at a switchover.
const SWITCHOVER: Duration = Duration::from_secs(10);
/// A Job's retries take their time.
const GIVEN_UP_WITHIN: Duration = Duration::from_mins(5);

/// The image of an operator's pod: it exists on every node, and knows neither `migrate` nor `serve`.
async fn foreign_image(ground: &Ground<'_>) -> Result<String> {
    let path = "/apis/apps/v1/namespaces/tanka-system/deployments/tanka-operator";
    let object = ground.kubernetes.get(path).await?;
    let image = object["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
    Ok(image.context("the operator has no image")?.to_owned())
}

async fn failing_migration(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::single()).await?;
    let before = acme.incarnations().await?;
    let image = foreign_image(ground).await?;
    acme.change(json!({"images": {"apiServer": image}})).await?;
    let failed = until("the first try to fail", GIVEN_UP_WITHIN, || async {
        let pods = acme.pods("migrate").await?;
        Ok(pods.iter().any(|pod| pod["status"]["phase"] == "Failed"))
    });
    failed.await?;
    let begun = Instant::now();
    let told = until_since(begun, "the last words of the migration", TOLD_WITHIN, || async {
        let condition = acme.condition("MigrationsApplied").await?;
        let message = condition["message"].as_str().unwrap_or_default();
        Ok(condition["status"] == "False" && message.contains("acme-migrate-") && message.contains("--help"))
    });
    let told = told.await.context(acme.summary().await)?;
    let complaint = Complaint::new("MigrationsApplied", "MigrationFailed", &["acme-migrate-"]);
    let given_up = acme
        .complains(Instant::now(), &complaint, GIVEN_UP_WITHIN)
        .await?;
    acme.unchanged_since(&before).await?;
    acme.change(json!({"images": {"apiServer": ""}})).await?;
    let again = acme.ready().await?;
    acme.unchanged_since(&before).await?;
    ground.note(format!(
        "last words after {:.1} s, given up after {:.1} s, ready {:.1} s after the correction",
        told.as_secs_f64(),
        given_up.as_secs_f64(),
        again.as_secs_f64()
    ));
    Ok(())
}

async fn canary(ground: &Ground<'_>) -> Result<()> {
    let spec = specs::with(specs::single(), &json!({"api": {"replicas": 2}}));
    let acme = ground.ready_platform(&spec).await?;
    let before = acme.pod_names("api").await?;
    let pepper = set_pepper(&acme, SHORT_PEPPER).await?;
    acme.change(restart("1")).await?;
    until("a pod that does not get ready", ROLLOUT, || async {
        Ok(acme.pods("api").await?.len() == 3)
    })
    .await?;
    acme.status_says("a release that is stuck", ROLLOUT, |status| {
        condition(status, "ApiReady")["reason"] == "CrashLoop"
    })
    .await?;
    let during = acme.pod_names("api").await?;
    ensure!(
        before.iter().all(|pod| during.contains(pod)) && during.len() == 3,
        "serving pods were touched: {before:?} became {during:?}"
    );
    ensure!(
        acme.condition("Ready").await?["status"] == "True",
        "the platform no longer works"
    );
    set_pepper(&acme, &pepper).await?;
    // As the spec was at first: the pods that serve are the ones that it asks for.
    acme.change(json!({"api": {"podTemplate": {"annotations": null}}}))
        .await?;
    let again = acme.ready().await?;
    let after = acme.pod_names("api").await?;
    ensure!(
        before == after,
        "serving pods were touched: {before:?} became {after:?}"
    );
    ground.note(format!("ready {:.1} s after the correction", again.as_secs_f64()));
    Ok(())
}

async fn api(ground: &Ground<'_>) -> Result<()> {
    let spec = specs::with(specs::single(), &json!({"api": {"replicas": 2}}));
    let acme = ground.ready_platform(&spec).await?;
    let visitor = Visitor::enter(&acme).await?;
    let record = visitor
        .writes_through(&acme, "API rolls", SWITCHOVER, async {
            acme.change(json!({"api": {"podTemplate": {"annotations": {"example.com/roll": "1"}}}}))
                .await?;
            acme.ready().await.map(drop)
        })
        .await?;
    ensure!(record.failures == 0, "{} requests failed", record.failures);
    Ok(())
}

/// Rolls a component by a change of its resources, and watches that never more than one of its pods is missing.
async fn rolls(acme: &Subject<'_>, component: &str) -> Result<()> {
    let before = acme.incarnations().await?;
    let change = json!({component: {"managed": {"resources": {"requests": {"cpu": "11m"}}}}});
    let most = std::cell::Cell::new(0);
    acme.change(change).await?;
    until("the rollout", ROLLOUT, || async {
        let pods = acme.pods(component).await?;
        let ready = pods.iter().filter(|pod| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        });
        let ready = ready.count();
        most.set(most.get().max(3_usize.saturating_sub(ready)));
        let changed = |pod: &serde_json::Value| {
            let containers = pod["spec"]["containers"].as_array();
            let mut own = containers
                .into_iter()
                .flatten()
                .filter(|c| c["name"] == component);
            own.any(|c| c["resources"]["requests"]["cpu"] == "11m")
        };
        Ok(ready == 3 && pods.iter().all(changed))
    })
    .await
    .context(acme.summary().await)?;
    acme.ready().await?;
    ensure!(
        most.get() <= 1,
        "{} pods of {component} were missing at the same time",
        most.get()
    );
    let after = acme.incarnations().await?;
    let others = |all: &[String]| {
        all.iter()
            .filter(|line| !line.contains(component))
            .cloned()
            .collect::<Vec<_>>()
    };
    ensure!(
        others(&before) == others(&after),
        "pods of other components were touched"
    );
    Ok(())
}

async fn postgres(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::full()).await?;
    let visitor = Visitor::enter(&acme).await?;
    let timeline = acme.status().await?["postgres"]["timeline"].as_i64().unwrap_or(0);
    visitor
        .writes_through(&acme, "PostgreSQL rolls", SWITCHOVER, rolls(&acme, "postgres"))
        .await?;
    let after = acme.status().await?["postgres"]["timeline"].as_i64().unwrap_or(0);
    ensure!(
        after - timeline <= 1,
        "the primary changed {} times, once is enough",
        after - timeline
    );
    Ok(())
}

async fn redis(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::full()).await?;
    let visitor = Visitor::enter(&acme).await?;
    let record = visitor
        .writes_through(&acme, "Redis rolls", SWITCHOVER, rolls(&acme, "redis"))
        .await?;
    ensure!(record.failures == 0, "{} requests failed", record.failures);
    Ok(())
}

async fn parameters(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::full()).await?;
    let before = acme.incarnations().await?;
    let everywhere = |name: &'static str, value: &'static str| {
        let acme = &acme;
        move || async move {
            for pod in acme.pod_names("postgres").await? {
                if acme.ground.sql(&pod, &format!("SHOW {name}")).await? != value {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    };
    acme.change(json!({"postgres": {"managed": {"parameters": {"log_min_duration_statement": "1234ms"}}}}))
        .await?;
    let reloaded = until(
        "a parameter that is reloaded",
        ROLLOUT,
        everywhere("log_min_duration_statement", "1234ms"),
    )
    .await?;
    acme.ready().await?;
    acme.unchanged_since(&before).await?;
    let visitor = Visitor::enter(&acme).await?;
    visitor
        .writes_through(&acme, "restart for a parameter", SWITCHOVER, async {
            acme.change(json!({"postgres": {"managed": {"parameters": {"max_connections": "150"}}}}))
                .await?;
            until(
                "a parameter that needs a restart",
                ROLLOUT,
                everywhere("max_connections", "150"),
            )
            .await?;
            acme.ready().await.map(drop)
        })
        .await?;
    ground.note(format!(
        "reloaded everywhere after {:.1} s",
        reloaded.as_secs_f64()
    ));
    Ok(())
}
