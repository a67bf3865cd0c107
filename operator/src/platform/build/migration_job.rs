//! Job that brings the schema to the release. Its name says which release, image and external services, so that each runs once.
//! Where PostgreSQL or Redis are somebody else's, it first waits until they can be used, and says on its operations port what they lack.

use crds::names::{self, Component};
use crds::platform::Resources;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{api_config, api_deployment, metadata, pod, secrets};
use crate::platform::object::{Kind, Object};
use crate::platform::observe::World;
use crate::platform::observe::secrets::{digest, of_cache, of_database};
use crate::platform::validate::{Cache, Database, Platform};

/// Tries before the migration counts as failed.
const RETRIES: i32 = 4;
/// Time for all tries together, in seconds.
const DEADLINE_SECONDS: i64 = 1_800;
/// The same where somebody has to mend an external service first.
const EXTERNAL_DEADLINE_SECONDS: i64 = 86_400;

/// Name of the Job for the platform's release, image and external services.
pub fn name(platform: &Platform, world: &World) -> String {
    let mut hash = Sha256::new();
    hash.update(&platform.version);
    hash.update([0]);
    hash.update(&platform.images.api_server);
    let services: Vec<_> = of_database(platform)
        .into_iter()
        .chain(of_cache(platform))
        .collect();
    if !services.is_empty() {
        hash.update([0]);
        hash.update(digest(&world.references, &services));
    }
    let prefix = names::component(&platform.name, Component::Migration);
    format!("{prefix}-{}", pod::hex(&hash.finalize()[..4]))
}

/// The Job.
pub fn build(platform: &Platform, world: &World) -> Object {
    let name = name(platform, world);
    let external = !(of_database(platform).is_empty() && of_cache(platform).is_empty());
    let deadline = if external {
        EXTERNAL_DEADLINE_SECONDS
    } else {
        DEADLINE_SECONDS
    };
    let (environment, volumes) = connection(platform);
    let mounts: Vec<Value> = volumes
        .iter()
        .map(|volume| {
            let path = format!(
                "{}/{}",
                api_config::SECRETS_DIR,
                volume["name"].as_str().unwrap_or_default()
            );
            json!({"name": volume["name"], "mountPath": path, "readOnly": true})
        })
        .collect();
    let resources = Resources::of(
        &[("cpu", "50m"), ("memory", "64Mi")],
        &[("cpu", "1"), ("memory", "256Mi")],
    );
    let manifest = json!({
        "metadata": metadata::owned(platform, Component::Migration, &name),
        "spec": {
            "backoffLimit": RETRIES,
            "activeDeadlineSeconds": deadline,
            "template": {
                "metadata": {"labels": metadata::stable_labels(platform, Component::Migration)},
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": names::component(&platform.name, Component::Migration),
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
                        "ports": external.then(|| json!([{"name": "ops", "containerPort": names::API_OPS_PORT, "protocol": "TCP"}])),
                        "volumeMounts": mounts,
                    }],
                    "volumes": volumes,
                },
            },
        },
    });
    Object::new(Kind::Job, name, manifest)
}

/// How the migration reaches the database: as the owner of the schema, or by the URL of the external primary. With it come the
/// addresses that it checks first.
fn connection(platform: &Platform) -> (Vec<Value>, Vec<Value>) {
    let file = |name: &str| format!("{}/postgres/{name}", api_config::SECRETS_DIR);
    let variable = |name: &str, value: String| json!({"name": name, "value": value});
    let (mut environment, mut volumes) = match &platform.database {
        Database::Managed(_) => {
            let secret = names::component(&platform.name, Component::Postgres);
            let host = format!(
                "{}.{}.svc",
                names::postgres_read_write(&platform.name),
                platform.namespace
            );
            let environment = vec![
                variable("TANKA_MIGRATE_HOST", host),
                variable("TANKA_MIGRATE_PORT", names::POSTGRES_PORT.to_string()),
                variable("TANKA_MIGRATE_DATABASE", names::DATABASE.to_owned()),
                variable("TANKA_MIGRATE_USER", "tanka_owner".to_owned()),
                variable("TANKA_MIGRATE_PASSWORD_FILE", file(secrets::OWNER_PASSWORD)),
            ];
            let items = json!([{"key": secrets::OWNER_PASSWORD, "path": secrets::OWNER_PASSWORD}]);
            let volume = json!({"name": "postgres", "secret": {"secretName": secret, "items": items}});
            (environment, vec![volume])
        }
        Database::External(external) => {
            let mut environment = vec![variable("TANKA_MIGRATE_URL_FILE", file("primary"))];
            let replicas: Vec<_> = (0..external.replica_secret_refs.len())
                .map(|index| file(&format!("replica-{index}")))
                .collect();
            if !replicas.is_empty() {
                environment.push(variable("TANKA_CHECK_REPLICA_URL_FILES", replicas.join(",")));
            }
            if external.ca_secret_ref.is_some() {
                environment.push(variable("TANKA_MIGRATE_CA_FILE", file(api_config::AUTHORITY)));
            }
            (environment, vec![api_deployment::postgres_volume(platform)])
        }
    };
    let external =
        matches!(platform.database, Database::External(_)) || matches!(platform.cache, Cache::External(_));
    if let Cache::External(external) = &platform.cache {
        let file = |name: &str| format!("{}/redis/{name}", api_config::SECRETS_DIR);
        environment.push(variable("TANKA_CHECK_REDIS_URL_FILE", file("url")));
        if external.ca_secret_ref.is_some() {
            environment.push(variable("TANKA_CHECK_REDIS_CA_FILE", file(api_config::AUTHORITY)));
        }
        volumes.push(api_deployment::redis_volume(platform));
    }
    if external {
        environment.push(variable(
            "TANKA_CHECK_LISTEN",
            format!("0.0.0.0:{}", names::API_OPS_PORT),
        ));
    }
    (environment, volumes)
}
