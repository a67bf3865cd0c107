//! What all pods have in common: the restricted security profile, image settings, and spreading over nodes.

use crds::names::{self, Component};
use crds::platform::Resources;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::metadata;
use crate::platform::validate::Platform;

/// User and group of a container image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: i64,
    /// Group id, also that of the volumes.
    pub gid: i64,
}

/// The user in our own images.
pub const APP_USER: User = User {
    uid: 65_532,
    gid: 65_532,
};
/// The user `postgres` in the PostgreSQL image.
pub const POSTGRES_USER: User = User { uid: 101, gid: 103 };
/// The user `redis` in the Redis image.
pub const REDIS_USER: User = User { uid: 999, gid: 999 };

/// Security context of a pod under the Pod Security Standard `restricted`.
pub fn security_context(user: User) -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": user.uid,
        "runAsGroup": user.gid,
        "fsGroup": user.gid,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// Security context of a container under the same standard.
pub fn container_security_context() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    })
}

/// Requests and limits.
pub fn resources(resources: &Resources) -> Value {
    json!({"requests": resources.requests, "limits": resources.limits})
}

/// Secrets with registry credentials; nothing where there are none.
pub fn pull_secrets(platform: &Platform) -> Value {
    let names = &platform.spec.images.pull_secrets;
    if names.is_empty() {
        Value::Null
    } else {
        names.iter().map(|name| json!({"name": name})).collect()
    }
}

/// Spread over nodes where there are several; never a reason not to run.
pub fn spread(platform: &Platform, component: Component) -> Value {
    json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": metadata::selector(platform, component)},
    }])
}

/// An environment variable out of a Secret.
pub fn secret_env(name: &str, secret: &str, key: &str) -> Value {
    json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
}

/// An environment variable out of the pod's own description.
pub fn field_env(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

/// The annotation that makes pods roll when what they cannot reload has changed.
pub fn checksum(parts: &[&str]) -> Value {
    json!({names::CHECKSUM_ANNOTATION: digest(parts)})
}

/// A short digest of texts, and of where one ends and the next begins.
pub fn digest(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_le_bytes());
        digest.update(part.as_bytes());
    }
    hex(&digest.finalize()[..8])
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}
