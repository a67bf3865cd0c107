//! `spec.redis`: a managed Redis under Sentinel, or one that exists already.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::postgres::Storage;
use super::{Resources, SecretKeyRef, rules};
use crate::units::Size;

/// The cache and message bus: exactly one of `managed` and `external`.
#[derive(JsonSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("has(self.managed) != has(self.external)", "set exactly one of redis.managed and redis.external"),
])))]
pub struct RedisSpec {
    /// Run by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedRedis>,
    /// Run by somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalRedis>,
}

impl Default for RedisSpec {
    fn default() -> Self {
        Self {
            managed: Some(ManagedRedis::default()),
            external: None,
        }
    }
}

/// A Redis that the operator runs: one primary, its replicas, a Sentinel beside each.
#[derive(JsonSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("self.replicas in [1, 3, 5]", "redis.managed.replicas must be 1, 3 or 5, so that a majority of Sentinels exists"),
        ("!('memory' in self.resources.limits) || quantity(self.resources.limits['memory']).compareTo(quantity(self.maxMemory)) > 0", "redis.managed.resources.limits.memory must exceed maxMemory, since Redis needs room beside its data: raise the limit, or leave it out to have it derived"),
        ("quantity(self.maxMemory).compareTo(quantity('16Mi')) >= 0", "redis.managed.maxMemory is too small to work with: write 16Mi or more"),
        ("has(self.storage) == has(oldSelf.storage)", "redis.managed.storage cannot be added to a live platform or taken from it: decide when the platform is made"),
])))]
pub struct ManagedRedis {
    /// Members, primary and replicas together: 1, 3 or 5.
    pub replicas: i32,
    /// Memory for data; the container gets half as much again.
    pub max_memory: Size,
    /// Volume of each member. Absent: memory only, which is enough, since Redis is never the source of truth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// CPU and memory of each member; memory limits are derived from `maxMemory` where they are absent.
    pub resources: Resources,
}

impl Default for ManagedRedis {
    fn default() -> Self {
        Self {
            replicas: 3,
            max_memory: Size::from_mib(256),
            storage: None,
            resources: Resources::of(&[("cpu", "50m"), ("memory", "64Mi")], &[("cpu", "1")]),
        }
    }
}

/// A Redis that somebody else runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalRedis {
    /// Secret key that holds a `redis://` or `rediss://` URL: of a primary, or of any server of a Redis Cluster.
    pub secret_ref: SecretKeyRef,
    /// Secret key that holds the certificate of the authority that signs its own, in PEM. It needs a `rediss://` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
}
