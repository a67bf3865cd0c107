//! Headless service of Redis: stable names for members, also before they are ready.

use crds::names::{self, Component};
use serde_json::json;

use super::metadata;
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// The service.
pub fn build(platform: &Platform) -> Object {
    let name = names::component(&platform.name, Component::Redis);
    let manifest = json!({
        "metadata": metadata::owned(platform, Component::Redis, &name),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": metadata::selector(platform, Component::Redis),
            "ports": [
                {"name": "redis", "port": names::REDIS_PORT, "targetPort": "redis"},
                {"name": "sentinel", "port": names::SENTINEL_PORT, "targetPort": "sentinel"},
            ],
        },
    });
    Object::new(Kind::Service, name, manifest)
}
