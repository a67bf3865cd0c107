//! `spec.api`: the API tier and the settings of the process in it.

pub mod autoscaling;
pub mod websocket;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::autoscaling::{Autoscaling, ScaleDown, ScaleUp};
pub use self::websocket::WebSocket;
use super::{Resources, SecretKeyRef, rules};
use crate::config::LogLevel as ConfigLogLevel;
use crate::units::{Size, Span};

/// The API tier.
#[derive(JsonSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("!('memory' in self.resources.limits) || quantity(self.resources.limits['memory']).compareTo(quantity(self.cache.l1Capacity)) > 0", "api.cache.l1Capacity does not fit into api.resources.limits.memory: lower the first or raise the second"),
])))]
pub struct ApiSpec {
    /// Number of pods. Counts only without autoscaling.
    #[schemars(range(min = 1, max = 200))]
    pub replicas: i32,
    /// Horizontal autoscaling.
    pub autoscaling: Autoscaling,
    /// CPU, memory and ephemeral storage of each pod.
    pub resources: Resources,
    /// The two-tier cache.
    pub cache: Cache,
    /// Use of PostgreSQL.
    pub database: DatabaseUse,
    /// Requests per person.
    pub rate_limit: RateLimit,
    /// Real-time connections.
    pub websocket: WebSocket,
    /// Lifetimes of tokens.
    pub auth: Auth,
    /// Endpoint that computes embeddings, OpenAI-compatible. Without one, search is lexical.
    pub embeddings: Embeddings,
    /// An S3-compatible store for files that are uploaded from now on. Without one they are in PostgreSQL. Keep it here as long as files
    /// are in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_store: Option<ObjectStore>,
    /// Requests that the pods send to addresses that people gave: webhooks and syncs.
    pub outbound: Outbound,
    /// Where traces go.
    pub traces: Traces,
    /// What a pod does when it is asked to stop.
    pub drain: Drain,
    /// Least severe level that is logged. Changes without a restart.
    pub log_level: LogLevel,
    /// Additions to the pods.
    pub pod_template: PodTemplate,
}

impl Default for ApiSpec {
    fn default() -> Self {
        Self {
            replicas: 3,
            autoscaling: Autoscaling::default(),
            resources: Resources::of(
                &[("cpu", "250m"), ("memory", "256Mi")],
                &[("cpu", "2"), ("memory", "512Mi"), ("ephemeral-storage", "1Gi")],
            ),
            cache: Cache::default(),
            database: DatabaseUse::default(),
            rate_limit: RateLimit::default(),
            websocket: WebSocket::default(),
            auth: Auth::default(),
            embeddings: Embeddings::default(),
            object_store: None,
            outbound: Outbound::default(),
            traces: Traces::default(),
            drain: Drain::default(),
            log_level: LogLevel::default(),
            pod_template: PodTemplate::default(),
        }
    }
}

/// The two-tier cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Cache {
    /// Off: every read goes to PostgreSQL.
    pub enabled: bool,
    /// Memory of the in-process tier of each pod.
    pub l1_capacity: Size,
    /// Time to live by kind of entry.
    pub ttl: CacheTtl,
    /// Loading before the first request.
    pub warm_up: WarmUp,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            enabled: true,
            l1_capacity: Size::from_mib(64),
            ttl: CacheTtl::default(),
            warm_up: WarmUp::default(),
        }
    }
}

/// Time to live by kind of entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CacheTtl {
    /// Validated access tokens.
    pub tokens: Span,
    /// Profiles.
    pub user_profile: Span,
    /// Permissions.
    pub permissions: Span,
    /// Lists of memories.
    pub memories: Span,
    /// The plan catalogue.
    pub plans: Span,
    /// Recommendations.
    pub recommendations: Span,
    /// Analyses of usage.
    pub usage_analysis: Span,
    /// Anything else.
    #[serde(rename = "default")]
    pub other: Span,
}

impl Default for CacheTtl {
    fn default() -> Self {
        Self {
            tokens: Span::from_secs(300),
            user_profile: Span::from_secs(900),
            permissions: Span::from_secs(900),
            memories: Span::from_secs(60),
            plans: Span::from_secs(3_600),
            recommendations: Span::from_secs(86_400),
            usage_analysis: Span::from_secs(604_800),
            other: Span::from_secs(300),
        }
    }
}

