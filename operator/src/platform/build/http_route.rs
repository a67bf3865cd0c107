//! HTTPRoute of the API, for a Gateway that somebody else runs.

use crds::names::{self, Component};
use crds::platform::ingress::GatewayRef;
use serde_json::{Value, json};

use super::metadata;
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// Paths of connections that stay open: WebSockets and server-sent events.
pub const STREAMS: [&str; 2] = ["/api/v1/ws", "/api/v1/events"];
/// Time for any other request, well beyond the API's own limit, so that the API is the one that answers.
const REQUEST_TIMEOUT: &str = "60s";

/// The HTTPRoute.
pub fn build(platform: &Platform, gateway: &GatewayRef) -> Object {
    let name = names::component(&platform.name, Component::Api);
    let ingress = &platform.spec.ingress;
    let mut metadata = metadata::owned(platform, Component::Api, &name);
    if !ingress.annotations.is_empty() {
        metadata["annotations"] = json!(ingress.annotations);
    }
    let streams = STREAMS.map(matching);
    let rule = |matches: Value, timeout: &str| {
        json!({
            "matches": matches,
            "timeouts": {"request": timeout},
            "backendRefs": [{"group": "", "kind": "Service", "name": name, "port": names::API_PORT, "weight": 1}],
        })
    };
    let manifest = json!({
        "metadata": metadata,
        "spec": {
            "hostnames": [ingress.host],
            "parentRefs": [{
                "group": "gateway.networking.k8s.io",
                "kind": "Gateway",
                "name": gateway.name,
                "namespace": gateway.namespace,
                "sectionName": gateway.section_name,
            }],
            // A timeout of zero is none.
            "rules": [rule(json!(streams), "0s"), rule(json!([matching("/")]), REQUEST_TIMEOUT)],
        },
    });
    Object::new(Kind::HTTPRoute, name, manifest)
}

fn matching(prefix: &str) -> Value {
    json!({"path": {"type": "PathPrefix", "value": prefix}})
}
