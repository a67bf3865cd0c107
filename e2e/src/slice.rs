//! The end-to-end slice: the whole platform on a real cluster, installed, used, broken, mended and deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::client::Client;
use crate::cluster::Cluster;
use crate::journey::{self, Person};
use crate::platform::Platform;
use crate::stage::Steps;
use crate::writer::Writer;

/// How soon a condition must name a cause.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// How long a platform may take to be ready on a small machine that does nothing else.
const READY_WITHIN: Duration = Duration::from_mins(5);
/// Write-then-read pairs that must never be stale.
const PAIRS: u32 = 30;

/// Runs all checks against a cluster on which the operator stands.
#[expect(clippy::too_many_lines, reason = "a story in its order")]
pub async fn run(cluster: &Cluster, steps: &mut Steps, moment_millis: i64) -> Result<()> {
    let acme = Platform::new(cluster, "acme");
    steps
        .run(
            "an invalid platform is refused with a sentence",
            refuses_contradictions(cluster),
        )
        .await?;
    steps
        .run("from kubectl apply to Ready", becomes_ready(&acme))
        .await?;
    let door = cluster.expose("acme", "acme-api", 8000).await?;
    let person = journey::join(&Client::new(&door.address), moment_millis).await?;
    let conversation = person.open_conversation("slice").await?;
    steps
        .run(
            "what is written is read back, from replicas",
            reads_own_writes(&person, &conversation),
        )
        .await?;
    steps
        .run(
            "a message arrives on the WebSocket",
            hears(&person, &conversation),
        )
        .await?;
    steps
        .run(
            "no instance holds more connections than were dealt out",
            keeps_to_its_pool(&acme),
        )
        .await?;
    steps
        .run("an idle platform causes no write", stays_silent(&acme))
        .await?;
    steps
        .run("a deleted object is back within 5 s", restores(&acme))
        .await?;
    steps
        .run("a setting that can be reloaded restarts nothing", reloads(&acme))
        .await?;
    steps
        .run(
            "a wrong image is named within 10 s, and mended",
            names_wrong_image(&acme),
        )
        .await?;
    steps
        .run("a full quota is named within 10 s", names_full_quota(cluster))
        .await?;
    steps
        .run(
            "the primary's pod is deleted: no acknowledged message is lost",
            survives(&acme, &person, &conversation),
        )
        .await?;
    steps
        .run(
            "a deleted platform leaves its data, and finds it again",
            returns(&acme, &person),
        )
        .await?;
    Ok(())
}

async fn refuses_contradictions(cluster: &Cluster) -> Result<()> {
    let manifest = |spec: &str| {
        format!(
            "apiVersion: tanka.dev/v1alpha1\nkind: TankaPlatform\nmetadata: {{name: wrong, namespace: default}}\nspec: {spec}\n"
        )
    };
    for (spec, sentence) in [
        ("{postgres: {managed: {instances: 2}}}", "must be 1, 3 or 5"),
        (
            "{postgres: {managed: {}, external: {primarySecretRef: {name: a, key: b}}}}",
            "exactly one of postgres.managed",
        ),
        ("{ingress: {enabled: true}}", "ingress.host is missing"),
    ] {
        let refusal = cluster
            .apply(&manifest(spec))
            .await
            .err()
            .with_context(|| format!("{spec} was accepted"))?;
        ensure!(
            format!("{refusal:#}").contains(sentence),
            "{spec} was refused without \"{sentence}\": {refusal:#}"
        );
    }
    Ok(())
}

async fn becomes_ready(acme: &Platform<'_>) -> Result<()> {
    // On a cluster that an earlier run has used.
    acme.cluster
        .get(&[
            "delete",
            "namespace",
            "acme",
            "--ignore-not-found",
            "--timeout=110s",
        ])
        .await?;
    acme.cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: acme, labels: {pod-security.kubernetes.io/enforce: restricted}}\n").await?;
    acme.cluster
        .get(&["apply", "-f", "config/samples/minimal.yaml"])
        .await?;
    let took = acme.ready(READY_WITHIN).await?;
    eprintln!("    Ready after {:.1} s", took.as_secs_f64());
    let line = acme.kubectl(&["get", "tp", "acme", "--no-headers"]).await?;
    let columns: Vec<_> = line.split_whitespace().collect();
    ensure!(
        columns[..6] == ["acme", "True", "AllReady", "3/3", "3/3", "3/3"],
        "kubectl get tp says: {line}"
    );
    Ok(())
}