/// Loading of the cache before the first request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WarmUp {
    /// Whether a starting pod loads what is asked most.
    pub on_start: bool,
    /// Cron expressions (five fields, UTC) at which one pod reloads.
    #[schemars(length(max = 8), inner(length(min = 9, max = 64)))]
    pub schedules: Vec<String>,
}

impl Default for WarmUp {
    fn default() -> Self {
        Self {
            on_start: true,
            schedules: Vec::new(),
        }
    }
}

/// Use of PostgreSQL.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("duration(self.acquireTimeout) >= duration('10ms') && duration(self.acquireTimeout) <= duration('15s')", "api.database.acquireTimeout must be from 10ms to 15s: a request does not live longer"),
        ("duration(self.maxReplicaLag) >= duration('100ms') && duration(self.maxReplicaLag) <= duration('1h')", "api.database.maxReplicaLag must be from 100ms to 1h"),
        ("duration(self.readYourWritesTimeout) <= duration('5s')", "api.database.readYourWritesTimeout must be at most 5s: after it the primary is asked"),
])))]
pub struct DatabaseUse {
    /// Most connections of one pod, primary and replicas together: one to watch each instance, the rest for requests, in equal parts.
    /// The operator lowers it where all pods together would take more than 80 % of what an instance allows, and raises it to two for
    /// each instance.
    #[schemars(range(min = 2, max = 100))]
    pub pool_size: i32,
    /// How long a request waits for a connection.
    #[schemars(schema_with = "period")]
    pub acquire_timeout: Span,
    /// A replica further behind than this serves nothing.
    #[schemars(schema_with = "period")]
    pub max_replica_lag: Span,
    /// How long a read waits for a replica to catch up with the reader's own writes before it asks the primary.
    #[schemars(schema_with = "period")]
    pub read_your_writes_timeout: Span,
    /// Statements that take longer are logged.
    #[schemars(schema_with = "period")]
    pub slow_query_threshold: Span,
}

impl Default for DatabaseUse {
    fn default() -> Self {
        Self {
            pool_size: 9,
            acquire_timeout: Span::from_secs(2),
            max_replica_lag: Span::from_secs(1),
            read_your_writes_timeout: Span::from_millis(20),
            slow_query_threshold: Span::from_millis(100),
        }
    }
}

/// Requests per person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimit {
    /// Sustained requests per minute.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_minute: i32,
    /// Requests that may come at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: i32,
    /// Login attempts per minute, by account and by address.
    #[schemars(range(min = 1, max = 10_000))]
    pub login_per_minute: i32,
    /// Accounts that one address may ask for in a minute.
    #[schemars(range(min = 1, max = 10_000))]
    pub signup_per_minute: i32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            requests_per_minute: 600,
            burst: 100,
            login_per_minute: 10,
            signup_per_minute: 60,
        }
    }
}

/// Lifetimes of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("duration(self.accessTokenTtl) >= duration('1m') && duration(self.accessTokenTtl) <= duration('24h')", "api.auth.accessTokenTtl must be from 1m to 24h: it is what a stolen token is good for"),
        ("self.refreshTokenTtl.contains('d') || duration(self.refreshTokenTtl) > duration(self.accessTokenTtl)", "api.auth.refreshTokenTtl must exceed accessTokenTtl, or nobody could renew a session: raise it, such as to 30d"),
])))]
pub struct Auth {
    /// How long an access token is good for.
    #[schemars(schema_with = "period")]
    pub access_token_ttl: Span,
    /// How long a refresh token is good for, from its last use.
    pub refresh_token_ttl: Span,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            access_token_ttl: Span::from_secs(900),
            refresh_token_ttl: Span::from_secs(2_592_000),
        }
    }
}

