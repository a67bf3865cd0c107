//! Truthful status: whatever goes wrong, a condition names the object and the cause within ten seconds, and falls silent within ten
//! seconds once the cause is gone. Here is what goes wrong around the pods; what goes wrong inside the data plane is in `outages`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Scenario;
use super::ground::{Ground, until};
use super::specs;
use super::subject::{Complaint, Subject, TOLD_WITHIN};

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "status-api-pods",
        shows: "a wrong image, a node that does not exist and a crash loop are named; the pods that serve are left alone",
        quick: true,
        play: |ground| Box::pin(api_pods(ground)),
    },
    Scenario {
        name: "status-quota",
        shows: "a quota that refuses pods is named",
        quick: false,
        play: |ground| Box::pin(quota(ground)),
    },
    Scenario {
        name: "status-volume",
        shows: "a volume that waits for a storage class that does not exist is named",
        quick: false,
        play: |ground| Box::pin(volume(ground)),
    },
    Scenario {
        name: "status-name-conflict",
        shows: "an object of a needed name that belongs to somebody else is named and left alone",
        quick: false,
        play: |ground| Box::pin(name_conflict(ground)),
    },
];

/// A pepper with which the API does not start: five bytes.
pub const SHORT_PEPPER: &str = "c2hvcnQ=";
/// How long Kubernetes itself may take until a cause shows, or is gone.
const KUBERNETES: Duration = Duration::from_mins(2);

/// One row: `harm` ends when the cause is there, `mend` when it is gone. From then on the status has its ten seconds each. What `harm`
/// answers with is kept until it is mended.
pub async fn row<T>(
    subject: &Subject<'_>,
    title: &str,
    complaint: &Complaint<'_>,
    harm: impl Future<Output = Result<T>>,
    mend: impl AsyncFnOnce(T) -> Result<()>,
) -> Result<()> {
    let harm = harm.await.with_context(|| format!("{title}: harm"))?;
    let named = subject
        .complains(Instant::now(), complaint, TOLD_WITHIN)
        .await
        .with_context(|| title.to_owned())?;
    mend(harm).await.with_context(|| format!("{title}: mend"))?;
    let silent = subject
        .falls_silent(Instant::now(), complaint, TOLD_WITHIN)
        .await
        .with_context(|| title.to_owned())?;
    subject.ground.note(format!(
        "{title}: named after {:.1} s, silent after {:.1} s",
        named.as_secs_f64(),
        silent.as_secs_f64()
    ));
    Ok(())
}

async fn api_pods(ground: &Ground<'_>) -> Result<()> {
    const WRONG: &str = "localhost/tanka/no-such-image:9.9";
    let acme = ground.ready_platform(&specs::single()).await?;
    let serving = acme.incarnations().await?;
    row(
        &acme,
        "wrong image",
        &Complaint::new("MigrationsApplied", "ImagePullFailed", &[WRONG, "acme-migrate-"]),
        acme.change(json!({"images": {"apiServer": WRONG}})),
        async |()| acme.change(json!({"images": {"apiServer": ""}})).await,
    )
    .await?;
    acme.ready().await?;
    acme.unchanged_since(&serving).await?;
    let selector = |value| json!({"api": {"podTemplate": {"nodeSelector": value}}});
    row(
        &acme,
        "no node",
        &Complaint::new(
            "ApiReady",
            "Unschedulable",
            &["acme-api-", "node affinity/selector"],
        ),
        acme.change(selector(json!({"tanka.dev/no-such": "node"}))),
        async |()| acme.change(selector(json!(null))).await,
    )
    .await?;
    acme.ready().await?;
    acme.unchanged_since(&serving).await?;
    let pepper = set_pepper(&acme, SHORT_PEPPER).await?;
    row(
        &acme,
        "crash loop",
        &Complaint::new("ApiReady", "CrashLoop", &["acme-api-", "the pepper has 5 bytes"]),
        async {
            acme.change(restart("1")).await?;
            until("a crash loop", KUBERNETES, || crashes(&acme))
                .await
                .map(drop)
        },
        async |()| {
            set_pepper(&acme, &pepper).await?;
            acme.change(restart("2")).await
        },
    )
    .await?;
    acme.ready().await.map(drop)
}

/// A change of the spec that makes new API pods.
pub fn restart(number: &str) -> serde_json::Value {
    json!({"api": {"podTemplate": {"annotations": {"tanka.dev/scenario": number}}}})
}

