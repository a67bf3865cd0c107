//! Job that brings the schema to the release. Its name says which release and image, so that each runs once.

use crds::names::{self, Component};
use crds::platform::Resources;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{api_config, metadata, pod, secrets};
use crate::platform::object::{Kind, Object};
use crate::platform::validate::{Database, Platform};

/// Tries before the migration counts as failed.
const RETRIES: i32 = 4;
/// Time for all tries together, in seconds.
const DEADLINE_SECONDS: i64 = 1_800;

/// Name of the Job for the platform's release and image.
pub fn name(platform: &Platform) -> String {
    let mut digest = Sha256::new();
    digest.update(&platform.version);
    digest.update([0]);
    digest.update(&platform.images.api_server);
    let prefix = names::component(&platform.name, Component::Migration);
    format!("{prefix}-{}", pod::hex(&digest.finalize()[..4]))
}

/// The Job.
pub fn build(platform: &Platform) -> Object {
    let name = name(platform);
    let (environment, volume) = connection(platform);
    let resources = Resources::of(
        &[("cpu", "50m"), ("memory", "64Mi")],
        &[("cpu", "1"), ("memory", "256Mi")],
    );
    let manifest = json!({
        "metadata": metadata::owned(platform, Component::Migration, &name),
        "spec": {
            "backoffLimit": RETRIES,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "template": {
                "metadata": {"labels": metadata::stable_labels(platform, Component::Migration)},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "securityContext": pod::security_context(pod::APP_USER),
                    "imagePullSecrets": pod::pull_secrets(platform),
                    "containers": [{
                        "name": "migrate",
                        "image": platform.images.api_server,
                        "imagePullPolicy": platform.spec.images.pull_policy.as_str(),
                        "args": ["migrate"],
                        "env": environment,
                        "securityContext": pod::container_security_context(),
                        "resources": pod::resources(&resources),
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                        "volumeMounts": [{"name": "postgres", "mountPath": format!("{}/postgres", api_config::SECRETS_DIR), "readOnly": true}],
                    }],
                    "volumes": [volume],
                },
            },
        },
    });
    Object::new(Kind::Job, name, manifest)
}

/// How the migration reaches the database: as the owner of the schema, or by the URL of the external primary.
fn connection(platform: &Platform) -> (Value, Value) {
    let file = |name: &str| format!("{}/postgres/{name}", api_config::SECRETS_DIR);
    match &platform.database {
        Database::Managed(_) => {
            let secret = names::component(&platform.name, Component::Postgres);
            let host = format!(
                "{}.{}.svc",
                names::postgres_read_write(&platform.name),
                platform.namespace
            );
            let environment = json!([
                {"name": "TANKA_MIGRATE_HOST", "value": host},
                {"name": "TANKA_MIGRATE_PORT", "value": names::POSTGRES_PORT.to_string()},
                {"name": "TANKA_MIGRATE_DATABASE", "value": names::DATABASE},
                {"name": "TANKA_MIGRATE_USER", "value": "tanka_owner"},
                {"name": "TANKA_MIGRATE_PASSWORD_FILE", "value": file(secrets::OWNER_PASSWORD)},
            ]);
            let items = json!([{"key": secrets::OWNER_PASSWORD, "path": secrets::OWNER_PASSWORD}]);
            (
                environment,
                json!({"name": "postgres", "secret": {"secretName": secret, "items": items}}),
            )
        }
        Database::External(external) => {
            let reference = &external.primary_secret_ref;
            let items = json!([{"key": reference.key, "path": "primary"}]);
            let environment = json!([{"name": "TANKA_MIGRATE_URL_FILE", "value": file("primary")}]);
            (
                environment,
                json!({"name": "postgres", "secret": {"secretName": reference.name, "items": items}}),
            )
        }
    }
}
