//! Network policies on a cluster that enforces them, tried in both directions: who must get through does, nobody else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Scenario;
use super::ground::{Ground, until};
use super::specs;
use super::subject::Subject;

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "isolation",
    shows: "PostgreSQL, Patroni, Redis and Sentinel are reached by their own and by nobody else; the API by all",
    quick: false,
    play: |ground| Box::pin(isolation(ground)),
}];

/// How long a policy may take to be in force.
const IN_FORCE: Duration = Duration::from_secs(20);

/// A connection that is tried.
struct Way {
    from: &'static str,
    to: &'static str,
    port: u16,
    open: bool,
}

const fn way(from: &'static str, to: &'static str, port: u16, open: bool) -> Way {
    Way { from, to, port, open }
}

/// `stranger` is another pod of the namespace, `foreigner` one of another namespace. The operations port is open inside the cluster,
/// since scrapers live in namespaces that cannot be known; ingress never routes it.
const WAYS: [Way; 24] = [
    way("postgres", "postgres", 5432, true),
    way("postgres", "postgres", 8008, true),
    way("postgres", "redis", 6379, false),
    way("postgres", "redis", 26379, false),
    way("postgres", "api", 8000, true),
    way("redis", "redis", 6379, true),
    way("redis", "redis", 26379, true),
    way("redis", "postgres", 5432, false),
    way("redis", "postgres", 8008, false),
    way("api", "postgres", 5432, true),
    way("api", "postgres", 8008, false),
    way("api", "redis", 6379, true),
    way("api", "redis", 26379, true),
    way("stranger", "postgres", 5432, false),
    way("stranger", "postgres", 8008, false),
    way("stranger", "redis", 6379, false),
    way("stranger", "redis", 26379, false),
    way("stranger", "api", 8000, true),
    way("stranger", "api", 9000, true),
    way("foreigner", "postgres", 5432, false),
    way("foreigner", "redis", 6379, false),
    way("foreigner", "redis", 26379, false),
    way("foreigner", "api", 8000, true),
    way("foreigner", "api", 9000, true),
];

async fn isolation(ground: &Ground<'_>) -> Result<()> {
    let spec = specs::with(specs::full(), &json!({"api": {"replicas": 1}}));
    let acme = ground.ready_platform(&spec).await?;
    let elsewhere = format!("{}-other", ground.namespace);
    ground
        .cluster
        .apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {elsewhere}}}\n"
        ))
        .await?;
    let outcome = tried(&acme, &elsewhere).await;
    let gone = [
        "delete",
        "namespace",
        &elsewhere,
        "--ignore-not-found",
        "--timeout=90s",
    ];
    ground.cluster.get(&gone).await?;
    outcome
}

async fn tried(acme: &Subject<'_>, elsewhere: &str) -> Result<()> {
    let ground = acme.ground;
    let postgres = acme.pods("postgres").await?;
    let image = postgres
        .first()
        .and_then(|pod| pod["spec"]["containers"][0]["image"].as_str())
        .context("no pod of PostgreSQL")?;
    let own = ground.namespace.as_str();
    // The API's image has no shell to try from; a pod with the labels that the policies name stands for it.
    probe(
        ground,
        own,
        "like-api",
        image,
        "app.kubernetes.io/name: tanka, app.kubernetes.io/instance: acme, app.kubernetes.io/component: api",
    )
    .await?;
    probe(ground, own, "stranger", image, "app: stranger").await?;
    probe(ground, elsewhere, "foreigner", image, "app: foreigner").await?;
    let mut wrong = Vec::new();
    for way in &WAYS {
        let target = target(acme, way).await?;
        let (namespace, pod, container) = source(acme, way, elsewhere).await?;
        let line = format!(
            "timeout 2 bash -c ': </dev/tcp/{target}/{}' 2>/dev/null && echo open || echo closed",
            way.port
        );
        let expected = if way.open { "open" } else { "closed" };
        let arguments = [
            "-n", &namespace, "exec", &pod, "-c", &container, "--", "bash", "-c", &line,
        ];
        let outcome = until("the way", IN_FORCE, || async {
            Ok(ground.cluster.get(&arguments).await?.trim() == expected)
        })
        .await;
        if outcome.is_err() {
            wrong.push(format!(
                "{} -> {}:{} is not {expected}",
                way.from, way.to, way.port
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    ground.note(format!(
        "{} ways open and {} closed as they should be",
        WAYS.iter().filter(|way| way.open).count(),
        WAYS.iter().filter(|way| !way.open).count()
    ));
    Ok(())
}

/// Where a way begins: namespace, pod, container.
async fn source(acme: &Subject<'_>, way: &Way, elsewhere: &str) -> Result<(String, String, String)> {
    let own = acme.ground.namespace.clone();
    Ok(match way.from {
        "api" => (own, "like-api".to_owned(), "probe".to_owned()),
        "stranger" => (own, "stranger".to_owned(), "probe".to_owned()),
        "foreigner" => (elsewhere.to_owned(), "foreigner".to_owned(), "probe".to_owned()),
        component => {
            let pods = acme.pod_names(component).await?;
            let pod = pods.first().context("no pod to start from")?.clone();
            (own, pod, component.to_owned())
        }
    })
}

/// Address of the last pod of a component: never the one that a way begins at.
async fn target(acme: &Subject<'_>, way: &Way) -> Result<String> {
    let pods = acme.pods(way.to).await?;
    let pod = pods.last().context("no pod to go to")?;
    let address = pod["status"]["podIP"].as_str().context("a pod without address")?;
    Ok(address.to_owned())
}

/// A pod that sleeps, with a shell in it.
async fn probe(ground: &Ground<'_>, namespace: &str, pod: &str, image: &str, labels: &str) -> Result<()> {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}, namespace: {namespace}, labels: {{{labels}}}}}\nspec:\n  automountServiceAccountToken: false\n  terminationGracePeriodSeconds: 0\n  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}\n  containers:\n  - name: probe\n    image: {image}\n    command: [sleep, \"3600\"]\n    resources: {{requests: {{cpu: 1m, memory: 8Mi}}}}\n    securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}\n"
    );
    ground.cluster.apply(&manifest).await?;
    let wait = format!("pod/{pod}");
    ground
        .cluster
        .get(&[
            "-n",
            namespace,
            "wait",
            "--for=condition=Ready",
            &wait,
            "--timeout=60s",
        ])
        .await
        .map(drop)
}
