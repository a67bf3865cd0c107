//! NetworkPolicies: who may reach what. Only what is listed comes in; what goes out is left to the cluster's own policies.

use crds::names::{self, Component};
use serde_json::{Value, json};

use super::metadata;
use crate::platform::object::{Kind, Object};
use crate::platform::validate::{Cache, Database, Platform};

/// One policy for each component that runs here.
pub fn build(platform: &Platform) -> Vec<Object> {
    let pods = |component| json!({"podSelector": {"matchLabels": metadata::selector(platform, component)}});
    let mut policies = vec![policy(
        platform,
        Component::Api,
        &json!([
            {"ports": [port(names::API_PORT)]},
            // Scrapers live in namespaces that cannot be known here; the port is in no Service and no Ingress.
            {"from": [{"namespaceSelector": {}}], "ports": [port(names::API_OPS_PORT)]},
        ]),
    )];
    if matches!(platform.database, Database::Managed(_)) {
        let peers = [Component::Postgres, Component::Api, Component::Migration].map(pods);
        let mut callers = vec![pods(Component::Postgres), operator()];
        callers.extend(scrapers(platform));
        policies.push(policy(
            platform,
            Component::Postgres,
            &json!([
                {"from": peers, "ports": [port(names::POSTGRES_PORT)]},
                {"from": callers, "ports": [port(names::PATRONI_PORT)]},
            ]),
        ));
    }
    if matches!(platform.cache, Cache::Managed(_)) {
        policies.push(policy(platform, Component::Redis, &json!([
            // The operator asks the primary which replicas are in step.
            {"from": [pods(Component::Redis), pods(Component::Api), operator()], "ports": [port(names::REDIS_PORT), port(names::SENTINEL_PORT)]},
        ])));
    }
    policies
}

/// The operator's pods, in whatever namespace they run.
fn operator() -> Value {
    json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {names::NAME_LABEL: names::MANAGED_BY}}})
}

/// Whoever reads the metrics of PostgreSQL.
fn scrapers(platform: &Platform) -> Option<Value> {
    let monitors = &platform.spec.monitoring.pod_monitor;
    (monitors.enabled && !monitors.namespaces.is_empty()).then(|| {
        json!({"namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "In", "values": monitors.namespaces},
        ]}})
    })
}

fn port(port: u16) -> Value {
    json!({"port": port, "protocol": "TCP"})
}

fn policy(platform: &Platform, component: Component, ingress: &Value) -> Object {
    let name = names::component(&platform.name, component);
    let manifest = json!({
        "metadata": metadata::owned(platform, component, &name),
        "spec": {
            "podSelector": {"matchLabels": metadata::selector(platform, component)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    });
    Object::new(Kind::NetworkPolicy, name, manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the operator's own policy lets out is what it asks pods at.
    #[test]
    fn the_operator_may_reach_every_port_that_it_asks_at() {
        for policy in [
            include_str!("../../../../config/operator/deployment.yaml"),
            include_str!("../../../../charts/tanka-operator/templates/networkpolicy.yaml"),
        ] {
            for port in [
                names::PATRONI_PORT,
                names::REDIS_PORT,
                names::SENTINEL_PORT,
                names::API_OPS_PORT,
            ] {
                let rule = format!("{{protocol: TCP, port: {port}}}");
                assert!(policy.contains(&rule), "{rule} is not allowed");
            }
        }
    }
}
