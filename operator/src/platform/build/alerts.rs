//! Alerting rules of a platform: a PrometheusRule where prometheus-operator is installed, else a ConfigMap with the same rules for a
//! Prometheus that is configured by files.

use crds::names;
use serde_json::{Value, json};

use super::metadata;
use crate::alerts;
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// Key of the rules in the ConfigMap.
pub const RULES_KEY: &str = "rules.yaml";
/// Key of the scrape configuration in the ConfigMap.
pub const SCRAPE_KEY: &str = "scrape.yaml";

/// The PrometheusRule.
pub fn prometheus_rule(platform: &Platform) -> Object {
    let name = names::alerts(&platform.name);
    let manifest = json!({
        "metadata": metadata(platform, &name),
        "spec": {"groups": alerts::platform::groups(platform)},
    });
    Object::new(Kind::PrometheusRule, name, manifest)
}

/// The ConfigMap: the rules, and how pods must be scraped for them to see anything.
pub fn config_map(platform: &Platform) -> Object {
    let name = names::alerts(&platform.name);
    // What these modules have made can be written down.
    let rules = alerts::file(&alerts::platform::groups(platform)).unwrap_or_default();
    let scrape = serde_saphyr::to_string(&scrape(platform)).unwrap_or_default();
    let manifest = json!({
        "metadata": metadata(platform, &name),
        "data": {RULES_KEY: rules, SCRAPE_KEY: scrape},
    });
    Object::new(Kind::ConfigMap, name, manifest)
}

fn metadata(platform: &Platform, name: &str) -> Value {
    metadata::labelled(platform, name, &platform.spec.monitoring.alerts.labels)
}

/// A `scrape_configs` list that gives series the labels that the rules look for.
pub fn scrape(platform: &Platform) -> Value {
    let label = |name: &str| {
        format!(
            "__meta_kubernetes_pod_label_{}",
            name.replace(['.', '/', '-'], "_")
        )
    };
    let keep =
        |source: &str, regex: &str| json!({"source_labels": [source], "regex": regex, "action": "keep"});
    let copy = |source: &str, target: &str| json!({"source_labels": [source], "target_label": target});
    json!({"scrape_configs": [{
        "job_name": format!("tanka/{}/{}", platform.namespace, platform.name),
        "scrape_interval": "15s",
        "kubernetes_sd_configs": [{"role": "pod", "namespaces": {"names": [platform.namespace]}}],
        "relabel_configs": [
            keep(&label(names::PLATFORM_LABEL), &platform.name),
            keep("__meta_kubernetes_pod_container_port_name", "ops|patroni"),
            copy("__meta_kubernetes_namespace", "namespace"),
            copy("__meta_kubernetes_pod_name", "pod"),
            copy(&label(names::PLATFORM_LABEL), "platform"),
            copy(&label(names::COMPONENT_LABEL), "component"),
        ],
    }]})
}