/// Exchanges the pepper in its Secret, as base64; answers with the one before.
pub async fn set_pepper(acme: &Subject<'_>, pepper: &str) -> Result<String> {
    let ground = acme.ground;
    let path = ground.object("v1", "secrets", "acme-api");
    let secret = ground.kubernetes.get(&path).await?;
    let (key, before) = secret["data"]
        .as_object()
        .and_then(|data| data.iter().next())
        .context("the Secret is empty")?;
    ground
        .kubernetes
        .merge(&path, &json!({"data": {key: pepper}}))
        .await?;
    Ok(before.as_str().unwrap_or_default().to_owned())
}

async fn crashes(acme: &Subject<'_>) -> Result<bool> {
    let pods = acme.pods("api").await?;
    let mut containers = pods
        .iter()
        .filter_map(|pod| pod["status"]["containerStatuses"].as_array())
        .flatten();
    Ok(containers.any(|container| container["state"]["waiting"]["reason"] == "CrashLoopBackOff"))
}

async fn quota(ground: &Ground<'_>) -> Result<()> {
    ground
        .apply(
            "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: no-room}\nspec: {hard: {pods: \"0\"}}\n",
        )
        .await?;
    let used = [
        "get",
        "resourcequota",
        "no-room",
        "-o",
        "jsonpath={.status.used.pods}",
    ];
    until("the quota to count", KUBERNETES, || async {
        Ok(ground.kubectl(&used).await? == "0")
    })
    .await?;
    let acme = ground.platform(&specs::single()).await?;
    let complaint = Complaint::new("DatabaseReady", "PodsRefused", &["acme-postgres", "no-room"]);
    row(&acme, "quota", &complaint, async { Ok(()) }, async |()| {
        ground.kubectl(&["delete", "resourcequota", "no-room"]).await?;
        // The controllers of Kubernetes try again when they think fit, which is not ours to hasten.
        let made = until("pods to be made", KUBERNETES, || async {
            Ok(!acme.pods("postgres").await?.is_empty() && !acme.pods("redis").await?.is_empty())
        })
        .await?;
        ground.note(format!("Kubernetes made pods after {:.1} s", made.as_secs_f64()));
        Ok(())
    })
    .await?;
    acme.ready().await.map(drop)
}

async fn volume(ground: &Ground<'_>) -> Result<()> {
    const CLASS: &str = "no-such-class";
    let class = ["delete", "storageclass", CLASS, "--ignore-not-found"];
    ground.cluster.get(&class).await?;
    let spec = specs::with(
        specs::single(),
        &json!({"postgres": {"managed": {"storage": {"storageClassName": CLASS}}}}),
    );
    let acme = ground.platform(&spec).await?;
    let complaint = Complaint::new("DatabaseReady", "VolumePending", &["acme-postgres-0", CLASS]);
    let outcome = row(&acme, "no storage class", &complaint, async { Ok(()) }, async |()| {
        let copy = ["get", "storageclass", "standard", "-o", "jsonpath={.provisioner}"];
        let provisioner = ground.cluster.get(&copy).await?;
        ground
            .cluster
            .apply(&format!(
                "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: {CLASS}}}\nprovisioner: {provisioner}\nvolumeBindingMode: WaitForFirstConsumer\n"
            ))
            .await?;
        let phase = ["get", "pvc", "data-acme-postgres-0", "-o", "jsonpath={.status.phase}"];
        let bound = until("the volume to be bound", KUBERNETES, || async { Ok(ground.kubectl(&phase).await? == "Bound") }).await?;
        ground.note(format!("Kubernetes bound the volume after {:.1} s", bound.as_secs_f64()));
        Ok(())
    })
    .await;
    let ready = match outcome {
        Ok(()) => acme.ready().await.map(drop),
        failed => failed,
    };
    ground.cluster.get(&class).await?;
    ready
}

async fn name_conflict(ground: &Ground<'_>) -> Result<()> {
    ground
        .apply(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: acme-api-config}\ndata: {theirs: \"yes\"}\n",
        )
        .await?;
    let acme = ground.platform(&specs::single()).await?;
    let complaint = Complaint::new(
        "ApiReady",
        "NameConflict",
        &["ConfigMap \"acme-api-config\"", "somebody else"],
    );
    // The parts that come before it in the order of need are ready before it is the first thing that is wrong.
    let harm = async {
        until("the database to be ready", KUBERNETES, || async {
            Ok(acme.condition("MigrationsApplied").await?["status"] == "True")
        })
        .await
        .map(drop)
    };
    let mend = async |()| {
        let data = ["get", "configmap", "acme-api-config", "-o", "jsonpath={.data}"];
        let theirs = ground.kubectl(&data).await?;
        ensure!(
            theirs == r#"{"theirs":"yes"}"#,
            "somebody else's object was changed: {theirs}"
        );
        ground
            .kubectl(&["delete", "configmap", "acme-api-config"])
            .await
            .map(drop)
    };
    row(&acme, "name taken", &complaint, harm, mend).await?;
    acme.ready().await.map(drop)
}
