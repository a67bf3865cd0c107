//! Service of the API. The operations port is not part of it: no ingress can route there by mistake.

use crds::names::{self, Component};
use serde_json::json;

use super::metadata;
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// The service.
pub fn build(platform: &Platform) -> Object {
    let name = names::component(&platform.name, Component::Api);
    let manifest = json!({
        "metadata": metadata::owned(platform, Component::Api, &name),
        "spec": {
            "type": "ClusterIP",
            "selector": metadata::selector(platform, Component::Api),
            "ports": [{"name": "http", "port": names::API_PORT, "targetPort": "http", "appProtocol": "http"}],
        },
    });
    Object::new(Kind::Service, name, manifest)
}
