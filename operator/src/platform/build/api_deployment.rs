//! Deployment of the API.

use crds::names::{self, Component};
use crds::platform::SecretKeyRef;
use serde_json::{Map, Value, json};

use super::api_config::AUTHORITY;
use super::{api_config, metadata, pod, secrets};
use crate::platform::object::{Kind, Object};
use crate::platform::observe::World;
use crate::platform::observe::secrets::{digest, named};
use crate::platform::validate::{Cache, Database, Platform};

/// Time beyond the drain for the process to end, in seconds.
const GRACE_MARGIN_SECONDS: i64 = 15;

/// How long a new pod must stay ready before the next one may take its place, in seconds: the first new pod of a rollout is its
/// canary, and while it is not available no pod that serves is touched.
const PROVE_SECONDS: i64 = 5;
/// How long a rollout may make no progress before it counts as stuck, in seconds.
const PROGRESS_SECONDS: i64 = 120;

/// The Deployment. `replicas` is absent while an autoscaler owns the field.
pub fn build(platform: &Platform, world: &World, replicas: Option<i32>) -> Object {
    let name = names::component(&platform.name, Component::Api);
    let mut spec = json!({
        "revisionHistoryLimit": 3,
        "minReadySeconds": PROVE_SECONDS,
        "progressDeadlineSeconds": PROGRESS_SECONDS,
        "selector": {"matchLabels": metadata::selector(platform, Component::Api)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": template(platform, world),
    });
    if let Some(replicas) = replicas {
        spec["replicas"] = json!(replicas);
    }
    let manifest = json!({"metadata": metadata::owned(platform, Component::Api, &name), "spec": spec});
    Object::new(Kind::Deployment, name, manifest)
}

fn template(platform: &Platform, world: &World) -> Value {
    let additions = &platform.spec.api.pod_template;
    let mut annotations: Map<String, Value> = additions
        .annotations
        .iter()
        .map(|(k, v)| (k.clone(), json!(v)))
        .collect();
    annotations.extend(
        // What a running process does not take over by itself: which files it is given, and what is in those of others.
        pod::checksum(&[
            &volumes(platform).to_string(),
            &digest(&world.references, &named(platform)),
        ])
        .as_object()
        .cloned()
        .unwrap_or_default(),
    );
    let mut labels: Map<String, Value> = additions
        .labels
        .iter()
        .map(|(k, v)| (k.clone(), json!(v)))
        .collect();
    labels.extend(
        metadata::stable_labels(platform, Component::Api)
            .as_object()
            .cloned()
            .unwrap_or_default(),
    );
    let mut spec = json!({
        "serviceAccountName": names::component(&platform.name, Component::Api),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": pod::security_context(pod::APP_USER),
        "terminationGracePeriodSeconds": platform.spec.api.drain.timeout.ceil_seconds() + GRACE_MARGIN_SECONDS,
        "imagePullSecrets": pod::pull_secrets(platform),
        "topologySpreadConstraints": spread(platform),
        "containers": [container(platform)],
        "volumes": volumes(platform),
    });
    if !additions.topology_spread_constraints.is_empty() {
        spec["topologySpreadConstraints"] = json!(additions.topology_spread_constraints);
    }
    if !additions.node_selector.is_empty() {
        spec["nodeSelector"] = json!(additions.node_selector);
    }
    if !additions.tolerations.is_empty() {
        spec["tolerations"] = json!(additions.tolerations);
    }
    if let Some(affinity) = &additions.affinity {
        spec["affinity"] = json!(affinity);
    }
    if let Some(class) = &additions.priority_class_name {
        spec["priorityClassName"] = json!(class);
    }
    json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec})
}

