//! Secrets: which there are and what is in them. Their values are drawn where they are created, once.

use crds::names::{self, Component};
use crds::platform::DeletionPolicy;
use serde_json::{Value, json};

use super::metadata;
use crate::platform::validate::{Cache, Database, Platform};

/// Keys of the Secret of PostgreSQL.
pub const SUPERUSER_PASSWORD: &str = "superuser-password";
/// Password of the role that replicas use.
pub const REPLICATION_PASSWORD: &str = "replication-password";
/// Password of the role that owns the schema.
pub const OWNER_PASSWORD: &str = "owner-password";
/// Password of the role of the API.
pub const APP_PASSWORD: &str = "app-password";
/// Password of the role that monitoring uses.
pub const MONITOR_PASSWORD: &str = "monitor-password";
/// Password of the operator and of the members for changes through Patroni's API.
pub const PATRONI_PASSWORD: &str = "patroni-password";
/// Whom that password belongs to.
pub const PATRONI_USER: &str = "tanka";
/// Key of the Secret of Redis.
pub const REDIS_PASSWORD: &str = "password";
/// Key of the Secret of the API: keys the hashes of tokens.
pub const PEPPER: &str = "pepper";

/// A Secret that must exist, with random values under these keys.
#[derive(Debug, Clone, PartialEq)]
pub struct SecretRequest {
    /// Its name.
    pub name: String,
    /// Keys that must be in it.
    pub keys: &'static [&'static str],
    /// Its metadata.
    pub metadata: Value,
}

impl SecretRequest {
    /// The manifest, with the given value under each key.
    pub fn manifest(&self, values: &std::collections::BTreeMap<String, String>) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": self.metadata, "stringData": values})
    }
}

/// The Secrets that a platform needs.
pub fn requests(platform: &Platform) -> Vec<SecretRequest> {
    let mut requests = vec![request(platform, Component::Api, &[PEPPER])];
    if matches!(platform.database, Database::Managed(_)) {
        const KEYS: &[&str] = &[
            SUPERUSER_PASSWORD,
            REPLICATION_PASSWORD,
            OWNER_PASSWORD,
            APP_PASSWORD,
            MONITOR_PASSWORD,
            PATRONI_PASSWORD,
        ];
        requests.push(request(platform, Component::Postgres, KEYS));
    }
    if matches!(platform.cache, Cache::Managed(_)) {
        requests.push(request(platform, Component::Redis, &[REDIS_PASSWORD]));
    }
    requests
}

fn request(platform: &Platform, component: Component, keys: &'static [&'static str]) -> SecretRequest {
    let name = names::component(&platform.name, component);
    // Credentials live as long as the volumes that they open.
    let metadata = match platform.spec.deletion_policy {
        DeletionPolicy::Retain => metadata::outliving(platform, component, &name),
        DeletionPolicy::Delete => metadata::owned(platform, component, &name),
    };
    SecretRequest { name, keys, metadata }
}
