//! StatefulSet of Redis: a server and a Sentinel in each pod.

use crds::names::{self, Component};
use crds::platform::redis::ManagedRedis;
use serde_json::{Value, json};

use super::postgres_statefulset::{claim, retention};
use super::{metadata, pod, secrets};
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// The StatefulSet.
pub fn build(platform: &Platform, redis: &ManagedRedis) -> Object {
    let name = names::component(&platform.name, Component::Redis);
    let mut spec = json!({
        "replicas": redis.replicas,
        "serviceName": name,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        "selector": {"matchLabels": metadata::selector(platform, Component::Redis)},
        "persistentVolumeClaimRetentionPolicy": retention(platform.spec.deletion_policy),
        "template": template(platform, redis, &name),
    });
    if let Some(storage) = &redis.storage {
        spec["volumeClaimTemplates"] = json!([claim(platform, Component::Redis, storage)]);
    }
    let manifest = json!({"metadata": metadata::owned(platform, Component::Redis, &name), "spec": spec});
    Object::new(Kind::StatefulSet, name, manifest)
}

fn template(platform: &Platform, redis: &ManagedRedis, name: &str) -> Value {
    let mut volumes = vec![json!({"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}})];
    if redis.storage.is_none() {
        volumes.push(json!({"name": "data", "emptyDir": {}}));
    }
    json!({
        "metadata": {"labels": metadata::stable_labels(platform, Component::Redis)},
        "spec": {
            "serviceAccountName": name,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": pod::security_context(pod::REDIS_USER),
            "terminationGracePeriodSeconds": 30,
            "imagePullSecrets": pod::pull_secrets(platform),
            "topologySpreadConstraints": pod::spread(platform, Component::Redis),
            "containers": [server(platform, redis, name), sentinel(platform, redis, name)],
            "volumes": volumes,
        },
    })
}

fn server(platform: &Platform, redis: &ManagedRedis, name: &str) -> Value {
    let mut resources = redis.resources.clone();
    // Redis needs room beside its data: copy on write, buffers of replicas and clients.
    let roomy = || (redis.max_memory.bytes() / 2 * 3).div_ceil(1 << 20);
    resources
        .limits
        .entry("memory".to_owned())
        .or_insert_with(|| format!("{}Mi", roomy() + 32));
    container(
        platform,
        redis,
        name,
        &Process {
            name: "redis",
            command: "tanka-redis-server",
            // A primary that is stopped in good order hands over first: a second without writes instead of the time in which
            // the Sentinels would notice.
            before_stop: Some("tanka-redis-handover"),
            port: names::REDIS_PORT,
            resources: pod::resources(&resources),
        },
    )
}

fn sentinel(platform: &Platform, redis: &ManagedRedis, name: &str) -> Value {
    container(
        platform,
        redis,
        name,
        &Process {
            name: "sentinel",
            command: "tanka-redis-sentinel",
            before_stop: None,
            port: names::SENTINEL_PORT,
            // FC30: a Sentinel that gets no CPU for two seconds does nothing for the next thirty.
            resources: json!({"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}),
        },
    )
}

/// One of the two processes of a member.
struct Process {
    name: &'static str,
    command: &'static str,
    before_stop: Option<&'static str>,
    port: u16,
    resources: Value,
}

fn container(platform: &Platform, redis: &ManagedRedis, name: &str, process: &Process) -> Value {
    json!({
        "name": process.name,
        "image": platform.images.redis,
        "imagePullPolicy": platform.spec.images.pull_policy.as_str(),
        "command": [process.command],
        "lifecycle": process.before_stop.map(|command| json!({"preStop": {"exec": {"command": [command]}}})),
        "securityContext": pod::container_security_context(),
        "resources": process.resources,
        "env": [
            pod::field_env("POD_NAME", "metadata.name"),
            {"name": "REDIS_STATEFULSET", "value": name},
            {"name": "REDIS_SERVICE", "value": format!("{name}.{}.svc", platform.namespace)},
            {"name": "REDIS_MEMBERS", "value": redis.replicas.to_string()},
            {"name": "REDIS_MAXMEMORY", "value": redis.max_memory.bytes().to_string()},
            {"name": "REDIS_APPENDONLY", "value": if redis.storage.is_some() { "yes" } else { "no" }},
            pod::secret_env("REDIS_PASSWORD", name, secrets::REDIS_PASSWORD),
        ],
        "ports": [{"name": process.name, "containerPort": process.port, "protocol": "TCP"}],
        "readinessProbe": {"tcpSocket": {"port": process.name}, "periodSeconds": 2, "timeoutSeconds": 1, "failureThreshold": 2},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
    })
}
