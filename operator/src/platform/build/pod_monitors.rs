//! PodMonitors: what prometheus-operator scrapes. Series carry the platform's name and the component, which the rules look for.

use crds::names::{self, Component};
use serde_json::json;

use super::metadata;
use crate::platform::object::{Kind, Object};
use crate::platform::validate::{Database, Platform};

/// One for each component that has metrics. Redis and its Sentinels have none of their own; the API and the operator speak for them.
pub fn build(platform: &Platform) -> Vec<Object> {
    let mut monitors = vec![monitor(platform, Component::Api, "ops")];
    if matches!(platform.database, Database::Managed(_)) {
        monitors.push(monitor(platform, Component::Postgres, "patroni"));
    }
    monitors
}

fn monitor(platform: &Platform, component: Component, port: &str) -> Object {
    let name = names::component(&platform.name, component);
    let from_label = |label: &str, target: &str| {
        let source = format!(
            "__meta_kubernetes_pod_label_{}",
            label.replace(['.', '/', '-'], "_")
        );
        json!({"action": "replace", "sourceLabels": [source], "targetLabel": target})
    };
    let labels = &platform.spec.monitoring.pod_monitor.labels;
    let mut metadata = metadata::labelled(platform, &name, labels);
    metadata["labels"][names::COMPONENT_LABEL] = json!(component.as_str());
    let manifest = json!({
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": metadata::selector(platform, component)},
            "podMetricsEndpoints": [{
                "port": port,
                "path": "/metrics",
                "interval": "15s",
                "scrapeTimeout": "10s",
                "relabelings": [
                    from_label(names::PLATFORM_LABEL, "platform"),
                    from_label(names::COMPONENT_LABEL, "component"),
                ],
            }],
        },
    });
    Object::new(Kind::PodMonitor, name, manifest)
}
