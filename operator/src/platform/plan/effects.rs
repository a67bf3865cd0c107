//! What a change of each field of the spec touches. The table for people is made from the code and compared with `docs/spec-effects.md`,
//! so that no field is accepted without effect, and none replaces pods that nobody expected.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::{Value, json};

use super::tests::everything_with;
use crate::platform::fixtures::{external, platform};
use crate::platform::object::Kind;
use crate::platform::observe::apis::{Apis, Availability};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/spec-effects.md");

/// Fields that no object carries as such, and what they do.
const ELSEWHERE: [(&str, &str); 2] = [
    ("paused", "nothing is written until it is false again"),
    ("version", "refused below the release that runs"),
];

/// A field, and another value for it.
#[expect(clippy::too_many_lines, reason = "a list")]
fn changes() -> Vec<(&'static str, Value)> {
    let secret = json!({"name": "other", "key": "url"});
    let constraint = json!([{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]);
    vec![
        ("api.auth.accessTokenTtl", json!("10m")),
        ("api.auth.refreshTokenTtl", json!("10d")),
        ("api.autoscaling.enabled", json!(false)),
        ("api.autoscaling.maxReplicas", json!(12)),
        ("api.autoscaling.minReplicas", json!(2)),
        (
            "api.autoscaling.podMetrics",
            json!([{"type": "Pods", "pods": {"metric": {"name": "tanka_http_requests_in_flight"}, "target": {"type": "AverageValue", "averageValue": "20"}}}]),
        ),
        ("api.autoscaling.scaleDown.stabilizationWindowSeconds", json!(600)),
        ("api.autoscaling.scaleUp.percent", json!(50)),
        ("api.autoscaling.scaleUp.periodSeconds", json!(30)),
        ("api.autoscaling.scaleUp.stabilizationWindowSeconds", json!(0)),
        ("api.autoscaling.targetCpuUtilization", json!(60)),
        ("api.autoscaling.targetMemoryUtilization", json!(70)),
        ("api.cache.enabled", json!(false)),
        ("api.cache.l1Capacity", json!("32Mi")),
        ("api.cache.ttl.default", json!("1m")),
        ("api.cache.ttl.memories", json!("30s")),
        ("api.cache.ttl.permissions", json!("5m")),
        ("api.cache.ttl.plans", json!("2h")),
        ("api.cache.ttl.recommendations", json!("12h")),
        ("api.cache.ttl.tokens", json!("1m")),
        ("api.cache.ttl.usageAnalysis", json!("1d")),
        ("api.cache.ttl.userProfile", json!("1m")),
        ("api.cache.warmUp.onStart", json!(false)),
        ("api.cache.warmUp.schedules", json!(["0 5 * * *"])),
        ("api.database.acquireTimeout", json!("1s")),
        ("api.database.maxReplicaLag", json!("2s")),
        ("api.database.poolSize", json!(6)),
        ("api.database.readYourWritesTimeout", json!("50ms")),
        ("api.database.slowQueryThreshold", json!("1s")),
        ("api.drain.timeout", json!("1m")),
        ("api.embeddings.apiKeySecretRef.key", json!("other")),
        ("api.embeddings.apiKeySecretRef.name", json!("other")),
        ("api.embeddings.dimensions", json!(512)),
        ("api.embeddings.model", json!("other")),
        ("api.embeddings.url", json!("https://other.example.com/v1")),
        ("api.logLevel", json!("debug")),
        ("api.objectStore.accessKeySecretRef.key", json!("other")),
        ("api.objectStore.accessKeySecretRef.name", json!("other")),
        ("api.objectStore.bucket", json!("other")),
        ("api.objectStore.endpoint", json!("https://s3.example.org")),
        ("api.objectStore.pathStyle", json!(false)),
        ("api.objectStore.prefix", json!("acme/")),
        ("api.objectStore.region", json!("eu-central-1")),
        ("api.objectStore.secretKeySecretRef.key", json!("other")),
        ("api.objectStore.secretKeySecretRef.name", json!("other")),
        ("api.outbound.allowedNetworks", json!(["10.20.0.0/16"])),
        ("api.podTemplate.affinity", json!({"nodeAffinity": {}})),
        ("api.podTemplate.annotations", json!({"team": "shop"})),
        ("api.podTemplate.labels", json!({"team": "shop"})),
        ("api.podTemplate.nodeSelector", json!({"pool": "api"})),
        ("api.podTemplate.priorityClassName", json!("high")),
        (
            "api.podTemplate.tolerations",
            json!([{"key": "api", "operator": "Exists"}]),
        ),
        ("api.podTemplate.topologySpreadConstraints", constraint),
        ("api.rateLimit.burst", json!(10)),
        ("api.rateLimit.loginPerMinute", json!(5)),
        ("api.rateLimit.requestsPerMinute", json!(60)),
        ("api.rateLimit.signupPerMinute", json!(20)),
        ("api.replicas", json!(4)),
        ("api.resources.limits", json!({"memory": "2Gi"})),
        ("api.resources.requests", json!({"cpu": "300m"})),
        (
            "api.traces.endpoint",
            json!("http://collector.observability:4318"),
        ),
        ("api.traces.samplePercent", json!(10)),
        ("api.websocket.historySize", json!(100)),
        ("api.websocket.historyTtl", json!("1m")),
        ("api.websocket.idleTimeout", json!("1m")),
        ("api.websocket.maxConnections", json!(1000)),
        ("api.websocket.maxConnectionsPerUser", json!(10)),
        ("api.websocket.maxMessageSize", json!("32Ki")),
        ("api.websocket.messageBurst", json!(100)),
        ("api.websocket.messagesPerSecond", json!(10)),
        ("api.websocket.sendBuffer", json!("64Ki")),
        ("deletionPolicy", json!("Delete")),
        ("images.apiServer", json!("registry.example.com/api:1")),
        ("images.postgres", json!("registry.example.com/postgres:1")),
        ("images.pullPolicy", json!("Always")),
        ("images.pullSecrets", json!(["registry"])),
        ("images.redis", json!("registry.example.com/redis:1")),
        ("ingress.annotations", json!({"team": "shop"})),
        ("ingress.className", json!("traefik")),
        ("ingress.enabled", json!(false)),
        ("ingress.gateway.name", json!("other")),
        ("ingress.gateway.namespace", json!("other")),
        ("ingress.gateway.sectionName", json!("other")),
        ("ingress.host", json!("other.example.com")),
        ("ingress.tls.issuerRef.kind", json!("Issuer")),
        ("ingress.tls.issuerRef.name", json!("other")),
        ("ingress.tls.secretName", json!("other")),
        ("monitoring.alerts.enabled", json!(false)),
        ("monitoring.alerts.labels", json!({"release": "prometheus"})),
        ("monitoring.alerts.thresholds.cacheHitRatio", json!("0.5")),
        ("monitoring.alerts.thresholds.connectionRatio", json!("0.9")),
        ("monitoring.alerts.thresholds.errorRatio", json!("0.05")),
        ("monitoring.alerts.thresholds.latencyP99", json!("1s")),
        ("monitoring.alerts.thresholds.replicaLag", json!("5s")),
        ("monitoring.dashboards.enabled", json!(false)),
        ("monitoring.dashboards.labels", json!({"release": "grafana"})),
        ("monitoring.podMonitor.enabled", json!(false)),
        ("monitoring.podMonitor.labels", json!({"release": "prometheus"})),
        ("monitoring.podMonitor.namespaces", json!(["observability"])),
        ("networkPolicy.enabled", json!(false)),
        ("paused", json!(true)),
        ("postgres.external.caSecretRef.key", json!("other")),
        ("postgres.external.caSecretRef.name", json!("other")),
        ("postgres.external.primarySecretRef.key", json!("other")),
        ("postgres.external.primarySecretRef.name", json!("other")),
        ("postgres.external.replicaSecretRefs", json!([secret])),
        ("postgres.managed.failover.loopWait", json!("1s")),
        ("postgres.managed.failover.primaryStartTimeout", json!("10s")),
        ("postgres.managed.failover.retryTimeout", json!("4s")),
        ("postgres.managed.failover.ttl", json!("30s")),
        ("postgres.managed.instances", json!(5)),
        ("postgres.managed.parameters", json!({"work_mem": "8MB"})),
        ("postgres.managed.resources.limits", json!({"memory": "4Gi"})),
        ("postgres.managed.resources.requests", json!({"cpu": "300m"})),
        ("postgres.managed.storage.size", json!("20Gi")),
        ("postgres.managed.storage.storageClassName", json!("fast")),
        ("postgres.managed.synchronous", json!("Async")),
        ("redis.external.caSecretRef.key", json!("other")),
        ("redis.external.caSecretRef.name", json!("other")),
        ("redis.external.secretRef.key", json!("other")),
        ("redis.external.secretRef.name", json!("other")),
        ("redis.managed.maxMemory", json!("128Mi")),
        ("redis.managed.replicas", json!(5)),
        ("redis.managed.resources.limits", json!({"memory": "1Gi"})),
        ("redis.managed.resources.requests", json!({"cpu": "300m"})),
        ("redis.managed.storage.size", json!("20Gi")),
        ("redis.managed.storage.storageClassName", json!("fast")),
        ("version", json!("0.1.0")),
    ]
}

/// A spec in which a field can have a meaning.
fn base(field: &str) -> Value {
    let edge = json!({"enabled": true, "host": "api.example.com", "className": "nginx"});
    let gateway = json!({"name": "public", "namespace": "infra", "sectionName": "web"});
    match field {
        "ingress.tls.secretName" => json!({"ingress": laid(&edge, "tls.secretName", json!("cert"))}),
        _ if field.starts_with("ingress.gateway") => {
            json!({"ingress": {"enabled": true, "host": "api.example.com", "gateway": gateway}})
        }
        _ if field.starts_with("ingress") => {
            let issuer = json!({"name": "letsencrypt", "kind": "ClusterIssuer"});
            json!({"ingress": laid(&edge, "tls.issuerRef", issuer)})
        }
        _ if field.starts_with("redis.managed.storage") => {
            json!({"redis": {"managed": {"storage": {"size": "10Gi"}}}})
        }
        _ if field.contains(".external.caSecretRef") => {
            let path = field.rsplit_once('.').map_or(field, |(path, _)| path);
            laid(&external(), path, json!({"name": "authority", "key": "ca.crt"}))
        }
        _ if field.contains(".external.") => external(),
        _ if field.starts_with("api.embeddings") => json!({"api": {"embeddings": {
            "url": "https://embeddings.example.com/v1", "model": "small", "dimensions": 256,
            "apiKeySecretRef": {"name": "embeddings", "key": "token"},
        }}}),
        _ if field.starts_with("api.objectStore") => json!({"api": {"objectStore": {
            "endpoint": "https://s3.example.com", "bucket": "files",
            "accessKeySecretRef": {"name": "files", "key": "access"}, "secretKeySecretRef": {"name": "files", "key": "secret"},
        }}}),
        "api.replicas" => json!({"api": {"autoscaling": {"enabled": false}}}),
        _ => json!({}),
    }
}

fn laid(spec: &Value, path: &str, value: Value) -> Value {
    let mut spec = spec.clone();
    let place = path.split('.').fold(&mut spec, |place, name| &mut place[name]);
    *place = value;
    spec
}

/// Everything but objects of free form ends in a leaf.
fn leaves(path: &str, schema: &Value, into: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}{name}");
        if property["properties"].is_object() {
            leaves(&format!("{path}."), property, into);
        } else {
            into.insert(path);
        }
    }
}

