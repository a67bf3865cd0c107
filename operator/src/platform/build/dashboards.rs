//! Grafana dashboards in a ConfigMap, found by Grafana's sidecar through a label. The committed dashboards let a person choose the
//! platform; in a platform's own copies it is fixed.

use std::sync::LazyLock;

use crds::names;
use serde_json::{Map, Value, json};

use super::{metadata, pod};
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// Label that Grafana's sidecar looks for by convention.
const SIDECAR_LABEL: &str = "grafana_dashboard";

/// Committed dashboards: a short name, and the JSON that Grafana imports.
pub const COMMITTED: [(&str, &str); 4] = [
    ("api", include_str!("../../../../config/dashboards/api.json")),
    ("cache", include_str!("../../../../config/dashboards/cache.json")),
    (
        "database",
        include_str!("../../../../config/dashboards/database.json"),
    ),
    (
        "events",
        include_str!("../../../../config/dashboards/events.json"),
    ),
];

/// Read once: they are part of the binary, and a test reads them all.
static PARSED: LazyLock<Vec<(&str, Value)>> = LazyLock::new(|| {
    let parse = |(name, text): &(&'static str, &str)| Some((*name, serde_json::from_str(text).ok()?));
    COMMITTED.iter().filter_map(parse).collect()
});

/// The ConfigMap.
pub fn build(platform: &Platform) -> Object {
    let name = names::dashboards(&platform.name);
    let mut metadata = metadata::labelled(platform, &name, &platform.spec.monitoring.dashboards.labels);
    metadata["labels"][SIDECAR_LABEL] = json!("1");
    // The sidecar writes all ConfigMaps of the cluster into one folder: the keys must differ.
    let data: Map<String, Value> = PARSED
        .iter()
        .map(|(dashboard, json)| {
            let file = format!("{}-{}-{dashboard}.json", platform.namespace, platform.name);
            (file, json!(fixed(platform, dashboard, json.clone()).to_string()))
        })
        .collect();
    Object::new(Kind::ConfigMap, name, json!({"metadata": metadata, "data": data}))
}

/// A dashboard of one platform: a title and an identity of its own, and the choice of the platform made.
fn fixed(platform: &Platform, name: &str, mut dashboard: Value) -> Value {
    let Platform {
        namespace,
        name: platform_name,
        ..
    } = platform;
    dashboard["uid"] = json!(format!(
        "tanka-{}",
        pod::digest(&[namespace, platform_name, name])
    ));
    let title = dashboard["title"].as_str().unwrap_or(name).to_owned();
    dashboard["title"] = json!(format!("{title}: {namespace}/{platform_name}"));
    let variables = dashboard["templating"]["list"].as_array_mut();
    for variable in variables.into_iter().flatten() {
        let value = match variable["name"].as_str() {
            Some("namespace") => namespace,
            Some("platform") => platform_name,
            _ => continue,
        };
        *variable = json!({
            "name": variable["name"], "type": "constant", "hide": 2, "query": value,
            "current": {"text": value, "value": value},
        });
    }
    dashboard
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::fixtures::platform;

    #[test]
    fn a_platforms_dashboards_show_that_platform() {
        let object = build(&platform(json!({})));
        assert_eq!(object.manifest["metadata"]["labels"][SIDECAR_LABEL], "1");
        let data = object.manifest["data"].as_object().unwrap();
        assert_eq!(data.len(), COMMITTED.len());
        let api: Value = serde_json::from_str(data["shop-acme-api.json"].as_str().unwrap()).unwrap();
        let variable = |name: &str| {
            let list = api["templating"]["list"].as_array().unwrap();
            list.iter()
                .find(|variable| variable["name"] == name)
                .unwrap()
                .clone()
        };
        assert_eq!(variable("namespace")["query"], "shop");
        assert_eq!(variable("platform")["query"], "acme");
        assert_eq!(api["title"], "Tanka API: shop/acme");
    }

    #[test]
    fn dashboards_of_different_platforms_do_not_collide() {
        let one = platform(json!({}));
        let mut other = one.clone();
        other.namespace = "other".to_owned();
        let uid = |platform: &Platform| fixed(platform, "api", json!({}))["uid"].clone();
        assert_ne!(uid(&one), uid(&other));
        assert_ne!(uid(&one), fixed(&one, "database", json!({}))["uid"]);
    }
}
