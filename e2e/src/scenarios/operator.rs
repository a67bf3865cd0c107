//! The operator itself: it can be lost, restarted and deprived of its memory without anything being restarted, and is silent when
//! there is nothing to do.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Scenario;
use super::drift::{children, written_by_operator};
use super::ground::{Ground, until};
use super::specs;

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "operator-amnesia",
        shows: "a deleted status and a restarted operator restart no pod, and nothing but status is written",
        quick: true,
        play: |ground| Box::pin(amnesia(ground)),
    },
    Scenario {
        name: "operator-idle",
        shows: "an idle platform causes no write for a minute, by the API server's own record",
        quick: false,
        play: |ground| Box::pin(idle(ground)),
    },
];

/// Where the operator runs.
const NAMESPACE: &str = "tanka-system";
/// Who it is to the API server.
const USER: &str = "system:serviceaccount:tanka-system:tanka-operator";
/// What changes something.
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
/// How long it may take to be back.
const BACK_WITHIN: Duration = Duration::from_mins(2);

/// Replaces all pods of the operator, and waits until they stand.
pub async fn restart(ground: &Ground<'_>) -> Result<()> {
    let pods = [
        "-n",
        NAMESPACE,
        "delete",
        "pods",
        "-l",
        "app.kubernetes.io/name=tanka-operator",
        "--wait=true",
    ];
    ground.cluster.get(&pods).await?;
    stands(ground).await
}

/// Sets how many of its pods run; none is as if it were gone.
pub async fn scale(ground: &Ground<'_>, replicas: u8) -> Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/tanka-operator/scale");
    ground
        .kubernetes
        .merge(&path, &json!({"spec": {"replicas": replicas}}))
        .await?;
    let list =
        format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io/name=tanka-operator");
    until("the operator's pods to come or go", BACK_WITHIN, || async {
        let pods = ground.kubernetes.get(&list).await?;
        Ok(pods["items"]
            .as_array()
            .is_some_and(|pods| pods.len() == usize::from(replicas)))
    })
    .await?;
    if replicas > 0 {
        stands(ground).await?;
    }
    Ok(())
}

async fn stands(ground: &Ground<'_>) -> Result<()> {
    let rollout = [
        "-n",
        NAMESPACE,
        "rollout",
        "status",
        "deployment/tanka-operator",
        "--timeout=110s",
    ];
    ground.cluster.get(&rollout).await.map(drop)
}

async fn amnesia(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::single()).await?;
    let pods = acme.incarnations().await?;
    let before = writes(ground).await?;
    let status = format!(
        "{}/status",
        ground.object("tanka.dev/v1alpha1", "tankaplatforms", "acme")
    );
    scale(ground, 0).await?;
    ground.kubernetes.merge(&status, &json!({"status": null})).await?;
    ensure!(acme.status().await?.is_null(), "the status is still there");
    scale(ground, 2).await?;
    let took = acme.ready().await?;
    acme.unchanged_since(&pods).await?;
    let after = writes(ground).await?;
    ensure!(
        before == after,
        "objects were written or replaced: {before:?} became {after:?}"
    );
    ground.note(format!(
        "the status is whole again after {:.1} s",
        took.as_secs_f64()
    ));
    Ok(())
}

/// When the operator wrote each object last, and which object it was.
async fn writes(ground: &Ground<'_>) -> Result<BTreeMap<String, (Value, String)>> {
    let children = children(ground).await?;
    Ok(children
        .into_iter()
        .map(|(path, object)| {
            let at = written_by_operator(&object).unwrap_or_default().to_owned();
            (path, (object["metadata"]["uid"].clone(), at))
        })
        .collect())
}

async fn idle(ground: &Ground<'_>) -> Result<()> {
    const MINUTE: Duration = Duration::from_mins(1);
    /// The last steps of a start are over when nothing is written for this long.
    const CALM: Duration = Duration::from_secs(15);
    ground.ready_platform(&specs::full()).await?;
    let mut before = recorded(ground)?;
    for _ in 0..8 {
        tokio::time::sleep(CALM).await;
        let now = recorded(ground)?;
        if now.len() == before.len() {
            break;
        }
        before = now;
    }
    tokio::time::sleep(MINUTE).await;
    let after = recorded(ground)?;
    let new = &after[before.len()..];
    ensure!(new.is_empty(), "the operator wrote in an idle minute: {new:?}");
    ensure!(
        !after.is_empty(),
        "the record holds no write of the operator at all"
    );
    ground.note(format!(
        "no write in {} s; {} before that",
        MINUTE.as_secs(),
        after.len()
    ));
    Ok(())
}

/// What the API server has recorded of the operator's writes, its own lease excepted.
fn recorded(ground: &Ground<'_>) -> Result<Vec<String>> {
    let file = ground.cluster.folder().join("audit.log");
    let text = fs::read_to_string(&file).with_context(|| {
        format!(
            "{} cannot be read: this scenario needs a local cluster",
            file.display()
        )
    })?;
    let entry = |line: &str| {
        let event: Value = serde_json::from_str(line).ok()?;
        let object = &event["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let verb = text(&event["verb"]);
        let counts = event["user"]["username"] == USER
            && object["resource"] != "leases"
            && WRITES.contains(&verb.as_str());
        counts.then(|| {
            format!(
                "{} {} {}/{}",
                verb,
                text(&object["resource"]),
                text(&object["namespace"]),
                text(&object["name"])
            )
        })
    };
    Ok(text.lines().filter_map(entry).collect())
}
