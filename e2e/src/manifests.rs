//! What people install: that the chart and the kustomize bases say the same, that the chart refuses what it does not understand, and
//! that everything rendered keeps the rules of `hardening` and `rights`. Real helm, real kustomize, no cluster.

pub mod hardening;
pub mod rights;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::paths::Paths;
use crate::tools::Tools;

/// The chart.
pub const CHART: &str = "charts/tanka-operator";
/// The health check for Argo CD.
const HEALTH: &str = "config/gitops/health.lua";
/// Values that differ from the defaults wherever they can.
const EVERYTHING: &[&str] = &[
    "--set",
    "otlp.endpoint=http://collector.observability.svc:4318",
    "--set",
    "metrics.podMonitor.enabled=true",
    "--set",
    "metrics.rules.enabled=true",
    "--set",
    "registry=mirror.example.com/",
    "--set",
    "image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "--set",
    "imagePullSecrets={mirror}",
    "--set",
    "priorityClassName=system-cluster-critical",
    "--set",
    "nodeSelector.kubernetes\\.io/arch=amd64",
    "--set",
    "tolerations[0].operator=Exists",
    "--set",
    "concurrency=16",
];

/// Checks everything that can be checked without a cluster.
pub async fn check(paths: &Paths) -> Result<()> {
    let tools = Tools::build(paths).await?;
    tools.helm().args(["lint", "--strict", CHART]).run().await?;
    same_in_all_namespaces(&tools).await?;
    same_in_named_namespaces(&tools).await?;
    keeps_definition_by_choice(&tools).await?;
    refuses_bad_values(&tools).await?;
    hardened(paths, &tools).await?;
    samples(paths)?;
    health(paths, &tools).await
}

async fn template(tools: &Tools, values: &[&str]) -> Result<Vec<Value>> {
    let text = tools
        .helm()
        .args(["template", "tanka-operator", CHART, "--namespace", "tanka-system"])
        .args(values)
        .output()
        .await?;
    parse(&text)
}

/// All objects of a YAML text.
pub fn parse(text: &str) -> Result<Vec<Value>> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(text).context("what was rendered is no YAML")?;
    Ok(objects.into_iter().filter(Value::is_object).collect())
}

/// Objects by what they are, without what tells only who installed them.
fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let name = |object: &Value| {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        format!(
            "{} {}/{}",
            text("/kind"),
            text("/metadata/namespace"),
            text("/metadata/name")
        )
    };
    objects
        .into_iter()
        .map(|mut object| {
            // Labels of the objects themselves, not of pods or selectors: the chart adds its own and its release's.
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("labels");
            }
            (name(&object), object)
        })
        .collect()
}

fn same(chart: Vec<Value>, base: Vec<Value>) -> Result<()> {
    let (chart, base) = (by_name(chart), by_name(base));
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    ensure!(
        names(&chart) == names(&base),
        "the chart renders {:#?} and the base {:#?}",
        names(&chart),
        names(&base)
    );
    for (name, object) in &chart {
        if let Some(words) = difference(object, &base[name]) {
            bail!("{name} differs at {words}");
        }
    }
    Ok(())
}

/// The first place where two values differ, with both. `200.0` is `200`: one of the two programs writes numbers anew.
fn difference(chart: &Value, base: &Value) -> Option<String> {
    match (chart, base) {
        (Value::Object(left), Value::Object(right)) => {
            let names: BTreeSet<_> = left.keys().chain(right.keys()).collect();
            let null = Value::Null;
            names.into_iter().find_map(|name| {
                let found = difference(left.get(name).unwrap_or(&null), right.get(name).unwrap_or(&null))?;
                Some(format!("/{name}{found}"))
            })
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let (left, right) = (in_order(left), in_order(right));
            let mut pairs = left.into_iter().zip(right).enumerate();
            pairs.find_map(|(index, (left, right))| Some(format!("/{index}{}", difference(left, right)?)))
        }
        (Value::Number(left), Value::Number(right)) if left.as_f64() == right.as_f64() => None,
        _ if chart == base => None,
        _ => Some(format!(": {chart} in the chart, {base} in the base")),
    }
}

/// Elements by name where all have one: kustomize puts a variable that an overlay adds before the others.
fn in_order(items: &[Value]) -> Vec<&Value> {
    let mut items: Vec<&Value> = items.iter().collect();
    if items.iter().all(|item| item["name"].is_string()) {
        items.sort_by_key(|item| item["name"].as_str().map(str::to_owned));
    }
    items
}