fn manifests(spec: Value) -> BTreeMap<String, Value> {
    let usable = [
        Kind::PrometheusRule,
        Kind::PodMonitor,
        Kind::HTTPRoute,
        Kind::Gateway,
    ];
    let apis = Apis::new(usable.map(|kind| (kind, Availability::Usable)));
    everything_with(&platform(spec), &apis)
        .into_iter()
        .map(|object| (object.key.to_string().replace('"', "`"), object.manifest))
        .collect()
}

/// What a change touches: objects, and workloads whose pods are replaced.
fn effect(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> (Vec<String>, Vec<String>) {
    let mut objects = Vec::new();
    let mut replaced = Vec::new();
    for key in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        match (before.get(key), after.get(key)) {
            (Some(old), Some(new)) if old != new => {
                objects.push(key.clone());
                if !key.starts_with("Job") && old["spec"]["template"] != new["spec"]["template"] {
                    replaced.push(key.clone());
                }
            }
            (None, Some(_)) => objects.push(format!("{key} comes")),
            (Some(_), None) => objects.push(format!("{key} goes")),
            _ => {}
        }
    }
    (objects, replaced)
}

fn table() -> String {
    let mut text = String::from(
        "# What a change of each field touches\n\n\
         Made from the code for a platform called acme; `make test` compares it. Pods are replaced one after the other: replicas first,\n\
         the primary after a switchover, API pods with one more and never one less. Everything else takes effect without a restart.\n\n\
         | field of the spec | changed to | objects | pods replaced |\n|---|---|---|---|\n",
    );
    for (field, value) in changes() {
        let before = manifests(base(field));
        let after = manifests(laid(&base(field), field, value.clone()));
        let elsewhere = ELSEWHERE.iter().find(|(name, _)| *name == field);
        let (objects, replaced) = if let Some((_, words)) = elsewhere {
            assert!(
                after == before || after.is_empty(),
                "{field} has an effect on objects"
            );
            ((*words).to_owned(), Vec::new())
        } else {
            let (objects, replaced) = effect(&before, &after);
            assert!(!objects.is_empty(), "{field} has no effect");
            (objects.join(", "), replaced)
        };
        let replaced = if replaced.is_empty() {
            "–".to_owned()
        } else {
            replaced.join(", ")
        };
        writeln!(text, "| `{field}` | `{value}` | {objects} | {replaced} |").unwrap();
    }
    text
}

/// FC11, O4.
#[test]
fn every_field_has_an_effect_and_it_is_the_one_that_is_documented() {
    let crd = serde_json::to_value(crds::platform::crd()).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut all = BTreeSet::new();
    leaves("", spec, &mut all);
    let named: BTreeSet<String> = changes().iter().map(|(field, _)| (*field).to_owned()).collect();
    assert_eq!(named, all, "every field of the spec has a row");
    let text = table();
    if std::env::var_os("TANKA_UPDATE_DOCUMENTS").is_some() {
        std::fs::write(DOCUMENT, &text).unwrap();
    }
    let committed = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(
        text == committed,
        "docs/spec-effects.md is out of date: run the tests of the operator with TANKA_UPDATE_DOCUMENTS=1 and look at what changed"
    );
}
