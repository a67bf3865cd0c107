//! `spec.postgres`: a managed PostgreSQL under Patroni, or one that exists already.

pub mod parameters;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Resources, SecretKeyRef, rules};
use crate::units::Span;

/// The database: exactly one of `managed` and `external`.
#[derive(JsonSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("has(self.managed) != has(self.external)", "set exactly one of postgres.managed and postgres.external"),
        ("has(self.managed) == has(oldSelf.managed)", "managed and external cannot be exchanged on a live platform, the data would stay behind: make a new platform and move the data"),
])))]
pub struct PostgresSpec {
    /// Run by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedPostgres>,
    /// Run by somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalPostgres>,
}

impl Default for PostgresSpec {
    fn default() -> Self {
        Self {
            managed: Some(ManagedPostgres::default()),
            external: None,
        }
    }
}

/// A PostgreSQL that the operator runs, one primary and its replicas.
#[derive(JsonSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = managed_rules()))]
pub struct ManagedPostgres {
    /// Primary and replicas together: 1, 3 or 5.
    pub instances: i32,
    /// Volume of each instance.
    pub storage: Storage,
    /// CPU and memory of each instance.
    pub resources: Resources,
    /// Settings of postgresql.conf. Those that Patroni or the operator own are refused. What PostgreSQL takes over while it runs
    /// restarts nothing; what it reads only at its start rolls through the instances, the primary last.
    #[schemars(schema_with = "parameters")]
    pub parameters: BTreeMap<String, String>,
    /// When a write counts as done.
    pub synchronous: Synchronous,
    /// How quickly a lost primary is noticed and replaced.
    pub failover: Failover,
}

impl Default for ManagedPostgres {
    fn default() -> Self {
        Self {
            instances: 3,
            storage: Storage::default(),
            resources: Resources::of(
                &[("cpu", "100m"), ("memory", "256Mi")],
                &[("cpu", "2"), ("memory", "1Gi")],
            ),
            parameters: BTreeMap::new(),
            synchronous: Synchronous::default(),
            failover: Failover::default(),
        }
    }
}

fn managed_rules() -> serde_json::Value {
    let own = [
        (
            "self.instances in [1, 3, 5]".to_owned(),
            "postgres.managed.instances must be 1, 3 or 5, so that a majority exists",
        ),
        (
            "self.synchronous != 'QuorumStrict' || self.instances > 1".to_owned(),
            "QuorumStrict with one instance would never acknowledge a write: use 3 or 5 instances, or Quorum",
        ),
    ];
    let all: Vec<_> = own.into_iter().chain(parameters::rules()).collect();
    let pairs: Vec<_> = all
        .iter()
        .map(|(rule, sentence)| (rule.as_str(), *sentence))
        .collect();
    rules(&pairs)
}

fn parameters(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 256},
    })
}

/// Volume of an instance.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0", "a volume cannot shrink: keep size or raise it"),
        ("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)", "storageClassName cannot change, the data would stay behind: make a new platform and move the data"),
])))]
pub struct Storage {
    /// Capacity, as Kubernetes writes it (`10Gi`). It can grow, never shrink.
    #[schemars(length(max = 16), regex(pattern = r"^[1-9][0-9]*(Mi|Gi|Ti)$"))]
    pub size: String,
    /// StorageClass; absent: the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: "10Gi".to_owned(),
            storage_class_name: None,
        }
    }
}

/// When a write counts as done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Synchronous {
    /// When one replica has it; with no replica left the primary goes on alone.
    #[default]
    Quorum,
    /// When one replica has it; with no replica left writes wait.
    QuorumStrict,
    /// When the primary has it. A failover may lose the last moments.
    Async,
}

/// How quickly a lost primary is noticed and replaced. Patroni's four times.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("duration(self.ttl) >= duration('20s') && duration(self.loopWait) >= duration('1s') && duration(self.retryTimeout) >= duration('3s')",
            "Patroni takes a ttl of at least 20s, a loopWait of at least 1s and a retryTimeout of at least 3s: raise the one that is lower"),
        ("duration(self.loopWait) + duration(self.retryTimeout) + duration(self.retryTimeout) <= duration(self.ttl)", "loopWait + 2 * retryTimeout must not exceed ttl, or a primary could lose its lock while it still tries: raise ttl or lower the others"),
])))]
pub struct Failover {
    /// How long the primary's lock lasts without renewal; the bound on noticing a lost node.
    #[schemars(schema_with = "seconds")]
    pub ttl: Span,
    /// Pause between two looks of an instance at the cluster.
    #[schemars(schema_with = "seconds")]
    pub loop_wait: Span,
    /// How long an instance retries the Kubernetes API or PostgreSQL before it gives up its role.
    #[schemars(schema_with = "seconds")]
    pub retry_timeout: Span,
    /// How long a crashed primary may try to come back before a replica takes over.
    #[schemars(schema_with = "seconds")]
    pub primary_start_timeout: Span,
}

/// Whole seconds or minutes: what Patroni can express and a rule can add up.
fn seconds(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "maxLength": 16, "pattern": "^([0-9]{1,6}m)?([0-9]{1,6}s)?$", "minLength": 2})
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            ttl: Span::from_secs(20),
            loop_wait: Span::from_secs(2),
            retry_timeout: Span::from_secs(3),
            primary_start_timeout: Span::from_secs(0),
        }
    }
}

/// A PostgreSQL that somebody else runs. Each Secret key holds a `postgres://` URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalPostgres {
    /// URL of the primary.
    pub primary_secret_ref: SecretKeyRef,
    /// URLs of replicas, if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 15))]
    pub replica_secret_refs: Vec<SecretKeyRef>,
    /// Secret key that holds the certificate of the authority that signs those of all instances, in PEM. With it connections are encrypted
    /// and names are checked. Without it write sslmode=verify-full into the URLs where a public authority signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
}
