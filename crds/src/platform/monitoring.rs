//! `spec.monitoring`: alerts, scraping and dashboards.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// Alerts, scraping and dashboards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MonitoringSpec {
    /// Alerting rules.
    pub alerts: Alerts,
    /// Scraping by prometheus-operator.
    pub pod_monitor: PodMonitors,
    /// Grafana dashboards.
    pub dashboards: Dashboards,
}

/// Alerting rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Alerts {
    /// Whether they are made.
    pub enabled: bool,
    /// Labels by which a Prometheus selects its rules.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When they fire.
    pub thresholds: Thresholds,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            enabled: true,
            labels: BTreeMap::new(),
            thresholds: Thresholds::default(),
        }
    }
}

/// When alerts fire. Ratios are decimals between 0 and 1, as text, so that no rounding creeps in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Thresholds {
    /// 99th percentile of the response time.
    pub latency_p99: Span,
    /// Share of answers that are server errors.
    #[schemars(length(max = 12), regex(pattern = r"^(0(\.[0-9]+)?|1(\.0+)?)$"))]
    pub error_ratio: String,
    /// Share of PostgreSQL's connections that are in use.
    #[schemars(length(max = 12), regex(pattern = r"^(0(\.[0-9]+)?|1(\.0+)?)$"))]
    pub connection_ratio: String,
    /// How far a replica is behind.
    pub replica_lag: Span,
    /// Share of lookups that the cache answers, below which the alert fires.
    #[schemars(length(max = 12), regex(pattern = r"^(0(\.[0-9]+)?|1(\.0+)?)$"))]
    pub cache_hit_ratio: String,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            latency_p99: Span::from_millis(500),
            error_ratio: "0.01".to_owned(),
            connection_ratio: "0.8".to_owned(),
            replica_lag: Span::from_secs(1),
            cache_hit_ratio: "0.8".to_owned(),
        }
    }
}

/// Scraping by prometheus-operator, where it is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodMonitors {
    /// Whether PodMonitors are made.
    pub enabled: bool,
    /// Labels by which a Prometheus selects its PodMonitors.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Namespaces whose pods may reach the metrics of PostgreSQL. Patroni serves them on the port that also takes its commands, so
    /// it is not open to everybody.
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub namespaces: Vec<String>,
}

impl Default for PodMonitors {
    fn default() -> Self {
        Self {
            enabled: true,
            labels: BTreeMap::new(),
            namespaces: vec!["monitoring".to_owned()],
        }
    }
}

/// Grafana dashboards, in ConfigMaps with the label `grafana_dashboard: "1"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Dashboards {
    /// Whether they are made.
    pub enabled: bool,
    /// Further labels, for a Grafana that looks for others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Default for Dashboards {
    fn default() -> Self {
        Self {
            enabled: true,
            labels: BTreeMap::new(),
        }
    }
}
