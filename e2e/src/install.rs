//! Putting the operator onto a cluster as people do, upgrading it and taking it away, with the real kustomize and the real helm.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::images::{Image, Name};
use crate::manifests::{CHART, hardening};
use crate::process::Call;
use crate::tools::Tools;

/// Where the operator lives.
pub const NAMESPACE: &str = "tanka-system";
/// The definition.
const DEFINITION: &str = "crd/tankaplatforms.tanka.dev";

/// A field of the spec that an older definition lacks.
const FIELD: &str = "paused";

/// Names of the images in the manifests, which stand for what was built.
const RELEASED: [(Name, &str); 4] = [
    (Name::Operator, "tanka/operator:0.1.0"),
    (Name::ApiServer, "tanka/api-server:0.1.0"),
    (Name::Postgres, "tanka/postgres:0.1.0"),
    (Name::Redis, "tanka/redis:0.1.0"),
];

/// Images that were built and loaded, by what they are.
pub type Images = BTreeMap<Name, Image>;

fn built(images: &Images, name: Name) -> Result<&str> {
    images
        .get(&name)
        .map(|image| image.reference.as_str())
        .with_context(|| format!("the image {} was not built", name.as_str()))
}

/// Applies the base for the whole cluster and waits until the operator stands.
pub async fn install_with_kustomize(cluster: &Cluster, images: &Images) -> Result<()> {
    let mut manifests = cluster.get(&["kustomize", "config/operator"]).await?;
    for (name, released) in RELEASED {
        manifests = manifests.replace(released, built(images, name)?);
    }
    cluster.apply(&manifests).await?;
    stands(cluster).await
}

/// Installs the chart, or upgrades what is installed, with further values, and waits until the operator stands.
pub async fn install_with_helm(
    cluster: &Cluster,
    tools: &Tools,
    images: &Images,
    values: &[&str],
) -> Result<()> {
    let (repository, tag) = built(images, Name::Operator)?
        .rsplit_once(':')
        .context("the operator's image has no tag")?;
    let set = [
        format!("image.repository={repository}"),
        format!("image.tag={tag}"),
        format!("platformImages.apiServer={}", built(images, Name::ApiServer)?),
        format!("platformImages.postgres={}", built(images, Name::Postgres)?),
        format!("platformImages.redis={}", built(images, Name::Redis)?),
    ];
    let mut arguments = vec![
        "upgrade",
        "--install",
        "tanka-operator",
        CHART,
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--wait",
        "--timeout",
        "2m",
    ];
    for value in set.iter().map(String::as_str).chain(values.iter().copied()) {
        arguments.extend(["--set-string", value]);
    }
    helm(cluster, tools, &arguments).await?;
    stands(cluster).await
}

/// Takes the operator away, and leaves the definition and all platforms.
pub async fn uninstall(cluster: &Cluster, tools: &Tools) -> Result<()> {
    helm(
        cluster,
        tools,
        &[
            "uninstall",
            "tanka-operator",
            "--namespace",
            NAMESPACE,
            "--wait",
            "--timeout",
            "2m",
        ],
    )
    .await?;
    let left = cluster
        .get(&[
            "get",
            "deployments,roles,rolebindings,networkpolicies",
            "-n",
            NAMESPACE,
            "-o",
            "name",
        ])
        .await?;
    ensure!(left.trim().is_empty(), "the release left {left}");
    Ok(())
}

async fn helm(cluster: &Cluster, tools: &Tools, arguments: &[&str]) -> Result<()> {
    tools
        .helm()
        .env("KUBECONFIG", cluster.kubeconfig().await?)
        .args(arguments)
        .run()
        .await
}

async fn stands(cluster: &Cluster) -> Result<()> {
    cluster
        .get(&["wait", "--for=condition=Established", DEFINITION, "--timeout=60s"])
        .await?;
    cluster
        .get(&[
            "-n",
            NAMESPACE,
            "rollout",
            "status",
            "deployment/tanka-operator",
            "--timeout=120s",
        ])
        .await?;
    Ok(())
}