async fn same_in_all_namespaces(tools: &Tools) -> Result<()> {
    let mut base = parse(&tools.kustomize("config/operator").await?)?;
    // Helm makes the release's namespace itself, where it is told to.
    base.retain(|object| object["kind"] != "Namespace");
    let chart = template(tools, &["--set", "crds.keep=false"]).await?;
    let triples = rights::cluster_wide(&base)?;
    ensure!(
        triples.len() <= rights::MOST_CLUSTER_WIDE,
        "{} rights over the whole cluster, {} are allowed: {triples:#?}",
        triples.len(),
        rights::MOST_CLUSTER_WIDE
    );
    rights::least(&base)?;
    eprintln!("    {} rights over the whole cluster", triples.len());
    same(chart, base)
}

async fn same_in_named_namespaces(tools: &Tools) -> Result<()> {
    let base = parse(&tools.kustomize("config/operator-namespaced").await?)?;
    let values = ["--set", "watchNamespaces={acme}", "--set", "crds.install=false"];
    let chart = template(tools, &values).await?;
    for objects in [&base, &chart] {
        let cluster: Vec<_> = objects
            .iter()
            .filter(|object| {
                object["kind"]
                    .as_str()
                    .is_some_and(|kind| kind.starts_with("Cluster"))
            })
            .collect();
        ensure!(
            cluster.is_empty(),
            "namespaced mode has objects of the cluster: {cluster:#?}"
        );
        rights::least(objects)?;
    }
    same(chart, base)?;
    // Each named namespace gets its Roles, and no other.
    let two = template(tools, &["--set", "watchNamespaces={a,b}"]).await?;
    let roles = two.iter().filter(|object| object["kind"] == "Role");
    let mut namespaces: Vec<_> = roles
        .filter_map(|role| role["metadata"]["namespace"].as_str())
        .collect();
    namespaces.sort_unstable();
    ensure!(
        namespaces == ["a", "a", "b", "b", "tanka-system"],
        "Roles are in {namespaces:?}"
    );
    Ok(())
}

async fn keeps_definition_by_choice(tools: &Tools) -> Result<()> {
    let policy = |objects: &[Value]| {
        objects
            .iter()
            .find(|object| object["kind"] == "CustomResourceDefinition")
            .map(|object| object["metadata"]["annotations"]["helm.sh/resource-policy"].clone())
    };
    ensure!(
        policy(&template(tools, &[]).await?) == Some(json!("keep")),
        "the definition would go with the release"
    );
    ensure!(policy(&template(tools, &["--set", "crds.keep=false"]).await?) == Some(Value::Null));
    ensure!(
        policy(&template(tools, &["--set", "crds.install=false"]).await?).is_none(),
        "crds.install=false installs it"
    );
    Ok(())
}

/// Values that mean nothing, and a word of the refusal.
const BAD_VALUES: &[(&str, &str)] = &[
    ("replica=3", "replica"),
    ("replicas=9", "replicas"),
    ("replicas=two", "replicas"),
    ("watchNamespaces=acme", "watchNamespaces"),
    ("watchNamespaces={Acme_1}", "watchNamespaces"),
    ("crds.instal=false", "crds"),
    ("logLevel=verbose", "logLevel"),
    ("image.digest=latest", "digest"),
    ("image.pullPolicy=Sometimes", "pullPolicy"),
    ("otlp.endpoint=collector:4317", "endpoint"),
    ("resources.requests.memory=64MB", "memory"),
    ("metrics.podMonitor.interval=30", "interval"),
    ("networkPolicy.enabled=maybe", "networkPolicy"),
    ("registry=mirror.example.com", "registry"),
    ("tolerations={all}", "tolerations"),
];

async fn refuses_bad_values(tools: &Tools) -> Result<()> {
    for (value, word) in BAD_VALUES {
        let Err(refusal) = template(tools, &["--set", value]).await else {
            bail!("the chart accepts {value}");
        };
        let refusal = format!("{refusal:#}");
        ensure!(
            refusal.contains(word) && refusal.contains("schema"),
            "{value} is refused without naming {word}: {refusal}"
        );
    }
    Ok(())
}

async fn hardened(paths: &Paths, tools: &Tools) -> Result<()> {
    let mut wrong = Vec::new();
    let mut look = |source: &str, objects: &[Value]| {
        wrong.extend(
            hardening::violations(objects)
                .into_iter()
                .map(|found| format!("{source}: {found}")),
        );
    };
    look("chart", &template(tools, &[]).await?);
    look("chart, every value", &template(tools, EVERYTHING).await?);
    look("base", &parse(&tools.kustomize("config/operator").await?)?);
    look(
        "namespaced base",
        &parse(&tools.kustomize("config/operator-namespaced").await?)?,
    );
    // What the operator makes, as its unit tests hold it to.
    let snapshots = paths.repo.join("operator/src/platform/plan/snapshots");
    for file in fs::read_dir(&snapshots).with_context(|| format!("failed to read {}", snapshots.display()))? {
        let path = file?.path();
        let objects = snapshot(&path)?;
        look(&path.file_name().unwrap_or_default().to_string_lossy(), &objects);
    }
    ensure!(
        wrong.is_empty(),
        "manifests break the rules:\n{}",
        wrong.join("\n")
    );
    Ok(())
}