fn container(platform: &Platform) -> Value {
    json!({
        "name": "api",
        "image": platform.images.api_server,
        "imagePullPolicy": platform.spec.images.pull_policy.as_str(),
        "args": [
            "serve",
            "--config", format!("{}/tanka.yaml", api_config::CONFIG_DIR),
            "--pepper-file", format!("{}/api/{}", api_config::SECRETS_DIR, secrets::PEPPER),
        ],
        "env": [pod::field_env("POD_NAME", "metadata.name")],
        "securityContext": pod::container_security_context(),
        "resources": pod::resources(&platform.spec.api.resources),
        "ports": [
            {"name": "http", "containerPort": names::API_PORT, "protocol": "TCP"},
            {"name": "ops", "containerPort": names::API_OPS_PORT, "protocol": "TCP"},
        ],
        "startupProbe": {"httpGet": {"path": "/health", "port": "ops"}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 60},
        "livenessProbe": {"httpGet": {"path": "/health", "port": "ops"}, "periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 3},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "ops"}, "periodSeconds": 2, "timeoutSeconds": 1, "failureThreshold": 2},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts(platform),
    })
}

fn mounts(platform: &Platform) -> Vec<Value> {
    let secret = |name: &str| json!({"name": name, "mountPath": format!("{}/{name}", api_config::SECRETS_DIR), "readOnly": true});
    let mut mounts = vec![json!({"name": "config", "mountPath": api_config::CONFIG_DIR, "readOnly": true})];
    mounts.extend(["postgres", "redis", "api"].map(secret));
    mounts.push(json!({"name": "tmp", "mountPath": "/tmp"}));
    if platform.spec.api.embeddings.api_key_secret_ref.is_some() {
        mounts.push(secret("embeddings"));
    }
    if platform.spec.api.object_store.is_some() {
        mounts.push(secret("objects"));
    }
    mounts
}

/// Spread over nodes and zones, counted for each release by itself: pods of the release before are about to go.
fn spread(platform: &Platform) -> Value {
    let selector = metadata::selector(platform, Component::Api);
    ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        .iter()
        .map(|key| {
            json!({
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector},
                "matchLabelKeys": ["pod-template-hash"],
            })
        })
        .collect()
}

fn secret_volume(volume: &str, secret: &str, key: &str, path: &str) -> Value {
    json!({"name": volume, "secret": {"secretName": secret, "items": [{"key": key, "path": path}]}})
}

/// One key of a Secret, as a file of a projected volume.
fn source(reference: &SecretKeyRef, path: &str) -> Value {
    json!({"secret": {"name": reference.name, "items": [{"key": reference.key, "path": path}]}})
}

/// The files by which PostgreSQL is reached: a password, or the URLs of instances that somebody else runs.
pub fn postgres_volume(platform: &Platform) -> Value {
    let Database::External(external) = &platform.database else {
        let name = names::component(&platform.name, Component::Postgres);
        return secret_volume("postgres", &name, secrets::APP_PASSWORD, secrets::APP_PASSWORD);
    };
    let replicas = external
        .replica_secret_refs
        .iter()
        .enumerate()
        .map(|(i, r)| (format!("replica-{i}"), r));
    let authority = external
        .ca_secret_ref
        .iter()
        .map(|reference| (AUTHORITY.to_owned(), reference));
    let files = std::iter::once(("primary".to_owned(), &external.primary_secret_ref)).chain(replicas);
    let sources: Vec<_> = files
        .chain(authority)
        .map(|(path, reference)| source(reference, &path))
        .collect();
    json!({"name": "postgres", "projected": {"sources": sources}})
}

/// The file by which Redis is reached: a password, or a URL.
pub fn redis_volume(platform: &Platform) -> Value {
    match &platform.cache {
        Cache::Managed(_) => {
            let name = names::component(&platform.name, Component::Redis);
            secret_volume("redis", &name, secrets::REDIS_PASSWORD, secrets::REDIS_PASSWORD)
        }
        Cache::External(external) => match &external.ca_secret_ref {
            None => secret_volume(
                "redis",
                &external.secret_ref.name,
                &external.secret_ref.key,
                "url",
            ),
            Some(authority) => {
                let sources = [source(&external.secret_ref, "url"), source(authority, AUTHORITY)];
                json!({"name": "redis", "projected": {"sources": sources}})
            }
        },
    }
}

fn volumes(platform: &Platform) -> Value {
    let api = names::component(&platform.name, Component::Api);
    let mut volumes = vec![
        json!({"name": "config", "configMap": {
            "name": names::api_config(&platform.name),
            "items": [{"key": api_config::file(&platform.version), "path": "tanka.yaml"}],
        }}),
        postgres_volume(platform),
        redis_volume(platform),
        secret_volume("api", &api, secrets::PEPPER, secrets::PEPPER),
        json!({"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}),
    ];
    if let Some(reference) = &platform.spec.api.embeddings.api_key_secret_ref {
        volumes.push(secret_volume(
            "embeddings",
            &reference.name,
            &reference.key,
            api_config::EMBEDDINGS_KEY,
        ));
    }
    if let Some(store) = &platform.spec.api.object_store {
        let sources = [
            source(&store.access_key_secret_ref, api_config::OBJECTS_ACCESS_KEY),
            source(&store.secret_key_secret_ref, api_config::OBJECTS_SECRET_KEY),
        ];
        volumes.push(json!({"name": "objects", "projected": {"sources": sources}}));
    }
    Value::Array(volumes)
}