/// From kustomize to Helm and through an upgrade, on a cluster on which a platform may run: its definition is brought up to date with
/// the chart, it outlives the release, and no pod of a platform is touched.
pub async fn changes_hands(cluster: &Cluster, tools: &Tools, images: &Images) -> Result<()> {
    let pods = platform_pods(cluster).await?;
    cluster
        .get(&["delete", "namespace", NAMESPACE, "--timeout=110s"])
        .await?;
    // What kubectl has applied over the whole cluster becomes the release's, as an older release left it.
    let older = older_chart(tools).await?;
    let mut install = vec!["install", "tanka-operator", older.as_str()];
    install.extend([
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--set",
        "replicas=0",
    ]);
    install.extend(["--take-ownership", "--force-conflicts"]);
    helm(cluster, tools, &install).await?;
    ensure!(!knows_field(cluster).await?, "the definition is not older");
    install_with_helm(cluster, tools, images, &[]).await?;
    ensure!(
        knows_field(cluster).await?,
        "the definition was not upgraded with the chart"
    );
    uninstall(cluster, tools).await?;
    ensure!(
        knows_field(cluster).await?,
        "the definition went with the release, and so would all platforms"
    );
    install_with_helm(cluster, tools, images, &[]).await?;
    let after = platform_pods(cluster).await?;
    ensure!(
        pods == after,
        "pods of platforms were touched: {pods} became {after}"
    );
    Ok(())
}

/// A copy of the chart whose definition lacks a field that this release has.
async fn older_chart(tools: &Tools) -> Result<String> {
    let folder = tools.scratch().join("older-chart");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(tools.scratch())?;
    Call::new("cp", Duration::from_mins(1))
        .arg("-r")
        .arg(tools.repo().join(CHART))
        .arg(&folder)
        .run()
        .await?;
    let definition = folder.join("files/crds.yaml");
    fs::write(&definition, without(FIELD, &fs::read_to_string(&definition)?))?;
    Ok(folder.display().to_string())
}

/// YAML without a field, and what is indented below it.
fn without(field: &str, yaml: &str) -> String {
    let mut within = None;
    let indent = |line: &str| line.len() - line.trim_start().len();
    let keeps = |line: &&str| {
        if within.is_some_and(|depth| indent(line) > depth) {
            return false;
        }
        within = (line.trim() == format!("{field}:")).then(|| indent(line));
        within.is_none()
    };
    let kept: Vec<&str> = yaml.lines().filter(keeps).collect();
    kept.join("\n") + "\n"
}

async fn knows_field(cluster: &Cluster) -> Result<bool> {
    let definition: Value = serde_json::from_str(&cluster.get(&["get", DEFINITION, "-o", "json"]).await?)?;
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    Ok(definition
        .pointer(spec)
        .is_some_and(|fields| fields.get(FIELD).is_some()))
}

/// Holds everything that runs for platforms, and the operator, to the rules for manifests, as the cluster has it.
pub async fn hardened(cluster: &Cluster) -> Result<()> {
    let kinds = "deployments,statefulsets,jobs,services,serviceaccounts,configmaps";
    let mut objects = Vec::new();
    for selector in [
        ["-A", "--selector=app.kubernetes.io/part-of=tanka"],
        ["--namespace", NAMESPACE],
    ] {
        let text = cluster
            .get(&["get", kinds, selector[0], selector[1], "-o", "json"])
            .await?;
        let list: Value = serde_json::from_str(&text)?;
        objects.extend(list["items"].as_array().cloned().unwrap_or_default());
    }
    // Every namespace gets this account; nothing of ours uses it.
    objects.retain(|object| !(object["kind"] == "ServiceAccount" && object["metadata"]["name"] == "default"));
    objects.retain(|object| object["metadata"]["name"] != "kube-root-ca.crt");
    ensure!(objects.len() > 10, "only {} objects were found", objects.len());
    let wrong = hardening::violations(&objects);
    ensure!(
        wrong.is_empty(),
        "what runs breaks the rules:\n{}",
        wrong.join("\n")
    );
    Ok(())
}

/// Pods of platforms, by identity and restarts.
async fn platform_pods(cluster: &Cluster) -> Result<String> {
    cluster
        .get(&[
            "get",
            "pods",
            "-A",
            "-l",
            "tanka.dev/platform",
            "--sort-by=.metadata.uid",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name}/{.metadata.uid}/{.status.containerStatuses[*].restartCount} {end}",
        ])
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_goes_with_all_below_it() {
        let yaml = "a:\n  paused:\n    type: boolean\n    deep:\n      er: 1\n  postgres:\n    paused: no\n";
        assert_eq!(without("paused", yaml), "a:\n  postgres:\n    paused: no\n");
    }
}