async fn reads_own_writes(person: &Person, conversation: &str) -> Result<()> {
    let mut served: BTreeMap<String, u32> = BTreeMap::new();
    for number in 0..PAIRS {
        let content = format!("pair {number}");
        let written = person.post(conversation, &content).await?;
        let (contents, by) = person.read(conversation, &written).await?;
        ensure!(
            contents.contains(&content),
            "a stale read: {content:?} is missing, served by {by}"
        );
        *served.entry(by).or_default() += 1;
    }
    eprintln!("    {PAIRS} pairs, none stale, served by {served:?}");
    let replicas: u32 = served
        .iter()
        .filter(|(by, _)| by.contains("replica"))
        .map(|(_, times)| times)
        .sum();
    ensure!(replicas > 0, "no read was served by a replica: {served:?}");
    Ok(())
}

async fn hears(person: &Person, conversation: &str) -> Result<()> {
    let mut events = person.client.events().await?;
    person
        .post_and_hear(&mut events, conversation, "can you hear me")
        .await
        .map(drop)
}

/// Sum of the operator's own counter of writes.
/// T47, B10, R07, R18: what all API pods together hold open at each instance.
async fn keeps_to_its_pool(acme: &Platform<'_>) -> Result<()> {
    const COUNT: &str = "PGPASSWORD=$PATRONI_SUPERUSER_PASSWORD psql -XqAt -h 127.0.0.1 -U postgres tanka \
                         -c \"SELECT count(*) FROM pg_stat_activity WHERE usename = 'tanka_app'\"";
    let words = async |arguments: &[&str]| -> Result<Vec<String>> {
        let text = acme.kubectl(arguments).await?;
        Ok(text.split_whitespace().map(ToOwned::to_owned).collect())
    };
    let of =
        |component: &str| format!("app.kubernetes.io/instance=acme,app.kubernetes.io/component={component}");
    let names = "jsonpath={.items[*].metadata.name}";
    let pods = words(&["get", "pods", "-l", &of("api"), "-o", names])
        .await?
        .len();
    let instances = words(&["get", "pods", "-l", &of("postgres"), "-o", names]).await?;
    let config = acme
        .kubectl(&["get", "configmap", "acme-api-config", "-o", "yaml"])
        .await?;
    let size = config
        .lines()
        .find_map(|line| {
            let value = line.trim().strip_prefix("\"poolSize\": ")?;
            value.trim_end_matches(',').parse::<usize>().ok()
        })
        .context("the configuration names no poolSize")?;
    ensure!(!instances.is_empty(), "no instance was found");
    let most = pods * size.div_ceil(instances.len());
    let mut all = 0;
    for instance in &instances {
        let count = acme
            .kubectl(&["exec", instance, "-c", "postgres", "--", "bash", "-ec", COUNT])
            .await?;
        let count: usize = count.trim().parse()?;
        ensure!(
            count <= most,
            "{instance} has {count} connections of {pods} API pods, {most} were dealt out"
        );
        all += count;
    }
    ensure!(
        (instances.len()..=pods * size).contains(&all),
        "{pods} API pods with {size} connections each hold {all}"
    );
    eprintln!("    {all} connections of {pods} API pods that may have {size} each");
    Ok(())
}

