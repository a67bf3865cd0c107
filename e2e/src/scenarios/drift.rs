//! Drift: what belongs to the platform and is deleted or changed by somebody else comes back; what somebody else adds stays.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Scenario;
use super::edge;
use super::ground::{Ground, until, until_since};
use super::specs;
use super::subject::{Subject, name};
use super::visitor::Visitor;

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "drift-deleted",
        shows: "an object of any kind that is deleted is back within 5 s",
        quick: true,
        play: |ground| Box::pin(deleted(ground)),
    },
    Scenario {
        name: "drift-account",
        shows: "PostgreSQL's ServiceAccount is deleted under load: its pods get tokens that count again, nothing acknowledged is lost",
        quick: false,
        play: |ground| Box::pin(account(ground)),
    },
    Scenario {
        name: "drift-changed",
        shows: "a field that somebody changes is back within 10 s, on objects of every kind",
        quick: false,
        play: |ground| Box::pin(changed(ground)),
    },
    Scenario {
        name: "drift-additions",
        shows: "annotations, labels, a sidecar and a number of replicas that others add are left alone",
        quick: false,
        play: |ground| Box::pin(additions(ground)),
    },
];

/// How soon a deleted object is back.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// How soon a changed field is.
const MENDED_WITHIN: Duration = Duration::from_secs(10);
/// Longest pause of writes where no Patroni can hold its lock: its time to live, and a restart of each pod.
const LOCKED_OUT: Duration = Duration::from_mins(2);
/// Field manager of the operator.
const OPERATOR: &str = "tanka-operator";
/// How long the operator is given to take away what it should not: several of its regular looks.
const TEMPTATION: Duration = Duration::from_secs(12);

/// Kinds that a platform consists of: group and plural.
pub const KINDS: [(&str, &str); 12] = [
    ("v1", "secrets"),
    ("v1", "configmaps"),
    ("v1", "services"),
    ("v1", "serviceaccounts"),
    ("rbac.authorization.k8s.io/v1", "roles"),
    ("rbac.authorization.k8s.io/v1", "rolebindings"),
    ("apps/v1", "statefulsets"),
    ("apps/v1", "deployments"),
    ("autoscaling/v2", "horizontalpodautoscalers"),
    ("policy/v1", "poddisruptionbudgets"),
    ("networking.k8s.io/v1", "networkpolicies"),
    ("networking.k8s.io/v1", "ingresses"),
];

/// Harm to one field of an object: group, plural and name; the merge patch; the field. `NAMESPACE` and `RELEASE` are filled in.
const HARMS: [(&str, &str, &str, &str, &str); 9] = [
    (
        "v1",
        "configmaps",
        "acme-api-config",
        r#"{"data": {"tanka-RELEASE.yaml": "broken"}}"#,
        "/data/tanka-RELEASE.yaml",
    ),
    (
        "v1",
        "services",
        "acme-api",
        r#"{"spec": {"selector": {"example.com/no-such": "pod"}}}"#,
        "/spec/selector",
    ),
    (
        "apps/v1",
        "deployments",
        "acme-api",
        r#"{"spec": {"progressDeadlineSeconds": 7}}"#,
        "/spec/progressDeadlineSeconds",
    ),
    (
        "autoscaling/v2",
        "horizontalpodautoscalers",
        "acme-api",
        r#"{"spec": {"maxReplicas": 9}}"#,
        "/spec/maxReplicas",
    ),
    (
        "rbac.authorization.k8s.io/v1",
        "roles",
        "acme-postgres",
        r#"{"rules": []}"#,
        "/rules",
    ),
    (
        "rbac.authorization.k8s.io/v1",
        "rolebindings",
        "acme-postgres",
        r#"{"subjects": [{"kind": "ServiceAccount", "name": "acme-postgres", "namespace": "NAMESPACE"}, {"kind": "ServiceAccount", "name": "default", "namespace": "NAMESPACE"}]}"#,
        "/subjects",
    ),
    (
        "networking.k8s.io/v1",
        "networkpolicies",
        "acme-redis",
        r#"{"spec": {"ingress": [{}]}}"#,
        "/spec/ingress",
    ),
    (
        "networking.k8s.io/v1",
        "ingresses",
        "acme-api",
        r#"{"spec": {"rules": [{"host": "evil.example.com"}]}}"#,
        "/spec/rules/0/host",
    ),
    (
        "policy/v1",
        "poddisruptionbudgets",
        "acme-postgres",
        r#"{"spec": {"selector": {"matchLabels": {"app": "none"}}}}"#,
        "/spec/selector/matchLabels",
    ),
];