/// The objects in a snapshot of a plan: a map from a name to a manifest, after a header.
fn snapshot(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path)?;
    let body = text
        .splitn(3, "---\n")
        .nth(2)
        .context("the snapshot has no header")?;
    let objects: BTreeMap<String, Value> =
        serde_saphyr::from_str(body).with_context(|| format!("{} is no map of objects", path.display()))?;
    ensure!(!objects.is_empty(), "{} is empty", path.display());
    Ok(objects.into_values().collect())
}

/// The samples for Argo CD say what an Application needs; the others are applied to a real API server by the operator's tests.
fn samples(paths: &Paths) -> Result<()> {
    let file = paths.repo.join("config/samples/gitops.yaml");
    let applications = parse(&fs::read_to_string(&file)?)?;
    ensure!(
        applications.len() == 2,
        "gitops.yaml holds {} objects, not an Application for the operator and one for a platform",
        applications.len()
    );
    for application in &applications {
        let name = &application["metadata"]["name"];
        ensure!(application["kind"] == "Application" && application["apiVersion"] == "argoproj.io/v1alpha1");
        let spec = &application["spec"];
        for field in [
            "/project",
            "/source/repoURL",
            "/source/targetRevision",
            "/destination/server",
            "/destination/namespace",
        ] {
            ensure!(
                spec.pointer(field).is_some_and(Value::is_string),
                "Application {name} has no spec{field}"
            );
        }
        let options = spec["syncPolicy"]["syncOptions"].as_array();
        ensure!(
            options.is_some_and(|options| options.contains(&json!("ServerSideApply=true"))),
            "Application {name} is not applied by the server"
        );
        let path = spec["source"]["path"].as_str().unwrap_or_default();
        ensure!(
            path.starts_with("platforms/") || paths.repo.join(path).is_dir(),
            "Application {name} names {path}, which is not here"
        );
    }
    Ok(())
}

/// What Argo CD has to show for each status.
async fn health(paths: &Paths, tools: &Tools) -> Result<()> {
    for (wanted, object) in statuses() {
        let answer = tools.argo_health(&paths.repo.join(HEALTH), &object).await?;
        ensure!(
            answer["status"] == wanted,
            "Argo CD shows {answer} instead of {wanted} for {object}"
        );
        ensure!(
            answer["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "no message for {object}"
        );
    }
    Ok(())
}

/// Statuses as the operator writes them, and Argo CD's word for each.
fn statuses() -> Vec<(&'static str, Value)> {
    let condition = |kind: &str, status: &str, message: &str| json!({"type": kind, "status": status, "reason": "Any", "message": message, "observedGeneration": 2});
    let object = |observed: Value, conditions: Value| json!({"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "conditions": conditions}});
    vec![
        ("Progressing", json!({"metadata": {"generation": 1}})),
        (
            "Progressing",
            json!({"metadata": {"generation": 1}, "status": {}}),
        ),
        (
            "Progressing",
            object(json!(1), json!([condition("Ready", "True", "all is well")])),
        ),
        (
            "Progressing",
            object(
                json!(2),
                json!([
                    condition("Ready", "False", "starts"),
                    condition("Reconciling", "True", "starts")
                ]),
            ),
        ),
        (
            "Degraded",
            object(
                json!(2),
                json!([
                    condition("Ready", "False", "no image"),
                    condition("Stalled", "True", "no image")
                ]),
            ),
        ),
        (
            "Healthy",
            object(json!(2), json!([condition("Ready", "True", "all is well")])),
        ),
        // It works, and something is on its way: Argo CD may go on, kstatus would wait.
        (
            "Healthy",
            object(
                json!(2),
                json!([
                    condition("Ready", "True", "a replica catches up"),
                    condition("Reconciling", "True", "a replica catches up")
                ]),
            ),
        ),
        (
            "Suspended",
            json!({"spec": {"paused": true}, "metadata": {"generation": 2}, "status": {"observedGeneration": 2, "conditions": [condition("Ready", "True", "paused")]}}),
        ),
        (
            "Degraded",
            object(json!(2), json!([condition("Ready", "False", "no primary")])),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_difference_is_named() {
        let base = json!({"a": {"b": [1, 2.0]}, "c": null});
        assert_eq!(difference(&json!({"a": {"b": [1.0, 2]}}), &base), None);
        let found = difference(&json!({"a": {"b": [1, 3]}}), &base).unwrap();
        assert!(found.starts_with("/a/b/1: 3 in the chart"), "{found}");
        assert!(difference(&json!({"a": {"b": [1]}}), &base).is_some());
    }
}