async fn writes(cluster: &Cluster) -> Result<u64> {
    let pods = cluster
        .get(&[
            "-n",
            "tanka-system",
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/name=tanka-operator",
            "-o",
            "name",
        ])
        .await?;
    let mut sum = 0;
    for pod in pods.lines() {
        let name = pod.trim_start_matches("pod/");
        let metrics = cluster
            .get(&[
                "get",
                "--raw",
                &format!("/api/v1/namespaces/tanka-system/pods/{name}:8080/proxy/metrics"),
            ])
            .await?;
        let lines = metrics
            .lines()
            .filter(|line| line.starts_with("tanka_apiserver_writes_total"));
        sum += lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(sum)
}

async fn stays_silent(acme: &Platform<'_>) -> Result<()> {
    const CALM: Duration = Duration::from_secs(20);
    acme.ready(READY_WITHIN).await?;
    // The last steps of a start may still be written: wait for the first calm stretch, and then hold it to that.
    let mut before = writes(acme.cluster).await?;
    for _ in 0..6 {
        tokio::time::sleep(CALM).await;
        let after = writes(acme.cluster).await?;
        if after == before {
            return Ok(());
        }
        eprintln!("    {} writes within {} s", after - before, CALM.as_secs());
        before = after;
    }
    anyhow::bail!("the operator goes on writing although nothing changes")
}

async fn restores(acme: &Platform<'_>) -> Result<()> {
    for object in [
        "service/acme-postgres-ro",
        "configmap/acme-api-config",
        "poddisruptionbudget/acme-api",
    ] {
        acme.kubectl(&["delete", object, "--wait=true"]).await?;
        Cluster::wait(
            &format!("{object} to be back"),
            Duration::from_secs(5),
            || async { Ok(acme.kubectl(&["get", object]).await.is_ok()) },
        )
        .await?;
    }
    let scale = [
        "patch",
        "configmap",
        "acme-api-config",
        "--type=merge",
        "-p",
        r#"{"data":{"tanka.yaml":"broken"}}"#,
    ];
    acme.kubectl(&scale).await?;
    Cluster::wait("a drifted field to be mended", TOLD_WITHIN, || async {
        Ok(acme
            .kubectl(&["get", "configmap", "acme-api-config", "-o", "yaml"])
            .await?
            .contains("instances"))
    })
    .await?;
    Ok(())
}

async fn pod_ids(acme: &Platform<'_>) -> Result<String> {
    acme.kubectl(&[
        "get",
        "pods",
        "--sort-by=.metadata.name",
        "-o",
        "jsonpath={range .items[*]}{.metadata.uid}/{.status.containerStatuses[*].restartCount} {end}",
    ])
    .await
}

async fn reloads(acme: &Platform<'_>) -> Result<()> {
    let before = pod_ids(acme).await?;
    acme.kubectl(&[
        "patch",
        "tp",
        "acme",
        "--type=merge",
        "-p",
        r#"{"spec":{"api":{"rateLimit":{"requestsPerMinute":60000,"burst":10000}}}}"#,
    ])
    .await?;
    Cluster::wait("the setting to reach the ConfigMap", TOLD_WITHIN, || async {
        Ok(acme
            .kubectl(&["get", "configmap", "acme-api-config", "-o", "yaml"])
            .await?
            .contains("60000"))
    })
    .await?;
    acme.ready(READY_WITHIN).await?;
    let after = pod_ids(acme).await?;
    ensure!(before == after, "pods were restarted: {before} became {after}");
    Ok(())
}

async fn names_wrong_image(acme: &Platform<'_>) -> Result<()> {
    const WRONG: &str = "localhost/tanka/no-such-image:9.9";
    let serving = acme
        .kubectl(&[
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/component=api",
            "-o",
            "name",
        ])
        .await?;
    acme.kubectl(&[
        "patch",
        "tp",
        "acme",
        "--type=merge",
        "-p",
        &format!(r#"{{"spec":{{"images":{{"apiServer":"{WRONG}"}}}}}}"#),
    ])
    .await?;
    let told = Cluster::wait("the status to name the image", TOLD_WITHIN, || {
        says(acme, "Ready", &["ImagePullFailed"], WRONG)
    })
    .await?;
    eprintln!("    named after {:.1} s", told.as_secs_f64());
    let still = acme
        .kubectl(&[
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/component=api",
            "--field-selector=status.phase=Running",
            "-o",
            "name",
        ])
        .await?;
    ensure!(
        serving == still,
        "serving pods were touched: {serving} became {still}"
    );
    acme.kubectl(&[
        "patch",
        "tp",
        "acme",
        "--type=merge",
        "-p",
        r#"{"spec":{"images":{"apiServer":""}}}"#,
    ])
    .await?;
    acme.ready(READY_WITHIN).await?;
    Ok(())
}

/// Whether a condition has one of the reasons and its message names something.
async fn says(platform: &Platform<'_>, kind: &str, reasons: &[&str], named: &str) -> Result<bool> {
    let condition = platform.condition(kind).await?.unwrap_or_default();
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    Ok(reasons.contains(&text("reason").as_str()) && text("message").contains(named))
}

async fn names_full_quota(cluster: &Cluster) -> Result<()> {
    let small = Platform::new(cluster, "small");
    let manifests = "apiVersion: v1\nkind: Namespace\nmetadata: {name: small}\n---\n\
        apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: no-room, namespace: small}\nspec: {hard: {pods: \"0\"}}\n";
    cluster.apply(manifests).await?;
    Cluster::wait("the quota to count", TOLD_WITHIN, || async {
        Ok(small
            .kubectl(&[
                "get",
                "resourcequota",
                "no-room",
                "-o",
                "jsonpath={.status.used.pods}",
            ])
            .await?
            == "0")
    })
    .await?;
    cluster.apply("apiVersion: tanka.dev/v1alpha1\nkind: TankaPlatform\nmetadata: {name: small, namespace: small}\nspec: {}\n").await?;
    let told = Cluster::wait("the status to name the quota", TOLD_WITHIN, || {
        says(&small, "Ready", &["PodsRefused"], "no-room")
    })
    .await?;
    eprintln!("    named after {:.1} s", told.as_secs_f64());
    cluster
        .get(&["delete", "namespace", "small", "--timeout=60s"])
        .await?;
    Ok(())
}

async fn survives(acme: &Platform<'_>, person: &Person, conversation: &str) -> Result<()> {
    let before = acme.primary().await?;
    let writer = Writer::start(&person.client, conversation, "steady");
    acme.kubectl(&["delete", "pod", &before, "--wait=false"]).await?;
    let mut after = String::new();
    Cluster::wait("another primary", Duration::from_mins(1), || async {
        Ok(acme.primary().await.is_ok_and(|now| now != before))
    })
    .await?;
    acme.ready(READY_WITHIN).await?;
    after.push_str(&acme.primary().await?);
    let record = writer.finish().await?;
    let status = acme.read().await?;
    eprintln!(
        "    {before} -> {after}: {} messages acknowledged, none lost, {} requests failed, longest gap {} ms; status measured {} ms",
        record.acknowledged.len(),
        record.failures,
        record.longest_gap.as_millis(),
        status["status"]["postgres"]["lastFailover"]["downtimeMillis"],
    );
    ensure!(
        status["status"]["postgres"]["lastFailover"]["from"] == Value::String(before),
        "status does not tell of the failover"
    );
    ensure!(!record.acknowledged.is_empty(), "nothing was written");
    Ok(())
}

async fn returns(acme: &Platform<'_>, person: &Person) -> Result<()> {
    acme.kubectl(&["delete", "tp", "acme", "--timeout=60s"]).await?;
    Cluster::wait("the pods to go", Duration::from_mins(2), || async {
        Ok(acme.kubectl(&["get", "pods", "-o", "name"]).await?.is_empty())
    })
    .await?;
    let kept = acme.kubectl(&["get", "pvc,secrets", "-o", "name"]).await?;
    ensure!(
        kept.contains("acme-postgres-0") && kept.contains("secret/acme-postgres"),
        "the data is gone: {kept}"
    );
    acme.cluster
        .get(&["apply", "-f", "config/samples/minimal.yaml"])
        .await?;
    acme.ready(READY_WITHIN).await?;
    let door = acme.cluster.expose("acme", "acme-api", 8000).await?;
    journey::log_in(&Client::new(&door.address), &person.email, &person.password).await?;
    Ok(())
}