/// A platform that has an object of every kind.
fn complete() -> Value {
    specs::with(
        specs::single(),
        &json!({
            "api": {"autoscaling": {"enabled": true, "minReplicas": 1, "maxReplicas": 3}},
            "ingress": edge::ingress("drift.example.com")["ingress"],
        }),
    )
}

/// Such a platform, ready.
async fn ready<'g>(ground: &'g Ground<'_>) -> Result<Subject<'g>> {
    edge::class(ground).await?;
    let acme = ground.platform(&complete()).await?;
    edge::admit(ground).await?;
    acme.ready().await?;
    Ok(acme)
}

/// Path and content of everything that the operator has applied or created.
pub async fn children(ground: &Ground<'_>) -> Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for (group, plural) in KINDS {
        let path = ground.path(group, plural);
        let list = ground.kubernetes.get(&path).await?;
        for object in list["items"].as_array().into_iter().flatten() {
            if written_by_operator(object).is_some() {
                all.push((format!("{path}/{}", name(object)), object.clone()));
            }
        }
    }
    Ok(all)
}

/// When the operator wrote it last.
pub fn written_by_operator(object: &Value) -> Option<&str> {
    let managers = object["metadata"]["managedFields"].as_array()?;
    managers
        .iter()
        .find(|entry| entry["manager"] == OPERATOR)
        .and_then(|entry| entry["time"].as_str())
}

async fn deleted(ground: &Ground<'_>) -> Result<()> {
    let acme = ready(ground).await?;
    let children = children(ground).await?;
    let mut slowest = Duration::ZERO;
    for (path, object) in &children {
        let uid = &object["metadata"]["uid"];
        // Pods stay behind, to be adopted again: what is shown here is the return of the object, not a restart.
        ground.kubernetes.delete_orphaning(path).await?;
        let begun = Instant::now();
        let took = until_since(begun, &format!("{path} to be back"), BACK_WITHIN, || async {
            let found = ground.kubernetes.find(path).await?;
            Ok(found.is_some_and(|found| {
                found["metadata"]["uid"] != *uid && found["metadata"].get("deletionTimestamp").is_none()
            }))
        })
        .await?;
        slowest = slowest.max(took);
        if let Some(data) = object.get("data").filter(|_| path.contains("/secrets/")) {
            let again = ground.kubernetes.get(path).await?;
            ensure!(again["data"] == *data, "{path} came back with other credentials");
        }
    }
    edge::admit(ground).await?;
    acme.ready().await?;
    ground.note(format!(
        "{} objects deleted one after the other, the slowest back after {:.1} s",
        children.len(),
        slowest.as_secs_f64()
    ));
    Ok(())
}

/// The account that comes back is another one to the API server: the pods' tokens are void, Patroni can no longer write its state, and
/// the platform is whole again only once all pods are new.
async fn account(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::full()).await?;
    let visitor = Visitor::enter(&acme).await?;
    let uids =
        |pods: Vec<Value>| -> Vec<_> { pods.iter().map(|pod| pod["metadata"]["uid"].clone()).collect() };
    let before = uids(acme.pods("postgres").await?);
    let replaced = async {
        let account = ground.object("v1", "serviceaccounts", "acme-postgres");
        ground.kubernetes.delete(&account).await?;
        until("three new pods", LOCKED_OUT, || async {
            let now = uids(acme.pods("postgres").await?);
            Ok(now.len() == before.len() && now.iter().all(|uid| !before.contains(uid)))
        })
        .await?;
        acme.ready().await.map(drop)
    };
    visitor
        .writes_through(&acme, "ServiceAccount deleted", LOCKED_OUT, replaced)
        .await
        .map(drop)
}

