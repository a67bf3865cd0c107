//! Ingress of the API, with settings that keep WebSockets open through the common controllers.

use crds::names::{self, Component};
use crds::platform::ingress::IssuerKind;
use serde_json::{Map, Value, json};

use super::metadata;
use crate::platform::object::{Kind, Object};
use crate::platform::plan::edge::Controller;
use crate::platform::validate::Platform;

/// The Ingress.
pub fn build(platform: &Platform, controller: Controller) -> Object {
    let name = names::component(&platform.name, Component::Api);
    let ingress = &platform.spec.ingress;
    let mut metadata = metadata::owned(platform, Component::Api, &name);
    metadata["annotations"] = Value::Object(annotations(platform, controller, &name));
    let backend = json!({"service": {"name": name, "port": {"name": "http"}}});
    let mut spec = json!({
        "rules": [{"host": ingress.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
    });
    if let Some(class) = &ingress.class_name {
        spec["ingressClassName"] = json!(class);
    }
    if let Some(secret) = certificate(platform) {
        spec["tls"] = json!([{"hosts": [ingress.host], "secretName": secret}]);
    }
    Object::new(Kind::Ingress, name, json!({"metadata": metadata, "spec": spec}))
}

/// Name of the Secret with the certificate, if there is to be one.
pub fn certificate(platform: &Platform) -> Option<String> {
    let tls = platform.spec.ingress.tls.as_ref()?;
    let own = || format!("{}-tls", names::component(&platform.name, Component::Api));
    Some(tls.secret_name.clone().unwrap_or_else(own))
}

/// What the user says wins over what the issuer needs, and that over what the controller is told.
fn annotations(platform: &Platform, controller: Controller, service: &str) -> Map<String, Value> {
    let ingress = &platform.spec.ingress;
    let text = |value: &str| json!(value);
    let mut annotations: Map<String, Value> = settings(controller, ingress.tls.is_some(), service)
        .into_iter()
        .map(|(key, value)| (key.to_owned(), text(&value)))
        .collect();
    if let Some(issuer) = ingress.tls.as_ref().and_then(|tls| tls.issuer_ref.as_ref()) {
        let key = match issuer.kind {
            IssuerKind::Issuer => "cert-manager.io/issuer",
            IssuerKind::ClusterIssuer => "cert-manager.io/cluster-issuer",
        };
        annotations.insert(key.to_owned(), text(&issuer.name));
    }
    annotations.extend(
        ingress
            .annotations
            .iter()
            .map(|(key, value)| (key.clone(), text(value))),
    );
    annotations
}

/// Settings of each controller, to one purpose: a silent WebSocket is left alone for an hour (it is pinged far more often), a pod that
/// does not take a connection is given up soon, answers are passed on as they come, the body's size is the API's own business, and
/// the least busy pod is preferred. Never stickiness: any pod serves any request.
fn settings(controller: Controller, tls: bool, service: &str) -> Vec<(&'static str, String)> {
    let owned = |pairs: &[(&'static str, &str)]| pairs.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    match controller {
        Controller::IngressNginx => owned(&[
            ("nginx.ingress.kubernetes.io/proxy-connect-timeout", "5"),
            ("nginx.ingress.kubernetes.io/proxy-read-timeout", "3600"),
            ("nginx.ingress.kubernetes.io/proxy-send-timeout", "3600"),
            ("nginx.ingress.kubernetes.io/proxy-body-size", "0"),
            ("nginx.ingress.kubernetes.io/proxy-buffering", "off"),
            ("nginx.ingress.kubernetes.io/proxy-request-buffering", "off"),
            ("nginx.ingress.kubernetes.io/load-balance", "ewma"),
        ]),
        Controller::NginxInc => vec![
            ("nginx.org/websocket-services", service.to_owned()),
            ("nginx.org/proxy-connect-timeout", "5s".to_owned()),
            ("nginx.org/proxy-read-timeout", "3600s".to_owned()),
            ("nginx.org/proxy-send-timeout", "3600s".to_owned()),
            ("nginx.org/client-max-body-size", "0".to_owned()),
            ("nginx.org/proxy-buffering", "False".to_owned()),
            ("nginx.org/lb-method", "least_conn".to_owned()),
            ("nginx.org/keepalive", "64".to_owned()),
        ],
        // Its timeouts belong to entry points; it neither limits nor buffers by itself.
        Controller::Traefik if tls => owned(&[("traefik.ingress.kubernetes.io/router.tls", "true")]),
        Controller::Traefik => Vec::new(),
        Controller::HaproxyTech => owned(&[
            ("haproxy.org/load-balance", "leastconn"),
            ("haproxy.org/timeout-connect", "5s"),
            ("haproxy.org/timeout-server", "3600s"),
            ("haproxy.org/timeout-tunnel", "3600s"),
        ]),
        Controller::HaproxyIngress => owned(&[
            ("haproxy-ingress.github.io/balance-algorithm", "leastconn"),
            ("haproxy-ingress.github.io/timeout-connect", "5s"),
            ("haproxy-ingress.github.io/timeout-server", "3600s"),
            ("haproxy-ingress.github.io/timeout-tunnel", "3600s"),
            ("haproxy-ingress.github.io/proxy-body-size", "unlimited"),
        ]),
        Controller::Alb => owned(&[
            ("alb.ingress.kubernetes.io/target-type", "ip"),
            ("alb.ingress.kubernetes.io/healthcheck-path", "/ready"),
            (
                "alb.ingress.kubernetes.io/load-balancer-attributes",
                "idle_timeout.timeout_seconds=3600",
            ),
            (
                "alb.ingress.kubernetes.io/target-group-attributes",
                "load_balancing.algorithm.type=least_outstanding_requests,stickiness.enabled=false,deregistration_delay.timeout_seconds=60",
            ),
        ]),
        Controller::Contour => owned(&[
            ("projectcontour.io/websocket-routes", "/"),
            ("projectcontour.io/response-timeout", "infinity"),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::platform::fixtures::platform;

    const ALL: [Controller; 7] = [
        Controller::IngressNginx,
        Controller::NginxInc,
        Controller::Traefik,
        Controller::HaproxyTech,
        Controller::HaproxyIngress,
        Controller::Alb,
        Controller::Contour,
    ];

    fn edge(annotations: &Value) -> Platform {
        platform(json!({"ingress": {
            "enabled": true, "host": "api.example.com", "className": "edge", "annotations": annotations,
            "tls": {"issuerRef": {"name": "letsencrypt", "kind": "Issuer"}},
        }}))
    }

    #[test]
    fn the_ingress_for_each_controller() {
        let platform = edge(&json!({}));
        let built: Vec<_> = ALL
            .into_iter()
            .map(|controller| (format!("{controller:?}"), build(&platform, controller).manifest))
            .collect();
        insta::assert_yaml_snapshot!(built);
    }

    /// F42: any pod serves any request, so nobody is tied to one.
    #[test]
    fn no_controller_is_told_to_be_sticky() {
        for controller in ALL {
            for (key, value) in settings(controller, true, "acme-api") {
                let sticky = ["affinity", "sticky", "ip_hash", "hash-by", "cookie"];
                let harmless = value.contains("stickiness.enabled=false");
                assert!(
                    harmless
                        || !sticky
                            .iter()
                            .any(|word| key.contains(word) || value.contains(word)),
                    "{key}: {value}"
                );
            }
        }
    }

    /// F34: no timeout of a minute, and no buffer between an event and its reader.
    #[rstest]
    #[case(
        Controller::IngressNginx,
        "nginx.ingress.kubernetes.io/proxy-read-timeout",
        "3600"
    )]
    #[case(
        Controller::IngressNginx,
        "nginx.ingress.kubernetes.io/proxy-buffering",
        "off"
    )]
    #[case(Controller::HaproxyTech, "haproxy.org/timeout-tunnel", "3600s")]
    #[case(
        Controller::Alb,
        "alb.ingress.kubernetes.io/load-balancer-attributes",
        "idle_timeout.timeout_seconds=3600"
    )]
    fn a_silent_socket_stays_open(#[case] controller: Controller, #[case] key: &str, #[case] value: &str) {
        assert_eq!(
            build(&edge(&json!({})), controller).manifest["metadata"]["annotations"][key],
            value
        );
    }

    #[test]
    fn what_the_user_says_wins() {
        let key = "nginx.ingress.kubernetes.io/proxy-read-timeout";
        let built = build(&edge(&json!({key: "900"})), Controller::IngressNginx);
        assert_eq!(built.manifest["metadata"]["annotations"][key], "900");
        assert_eq!(
            built.manifest["metadata"]["annotations"]["cert-manager.io/issuer"],
            "letsencrypt"
        );
    }
}
