//! ConfigMap with `tanka.yaml`: everything of the spec that the API server takes over while it runs.

use std::collections::BTreeMap;

use crds::config::{self, Config};
use crds::names::{self, Component};
use crds::platform::api::{ApiSpec, ObjectStore};
use serde_json::json;

use super::metadata;
use crate::platform::object::{Kind, Object};
use crate::platform::plan::pool;
use crate::platform::validate::{Cache, Database, Platform};

/// Folder of the mounted configuration.
pub const CONFIG_DIR: &str = "/etc/tanka";
/// Folder under which each mounted Secret has a folder of its own.
pub const SECRETS_DIR: &str = "/run/secrets/tanka";

/// File with the key of the endpoint for embeddings.
pub const EMBEDDINGS_KEY: &str = "api-key";

/// File with the certificate of an authority, beside the URLs of the services whose certificates it signs.
pub const AUTHORITY: &str = "ca";

/// Files with the keys of the object store.
pub const OBJECTS_ACCESS_KEY: &str = "access-key";
/// The other one.
pub const OBJECTS_SECRET_KEY: &str = "secret-key";

/// The key of a release's file. Each release has its own: one may not know what another is told, and pods of both run while a new
/// one rolls out.
pub fn file(version: &str) -> String {
    format!("tanka-{version}.yaml")
}

/// The ConfigMap, with the files of other releases that pods may still read.
pub fn build(platform: &Platform, others: &BTreeMap<String, String>) -> Object {
    let name = names::api_config(&platform.name);
    // JSON is YAML, and stays the same to the byte for the same content.
    let text = format!(
        "{:#}\n",
        serde_json::to_value(config(platform)).unwrap_or_default()
    );
    let mut data = others.clone();
    data.insert(file(&platform.version), text);
    let manifest = json!({"metadata": metadata::owned(platform, Component::Api, &name), "data": data});
    Object::new(Kind::ConfigMap, name, manifest)
}

/// The configuration of the platform's API servers.
pub fn config(platform: &Platform) -> Config {
    let api = &platform.spec.api;
    Config {
        log_level: api.log_level.into(),
        database: database(platform),
        redis: redis(platform),
        http: config::Http::default(),
        auth: config::Auth {
            access_token_ttl: api.auth.access_token_ttl,
            refresh_token_ttl: api.auth.refresh_token_ttl,
            ..config::Auth::default()
        },
        cache: cache(api),
        embeddings: embeddings(api),
        jobs: config::Jobs::default(),
        outbound: config::Outbound {
            // What cannot be read is not allowed; the schema has refused it already.
            allowed_networks: api
                .outbound
                .allowed_networks
                .iter()
                .filter_map(|network| network.parse().ok())
                .collect(),
        },
        resources: config::Resources {
            object_store: api.object_store.as_ref().map(object_store),
            ..config::Resources::default()
        },
        rate_limit: config::RateLimit {
            requests_per_minute: positive(api.rate_limit.requests_per_minute),
            burst: positive(api.rate_limit.burst),
            login_per_minute: positive(api.rate_limit.login_per_minute),
            signup_per_minute: positive(api.rate_limit.signup_per_minute),
        },
        websocket: config::WebSocket {
            max_connections: positive(api.websocket.max_connections),
            max_connections_per_user: positive(api.websocket.max_connections_per_user),
            max_message_size: api.websocket.max_message_size,
            messages_per_second: positive(api.websocket.messages_per_second),
            message_burst: positive(api.websocket.message_burst),
            idle_timeout: api.websocket.idle_timeout,
            send_buffer: api.websocket.send_buffer,
            history_size: positive(api.websocket.history_size),
            history_ttl: api.websocket.history_ttl,
        },
        drain: config::Drain {
            timeout: api.drain.timeout,
        },
        traces: config::Traces {
            endpoint: api.traces.endpoint.clone(),
            sample_percent: positive(api.traces.sample_percent),
        },
    }
}

/// Without an address there is no endpoint, whatever else is said about it.
fn embeddings(api: &ApiSpec) -> config::Embeddings {
    let asked = &api.embeddings;
    if asked.url.is_none() {
        return config::Embeddings::default();
    }
    config::Embeddings {
        url: asked.url.clone(),
        model: asked.model.clone(),
        dimensions: asked.dimensions.map(positive),
        api_key_file: asked
            .api_key_secret_ref
            .as_ref()
            .map(|_| format!("{SECRETS_DIR}/embeddings/{EMBEDDINGS_KEY}").into()),
    }
}

