//! Ingress of the API, with settings that keep WebSockets open through the common controllers.

use crds::names::{self, Component};
use crds::platform::ingress::IssuerKind;
use serde_json::{Map, Value, json};

use super::metadata;
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// Longest silence on a connection that a proxy must bear, in seconds: WebSockets are pinged far more often.
const PROXY_TIMEOUT_SECONDS: &str = "3600";

/// The Ingress.
pub fn build(platform: &Platform) -> Object {
    let name = names::component(&platform.name, Component::Api);
    let ingress = &platform.spec.ingress;
    let mut metadata = metadata::owned(platform, Component::Api, &name);
    metadata["annotations"] = Value::Object(annotations(platform));
    let backend = json!({"service": {"name": name, "port": {"name": "http"}}});
    let mut spec = json!({
        "rules": [{"host": ingress.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
    });
    if let Some(class) = &ingress.class_name {
        spec["ingressClassName"] = json!(class);
    }
    if let Some(tls) = &ingress.tls {
        let secret = tls.secret_name.clone().unwrap_or_else(|| format!("{name}-tls"));
        spec["tls"] = json!([{"hosts": [ingress.host], "secretName": secret}]);
    }
    Object::new(Kind::Ingress, name, json!({"metadata": metadata, "spec": spec}))
}

fn annotations(platform: &Platform) -> Map<String, Value> {
    let ingress = &platform.spec.ingress;
    let mut annotations = Map::new();
    for key in ["proxy-read-timeout", "proxy-send-timeout"] {
        annotations.insert(
            format!("nginx.ingress.kubernetes.io/{key}"),
            json!(PROXY_TIMEOUT_SECONDS),
        );
    }
    if let Some(issuer) = ingress.tls.as_ref().and_then(|tls| tls.issuer_ref.as_ref()) {
        let key = match issuer.kind {
            IssuerKind::Issuer => "cert-manager.io/issuer",
            IssuerKind::ClusterIssuer => "cert-manager.io/cluster-issuer",
        };
        annotations.insert(key.to_owned(), json!(issuer.name));
    }
    annotations.extend(
        ingress
            .annotations
            .iter()
            .map(|(key, value)| (key.clone(), json!(value))),
    );
    annotations
}
