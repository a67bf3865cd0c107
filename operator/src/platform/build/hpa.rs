//! HorizontalPodAutoscaler of the API.

use crds::names::{self, Component};
use serde_json::{Value, json};

use super::metadata;
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// The autoscaler.
pub fn build(platform: &Platform) -> Object {
    let name = names::component(&platform.name, Component::Api);
    let scaling = &platform.spec.api.autoscaling;
    let utilization = |resource: &str, percent: i32| json!({"type": "Resource", "resource": {"name": resource, "target": {"type": "Utilization", "averageUtilization": percent}}});
    let mut metrics = vec![
        utilization("cpu", scaling.target_cpu_utilization),
        utilization("memory", scaling.target_memory_utilization),
    ];
    metrics.extend(
        scaling
            .pod_metrics
            .iter()
            .filter_map(|metric| serde_json::to_value(metric).ok()),
    );
    let manifest = json!({
        "metadata": metadata::owned(platform, Component::Api, &name),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": metrics,
            "behavior": behavior(platform),
        },
    });
    Object::new(Kind::HorizontalPodAutoscaler, name, manifest)
}

fn behavior(platform: &Platform) -> Value {
    let scaling = &platform.spec.api.autoscaling;
    json!({
        "scaleUp": {
            "stabilizationWindowSeconds": scaling.scale_up.stabilization_window_seconds,
            "policies": [{"type": "Percent", "value": scaling.scale_up.percent, "periodSeconds": scaling.scale_up.period_seconds}],
        },
        "scaleDown": {"stabilizationWindowSeconds": scaling.scale_down.stabilization_window_seconds},
    })
}
