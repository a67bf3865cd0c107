//! `status`: what was observed. Nothing in it is needed to recover; delete it and the operator writes it again.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator observed last.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TankaPlatformStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Release that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub version: Option<String>,
    /// Address for clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The API tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiStatus>,
    /// The database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresStatus>,
    /// The cache and message bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisStatus>,
    /// Ready, Reconciling, Stalled, and one condition per component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The API tier.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiStatus {
    /// Pods wanted.
    pub replicas: i32,
    /// Pods that serve.
    pub ready_replicas: i32,
    /// The two for people: `3/3`.
    pub ready: String,
}

/// The database.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresStatus {
    /// Name of the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Instances wanted.
    pub instances: i32,
    /// Instances that run or stream.
    pub ready_instances: i32,
    /// The two for people: `3/3`.
    pub ready: String,
    /// Timeline; each failover adds one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
    /// How far the slowest replica is behind, in bytes of WAL, rounded up to 16 MiB so that it does not flicker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replica_lag_bytes: Option<i64>,
    /// The last change of primary that was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<LastFailover>,
}

/// A change of primary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastFailover {
    /// Primary before.
    pub from: String,
    /// Primary after.
    pub to: String,
    /// Why, as far as it could be observed.
    pub reason: String,
    /// When the operator saw that the old primary was gone.
    pub detected_at: Time,
    /// When the operator saw that the new primary takes writes.
    pub writable_at: Time,
    /// Time between the two, in milliseconds.
    pub downtime_millis: i64,
}

/// The cache and message bus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisStatus {
    /// Name of the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Members ready of wanted, for people: `3/3`.
    pub ready: String,
}
