//! Services of PostgreSQL: stable names for members, one for the primary, one for replicas.

use crds::names::{self, Component};
use serde_json::{Value, json};

use super::metadata;
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// The three services.
pub fn build(platform: &Platform) -> Vec<Object> {
    let headless = names::component(&platform.name, Component::Postgres);
    vec![
        // Members must find each other before they are ready.
        service(
            platform,
            &headless,
            json!({"clusterIP": "None", "publishNotReadyAddresses": true}),
            None,
        ),
        service(
            platform,
            &names::postgres_read_write(&platform.name),
            json!({}),
            Some("primary"),
        ),
        service(
            platform,
            &names::postgres_read_only(&platform.name),
            json!({}),
            Some("replica"),
        ),
    ]
}

fn service(platform: &Platform, name: &str, mut spec: Value, role: Option<&str>) -> Object {
    let mut selector = metadata::selector(platform, Component::Postgres);
    if let Some(role) = role {
        selector[names::PATRONI_ROLE_LABEL] = json!(role);
    }
    spec["selector"] = selector;
    spec["ports"] = json!([{"name": "postgres", "port": names::POSTGRES_PORT, "targetPort": "postgres"}]);
    Object::new(
        Kind::Service,
        name,
        json!({"metadata": metadata::owned(platform, Component::Postgres, name), "spec": spec}),
    )
}
