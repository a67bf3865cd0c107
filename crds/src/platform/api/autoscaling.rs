//! When API pods are added and taken away.

use k8s_openapi::api::autoscaling::v2::MetricSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::platform::rules;

/// Horizontal autoscaling.
#[derive(JsonSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("self.minReplicas <= self.maxReplicas", "minReplicas is greater than maxReplicas: lower the first or raise the second"),
        ("!self.podMetrics.exists(m, has(m.pods) && has(m.pods.metric) && has(m.pods.metric.name) && m.pods.metric.name.matches('(_p[0-9]+$|quantile|percentile|latency|duration)'))", "podMetrics names a latency: percentiles of pods cannot be averaged, and latency does not fall in proportion to pods; scale on a count such as tanka_http_requests_in_flight"),
])))]
pub struct Autoscaling {
    /// Off: `api.replicas` counts.
    pub enabled: bool,
    /// Fewest pods.
    #[schemars(range(min = 1, max = 200))]
    pub min_replicas: i32,
    /// Most pods.
    #[schemars(range(min = 1, max = 200))]
    pub max_replicas: i32,
    /// Average CPU use that is aimed for, in percent of the request.
    #[schemars(range(min = 1, max = 100))]
    pub target_cpu_utilization: i32,
    /// Average memory use that is aimed for, in percent of the request.
    #[schemars(range(min = 1, max = 100))]
    pub target_memory_utilization: i32,
    /// How fast pods are added.
    pub scale_up: ScaleUp,
    /// How slowly pods are taken away.
    pub scale_down: ScaleDown,
    /// Further metrics, as in a HorizontalPodAutoscaler: counts that shrink with more pods, such as tanka_http_requests_in_flight.
    #[schemars(schema_with = "pod_metrics")]
    pub pod_metrics: Vec<MetricSpec>,
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self {
            enabled: true,
            min_replicas: 3,
            max_replicas: 10,
            target_cpu_utilization: 70,
            target_memory_utilization: 80,
            scale_up: ScaleUp::default(),
            scale_down: ScaleDown::default(),
            pod_metrics: Vec::new(),
        }
    }
}

/// How fast pods are added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleUp {
    /// Seconds of load that count before pods are added.
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_window_seconds: i32,
    /// Growth in one period, in percent.
    #[schemars(range(min = 1, max = 1000))]
    pub percent: i32,
    /// Length of a period in seconds.
    #[schemars(range(min = 1, max = 1800))]
    pub period_seconds: i32,
}

impl Default for ScaleUp {
    fn default() -> Self {
        Self {
            stabilization_window_seconds: 60,
            percent: 100,
            period_seconds: 60,
        }
    }
}

/// How slowly pods are taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleDown {
    /// Seconds of calm that count before pods are taken away.
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_window_seconds: i32,
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self {
            stabilization_window_seconds: 300,
        }
    }
}

/// As `free_list`, with the names of metrics declared, so that a rule can look at them.
fn pod_metrics(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let open = |name: &str, inner: serde_json::Value| serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {name: inner}});
    let explained = |mut schema: serde_json::Value, text: &str| {
        schema["description"] = text.into();
        schema
    };
    let name = explained(
        serde_json::json!({"type": "string", "maxLength": 253}),
        "Name of the metric.",
    );
    let metric = explained(open("name", name), "The metric, by name and selector.");
    let pods = explained(
        open("metric", metric),
        "A metric of each pod, averaged over them, with its target.",
    );
    schemars::json_schema!({"type": "array", "maxItems": 32, "items": open("pods", pods)})
}
