//! StatefulSet of PostgreSQL under Patroni.

use crds::names::{self, Component};
use crds::platform::DeletionPolicy;
use crds::platform::postgres::{ManagedPostgres, Storage};
use serde_json::{Value, json};

use super::{metadata, pod, postgres_patroni, secrets};
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// The StatefulSet.
pub fn build(platform: &Platform, postgres: &ManagedPostgres) -> Object {
    let name = names::component(&platform.name, Component::Postgres);
    let manifest = json!({
        "metadata": metadata::owned(platform, Component::Postgres, &name),
        "spec": {
            "replicas": postgres.instances,
            "serviceName": name,
            // Patroni orders its members itself; one that waits for another could wait for ever.
            "podManagementPolicy": "Parallel",
            // Which pod is replaced when is decided in `plan::rollout`: replicas first, and none while another one is not in step.
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": metadata::selector(platform, Component::Postgres)},
            "persistentVolumeClaimRetentionPolicy": retention(platform.spec.deletion_policy),
            "template": template(platform, postgres, &name),
            "volumeClaimTemplates": [claim(platform, Component::Postgres, &postgres.storage)],
        },
    });
    Object::new(Kind::StatefulSet, name, manifest)
}

/// Volumes of members that were scaled away go the way of those of a deleted platform. A member that comes back to a volume that
/// stayed is rewound or copied anew.
pub fn retention(policy: DeletionPolicy) -> Value {
    let policy = match policy {
        DeletionPolicy::Retain => "Retain",
        DeletionPolicy::Delete => "Delete",
    };
    json!({"whenDeleted": policy, "whenScaled": policy})
}

/// The volume of each member.
pub fn claim(platform: &Platform, component: Component, storage: &Storage) -> Value {
    let mut spec =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage.size}}});
    if let Some(class) = &storage.storage_class_name {
        spec["storageClassName"] = json!(class);
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "labels": metadata::stable_labels(platform, component)}, "spec": spec})
}

fn template(platform: &Platform, postgres: &ManagedPostgres, name: &str) -> Value {
    let mut labels = metadata::stable_labels(platform, Component::Postgres);
    labels[names::PATRONI_SCOPE_LABEL] = json!(name);
    json!({
        "metadata": {"labels": labels, "annotations": postgres_patroni::checksum(platform)},
        "spec": {
            "serviceAccountName": name,
            "automountServiceAccountToken": true,
            "enableServiceLinks": false,
            "securityContext": security_context(),
            "terminationGracePeriodSeconds": 60,
            "imagePullSecrets": pod::pull_secrets(platform),
            "topologySpreadConstraints": pod::spread(platform, Component::Postgres),
            "containers": [container(platform, postgres, name)],
            "volumes": [
                {"name": "config", "configMap": {"name": names::postgres_config(&platform.name)}},
                {"name": "run", "emptyDir": {"sizeLimit": "16Mi"}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
            ],
        },
    })
}

/// A copy or a rewind that was under way when the primary's node went would otherwise wait for it for two hours.
fn security_context() -> Value {
    let mut context = pod::security_context(pod::POSTGRES_USER);
    context["sysctls"] = json!([
        {"name": "net.ipv4.tcp_keepalive_time", "value": "10"},
        {"name": "net.ipv4.tcp_keepalive_intvl", "value": "5"},
        {"name": "net.ipv4.tcp_keepalive_probes", "value": "3"},
    ]);
    context
}

fn container(platform: &Platform, postgres: &ManagedPostgres, secret: &str) -> Value {
    json!({
        "name": "postgres",
        "image": platform.images.postgres,
        "imagePullPolicy": platform.spec.images.pull_policy.as_str(),
        "securityContext": pod::container_security_context(),
        "resources": pod::resources(&postgres.resources),
        "env": environment(platform, secret),
        "ports": [
            {"name": "postgres", "containerPort": names::POSTGRES_PORT, "protocol": "TCP"},
            {"name": "patroni", "containerPort": names::PATRONI_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/readiness", "port": "patroni"},
            "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2,
        },
        "livenessProbe": {
            // Fails only when Patroni itself no longer runs its loop; a restart of PostgreSQL is Patroni's business.
            "httpGet": {"path": "/liveness", "port": "patroni"},
            "initialDelaySeconds": 30, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "data", "mountPath": "/var/lib/postgresql/data"},
            {"name": "config", "mountPath": postgres_patroni::CONFIG_DIR, "readOnly": true},
            {"name": "run", "mountPath": "/var/run/postgresql"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    })
}

fn environment(platform: &Platform, secret: &str) -> Value {
    json!([
        pod::field_env("POD_IP", "status.podIP"),
        pod::field_env("PATRONI_NAME", "metadata.name"),
        pod::field_env("PATRONI_KUBERNETES_NAMESPACE", "metadata.namespace"),
        pod::field_env("PATRONI_KUBERNETES_POD_IP", "status.podIP"),
        {"name": "PATRONI_RESTAPI_CONNECT_ADDRESS", "value": format!("$(POD_IP):{}", names::PATRONI_PORT)},
        {"name": "PATRONI_POSTGRESQL_CONNECT_ADDRESS", "value": format!("$(POD_IP):{}", names::POSTGRES_PORT)},
        pod::secret_env("PATRONI_SUPERUSER_PASSWORD", secret, secrets::SUPERUSER_PASSWORD),
        pod::secret_env("PATRONI_REWIND_PASSWORD", secret, secrets::SUPERUSER_PASSWORD),
        pod::secret_env("PATRONI_REPLICATION_PASSWORD", secret, secrets::REPLICATION_PASSWORD),
        {"name": "PATRONI_RESTAPI_USERNAME", "value": secrets::PATRONI_USER},
        pod::secret_env("PATRONI_RESTAPI_PASSWORD", secret, secrets::PATRONI_PASSWORD),
        pod::secret_env("TANKA_OWNER_PASSWORD", secret, secrets::OWNER_PASSWORD),
        pod::secret_env("TANKA_APP_PASSWORD", secret, secrets::APP_PASSWORD),
        pod::secret_env("TANKA_MONITOR_PASSWORD", secret, secrets::MONITOR_PASSWORD),
        {"name": "TANKA_PLATFORM", "value": platform.name},
    ])
}