/// Where the store is; its keys are files.
fn object_store(asked: &ObjectStore) -> config::ObjectStore {
    config::ObjectStore {
        endpoint: asked.endpoint.clone(),
        bucket: asked.bucket.clone(),
        region: asked.region.clone(),
        prefix: asked.prefix.clone(),
        path_style: asked.path_style,
        access_key_file: format!("{SECRETS_DIR}/objects/{OBJECTS_ACCESS_KEY}").into(),
        secret_key_file: format!("{SECRETS_DIR}/objects/{OBJECTS_SECRET_KEY}").into(),
    }
}

/// The schema has bounded these numbers already.
fn positive(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn database(platform: &Platform) -> config::Database {
    let usage = &platform.spec.api.database;
    let instances = match &platform.database {
        Database::Managed(managed) => {
            let set = names::component(&platform.name, Component::Postgres);
            (0..managed.instances)
                .map(|ordinal| config::Instance {
                    name: format!("{set}-{ordinal}"),
                    host: Some(names::member_host(&set, ordinal, &platform.namespace)),
                    port: names::POSTGRES_PORT,
                    url_file: None,
                })
                .collect()
        }
        Database::External(external) => std::iter::once("primary".to_owned())
            .chain((0..external.replica_secret_refs.len()).map(|index| format!("replica-{index}")))
            .map(|name| config::Instance {
                url_file: Some(format!("{SECRETS_DIR}/postgres/{name}").into()),
                name,
                host: None,
                port: names::POSTGRES_PORT,
            })
            .collect(),
    };
    config::Database {
        instances,
        name: names::DATABASE.to_owned(),
        user: "tanka_app".to_owned(),
        password_file: matches!(platform.database, Database::Managed(_))
            .then(|| format!("{SECRETS_DIR}/postgres/{}", super::secrets::APP_PASSWORD).into()),
        ca_file: match &platform.database {
            Database::External(external) => external.ca_secret_ref.as_ref(),
            Database::Managed(_) => None,
        }
        .map(|_| format!("{SECRETS_DIR}/postgres/{AUTHORITY}").into()),
        pool_size: pool::size(platform),
        acquire_timeout: usage.acquire_timeout,
        max_replica_lag: usage.max_replica_lag,
        read_your_writes_timeout: usage.read_your_writes_timeout,
        slow_query_threshold: usage.slow_query_threshold,
    }
}

fn redis(platform: &Platform) -> config::Redis {
    match &platform.cache {
        Cache::Managed(managed) => {
            let set = names::component(&platform.name, Component::Redis);
            let host = |ordinal| names::member_host(&set, ordinal, &platform.namespace);
            config::Redis {
                sentinels: (0..managed.replicas)
                    .map(|i| format!("{}:{}", host(i), names::SENTINEL_PORT))
                    .collect(),
                master_name: names::REDIS_MASTER_NAME.to_owned(),
                password_file: Some(format!("{SECRETS_DIR}/redis/{}", super::secrets::REDIS_PASSWORD).into()),
                url_file: None,
                ca_file: None,
            }
        }
        Cache::External(external) => config::Redis {
            sentinels: Vec::new(),
            master_name: names::REDIS_MASTER_NAME.to_owned(),
            password_file: None,
            url_file: Some(format!("{SECRETS_DIR}/redis/url").into()),
            ca_file: external
                .ca_secret_ref
                .as_ref()
                .map(|_| format!("{SECRETS_DIR}/redis/{AUTHORITY}").into()),
        },
    }
}

fn cache(api: &ApiSpec) -> config::Cache {
    let ttl = &api.cache.ttl;
    config::Cache {
        enabled: api.cache.enabled,
        l1_capacity: api.cache.l1_capacity,
        ttl: config::CacheTtl {
            tokens: ttl.tokens,
            user_profile: ttl.user_profile,
            permissions: ttl.permissions,
            memories: ttl.memories,
            plans: ttl.plans,
            recommendations: ttl.recommendations,
            usage_analysis: ttl.usage_analysis,
            default: ttl.other,
        },
        warm_up: config::WarmUp {
            on_start: api.cache.warm_up.on_start,
            schedules: api.cache.warm_up.schedules.clone(),
        },
    }
}
