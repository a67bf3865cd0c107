//! Platforms for tests: all defaults, with what a test is about laid over them.

use crds::names::Component;
use crds::{TankaPlatform, TankaPlatformSpec};
use serde_json::{Value, json};

use super::observe::pods::Pod;
use super::validate::{Platform, Release, validate};

/// The release in tests.
pub fn release() -> Release {
    Release {
        version: "0.1.0".to_owned(),
        api_server: "tanka/api-server:0.1.0".to_owned(),
        postgres: "tanka/postgres:0.1.0".to_owned(),
        redis: "tanka/redis:0.1.0".to_owned(),
        runbooks: crate::alerts::RUNBOOKS.to_owned(),
    }
}

/// A stored `TankaPlatform` called acme.
pub fn stored(spec: Value) -> TankaPlatform {
    let spec: TankaPlatformSpec = serde_json::from_value(spec).expect("a spec that can be read");
    let mut platform = TankaPlatform::new("acme", spec);
    platform.metadata.namespace = Some("shop".to_owned());
    platform.metadata.uid = Some("0b9f1f5e-0000-4000-8000-000000000001".to_owned());
    platform.metadata.generation = Some(1);
    platform
}

/// The same, validated.
pub fn platform(spec: Value) -> Platform {
    validate(&stored(spec), &release()).expect("a spec that makes sense")
}

/// A pod that runs.
pub fn running_pod(component: Component, name: &str) -> Pod {
    Pod {
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        component: component.as_str().to_owned(),
        ip: Some("10.0.0.7".to_owned()),
        ready: true,
        ..Pod::default()
    }
}

/// A spec with external PostgreSQL and Redis and every optional part.
pub fn external() -> Value {
    json!({
        "postgres": {"external": {
            "primarySecretRef": {"name": "db", "key": "primary"},
            "replicaSecretRefs": [{"name": "db", "key": "replica"}],
        }},
        "redis": {"external": {"secretRef": {"name": "cache", "key": "url"}}},
        "ingress": {"enabled": true, "host": "api.example.com", "tls": {"issuerRef": {"name": "letsencrypt"}}},
        "api": {"autoscaling": {"enabled": false}, "replicas": 2},
    })
}