async fn changed(ground: &Ground<'_>) -> Result<()> {
    const LABEL: &str = "app.kubernetes.io/part-of";
    let acme = ready(ground).await?;
    let mut slowest = Duration::ZERO;
    let mut number = 0;
    for (path, object) in children(ground).await? {
        // Secrets are written once and left alone ever after.
        if path.contains("/secrets/") || object["metadata"]["labels"].get(LABEL).is_none() {
            continue;
        }
        let harm = json!({"metadata": {"labels": {LABEL: "somebody-else"}}});
        slowest = slowest.max(
            mended(
                ground,
                &path,
                &object,
                &harm,
                &format!("/metadata/labels/{}", LABEL.replace('/', "~1")),
            )
            .await?,
        );
        number += 1;
    }
    for (group, plural, object, harm, field) in HARMS {
        let here = |text: &str| {
            text.replace("NAMESPACE", &ground.namespace)
                .replace("RELEASE", env!("CARGO_PKG_VERSION"))
        };
        let (harm, field) = (serde_json::from_str(&here(harm))?, here(field));
        let path = ground.object(group, plural, object);
        let before = ground.kubernetes.get(&path).await?;
        slowest = slowest.max(mended(ground, &path, &before, &harm, &field).await?);
        number += 1;
    }
    acme.ready().await?;
    ground.note(format!(
        "{number} fields changed one after the other, the slowest mended after {:.1} s",
        slowest.as_secs_f64()
    ));
    Ok(())
}

/// Changes a field and waits until it is as it was.
async fn mended(
    ground: &Ground<'_>,
    path: &str,
    before: &Value,
    harm: &Value,
    field: &str,
) -> Result<Duration> {
    let good = before
        .pointer(field)
        .with_context(|| format!("{path} has no {field}"))?;
    let harmed = ground
        .kubernetes
        .merge(path, harm)
        .await
        .with_context(|| format!("harm to {field}"))?;
    ensure!(
        harmed.pointer(field) != Some(good),
        "{path}: the harm to {field} changed nothing"
    );
    let begun = Instant::now();
    until_since(
        begun,
        &format!("{field} of {path} to be mended"),
        MENDED_WITHIN,
        || async { Ok(ground.kubernetes.get(path).await?.pointer(field) == Some(good)) },
    )
    .await
}

async fn additions(ground: &Ground<'_>) -> Result<()> {
    let acme = ready(ground).await?;
    let added = json!({"metadata": {
        "annotations": {"example.com/note": "kept"},
        "labels": {"example.com/team": "theirs"},
    }});
    let children = children(ground).await?;
    for (path, _) in &children {
        ground.kubernetes.merge(path, &added).await?;
    }
    let deployment = ground.object("apps/v1", "deployments", "acme-api");
    ground
        .kubernetes
        .apply(&deployment, "somebody-else", &sidecar(&acme).await?)
        .await?;
    // As an autoscaler does it.
    ground
        .kubernetes
        .merge(&format!("{deployment}/scale"), &json!({"spec": {"replicas": 2}}))
        .await?;
    let begun = Instant::now();
    until("two pods with a sidecar each", Duration::from_mins(2), || async {
        let pods = acme.pods("api").await?;
        let complete = |pod: &Value| {
            let containers = pod["status"]["containerStatuses"].as_array();
            containers
                .is_some_and(|all| all.len() == 2 && all.iter().all(|container| container["ready"] == true))
        };
        Ok(pods.len() == 2 && pods.iter().all(complete))
    })
    .await?;
    tokio::time::sleep(TEMPTATION.saturating_sub(begun.elapsed())).await;
    acme.ready().await?;
    for (path, _) in &children {
        let object = ground.kubernetes.get(path).await?;
        let meta = &object["metadata"];
        ensure!(
            meta["annotations"]["example.com/note"] == "kept"
                && meta["labels"]["example.com/team"] == "theirs",
            "{path} has lost what somebody added: {} {}",
            meta["annotations"],
            meta["labels"]
        );
    }
    let object = ground.kubernetes.get(&deployment).await?;
    ensure!(
        object["spec"]["replicas"] == 2,
        "the replicas were taken back: {}",
        object["spec"]["replicas"]
    );
    ground.note(format!("{} objects keep what others added", children.len()));
    Ok(())
}

/// A container that somebody else adds to the API's pods.
async fn sidecar(acme: &Subject<'_>) -> Result<Value> {
    let pods = acme.pods("postgres").await?;
    let image = pods
        .first()
        .and_then(|pod| pod["spec"]["containers"][0]["image"].as_str())
        .context("no pod of PostgreSQL")?;
    Ok(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "acme-api"},
        "spec": {"template": {"spec": {"containers": [{
            "name": "sidecar",
            "image": image,
            "command": ["sleep", "3600"],
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }]}}},
    }))
}