/// Endpoint that computes embeddings. All of `url`, `model` and `dimensions`, or none.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("has(self.url) == has(self.model) && has(self.url) == has(self.dimensions)", "set url, model and dimensions together, or none of them"),
        ("!has(self.apiKeySecretRef) || has(self.url)", "embeddings.apiKeySecretRef has no endpoint to be used for: set url, model and dimensions"),
])))]
pub struct Embeddings {
    /// Base URL of an OpenAI-compatible API.
    #[schemars(length(max = 512), regex(pattern = r"^https?://"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Model name.
    #[schemars(length(min = 1, max = 128))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Length of its vectors.
    #[schemars(range(min = 1, max = 4000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<i32>,
    /// API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
}

/// A bucket of an S3-compatible store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStore {
    /// Base address, such as https://s3.eu-central-1.amazonaws.com.
    #[schemars(length(max = 512), regex(pattern = r"^https?://"))]
    pub endpoint: String,
    /// The bucket. It exists already.
    #[schemars(length(min = 3, max = 63))]
    pub bucket: String,
    /// Its region.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default = "store_region")]
    pub region: String,
    /// What the names of all objects begin with, such as acme/. Platforms that share a bucket need one each.
    #[schemars(length(max = 256))]
    #[serde(default)]
    pub prefix: String,
    /// Whether addresses name the bucket in their path, as most stores other than Amazon's want it, or before the host.
    #[serde(default = "store_path_style")]
    pub path_style: bool,
    /// Secret key that holds the access key.
    pub access_key_secret_ref: SecretKeyRef,
    /// Secret key that holds the secret key.
    pub secret_key_secret_ref: SecretKeyRef,
}

fn store_region() -> String {
    crate::config::DEFAULT_REGION.to_owned()
}

const fn store_path_style() -> bool {
    true
}

/// Requests to addresses that people gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("self.allowedNetworks.all(network, isCIDR(network))", "api.outbound.allowedNetworks must be networks such as 10.20.0.0/16"),
])))]
pub struct Outbound {
    /// Networks that webhooks and syncs may reach although they are not public, such as 10.20.0.0/16. Everything else that is not
    /// public is refused, whatever name leads there.
    #[schemars(length(max = 64), inner(length(min = 3, max = 43)))]
    pub allowed_networks: Vec<String>,
}

/// Where traces go, over OTLP. Changes without a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Traces {
    /// Address of a collector that takes OTLP over http/protobuf, such as http://collector.observability:4318. Without one nothing is
    /// traced.
    #[schemars(length(max = 512), regex(pattern = r"^http://"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How many of a hundred requests are traced, unless the caller has decided it.
    #[schemars(range(min = 0, max = 100))]
    pub sample_percent: i32,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample_percent: 100,
        }
    }
}

/// What a pod does when it is asked to stop.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("duration(self.timeout) >= duration('1s') && duration(self.timeout) <= duration('1h')", "api.drain.timeout must be from 1s to 1h: a rollout waits that long for each pod"),
])))]
pub struct Drain {
    /// Time for requests in flight and open sockets to end. Kubernetes is given a little more.
    #[schemars(schema_with = "period")]
    pub timeout: Span,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            timeout: Span::from_secs(30),
        }
    }
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures that need a person.
    Error,
    /// Failures that were handled.
    Warn,
    /// Normal operation.
    #[default]
    Info,
    /// Decisions in detail.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for ConfigLogLevel {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

/// Additions to the API pods. Labels and annotations of the operator win where names collide.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Further labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "texts")]
    pub labels: BTreeMap<String, String>,
    /// Further annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "texts")]
    pub annotations: BTreeMap<String, String>,
    /// Node labels that a node must carry.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "texts")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "free_list")]
    pub tolerations: Vec<Toleration>,
    /// Affinity, as in a pod. Replaces the operator's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_object")]
    pub affinity: Option<Affinity>,
    /// Spread over nodes and zones, as in a pod. Replaces the operator's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "free_list")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Name of a PriorityClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// A span of time that rules can compare: no days.
fn period(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "maxLength": 24, "pattern": "^([0-9]{1,7}(ms|s|m|h))+$"})
}

/// Names and texts, as labels and annotations are.
fn texts(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 4096},
    })
}

/// A pod field that Kubernetes itself validates; its own schema here would take up half of the CRD.
fn free_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn free_list(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 32,
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    })
}
