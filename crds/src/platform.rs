//! The `TankaPlatform` custom resource: its root, and the sections of its spec in files of their own.

pub mod api;
pub mod ingress;
pub mod monitoring;
pub mod postgres;
pub mod redis;
pub mod status;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, ValidationRule,
};
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::status::TankaPlatformStatus;

/// A whole application platform: replicated PostgreSQL, highly available Redis, an autoscaled API and its edge.
/// An empty spec is a working platform.
#[expect(
    clippy::duplicated_attributes,
    reason = "each printer column has a type and a path of its own"
)]
#[derive(CustomResource, JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tanka.dev",
    version = "v1alpha1",
    kind = "TankaPlatform",
    plural = "tankaplatforms",
    shortname = "tp",
    shortname = "tanka",
    category = "all",
    namespaced,
    status = "TankaPlatformStatus",
    derive = "PartialEq",
    doc = "A whole application platform: replicated PostgreSQL, highly available Redis, an autoscaled API and its edge. An empty spec is a working platform.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether a write, a replica read, a Redis round trip and an API answer work now"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "The first thing that is not as it should be"
    ),
    printcolumn(
        name = "API",
        type_ = "string",
        json_path = ".status.api.ready",
        description = "API pods ready of wanted"
    ),
    printcolumn(
        name = "Postgres",
        type_ = "string",
        json_path = ".status.postgres.ready",
        description = "PostgreSQL instances ready of wanted"
    ),
    printcolumn(
        name = "Redis",
        type_ = "string",
        json_path = ".status.redis.ready",
        description = "Redis members ready of wanted"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.version",
        description = "Release that runs"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Primary",
        type_ = "string",
        json_path = ".status.postgres.primary",
        description = "PostgreSQL primary",
        priority = "1"
    ),
    printcolumn(
        name = "URL",
        type_ = "string",
        json_path = ".status.url",
        description = "Address for clients",
        priority = "1"
    )
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("!has(self.postgres.managed) || (has(self.postgres.managed.parameters) && 'max_connections' in self.postgres.managed.parameters ? int(self.postgres.managed.parameters['max_connections']) : 200) * 4 / 5 - 13 >= 2 * ((self.api.autoscaling.enabled ? self.api.autoscaling.maxReplicas : self.api.replicas) + 1)", "so many API pods need more connections than PostgreSQL allows, each two of every instance: lower api.autoscaling.maxReplicas (or api.replicas), or raise max_connections in postgres.managed.parameters (269 for 100 pods, 519 for 200)"),
])))]
pub struct TankaPlatformSpec {
    /// Release to run, such as "0.1.0". Empty: the operator's own. Selects the images unless `images` overrides them.
    /// It never goes below the release that runs (`status.version`).
    #[schemars(
        length(max = 32),
        regex(pattern = r"^([0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}(-[0-9A-Za-z.-]+)?)?$")
    )]
    pub version: String,
    /// Freezes changes of the spec. Health, status and failover go on.
    pub paused: bool,
    /// What happens to volumes and credentials when this object is deleted.
    pub deletion_policy: DeletionPolicy,
    /// Container images, for mirrors and own builds.
    pub images: Images,
    /// The API tier.
    pub api: api::ApiSpec,
    /// The database: exactly one of `managed` and `external`.
    pub postgres: postgres::PostgresSpec,
    /// The cache and message bus: exactly one of `managed` and `external`.
    pub redis: redis::RedisSpec,
    /// How clients reach the API from outside the cluster.
    pub ingress: ingress::IngressSpec,
    /// Alerts, scraping and dashboards.
    pub monitoring: monitoring::MonitoringSpec,
    /// Isolation of the parts from everything else in the cluster.
    pub network_policy: NetworkPolicySpec,
}

/// What happens to volumes and credentials when the `TankaPlatform` is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay, and a platform of the same name finds them again.
    #[default]
    Retain,
    /// They are deleted too.
    Delete,
}

/// Container images. An empty name selects the image of the release; a digest is recommended in production.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Images {
    /// Image of the API server.
    #[schemars(length(max = 512), regex(pattern = r"^[^\s]*$"))]
    pub api_server: String,
    /// Image of PostgreSQL with Patroni and pgvector.
    #[schemars(length(max = 512), regex(pattern = r"^[^\s]*$"))]
    pub postgres: String,
    /// Image of Redis with Sentinel.
    #[schemars(length(max = 512), regex(pattern = r"^[^\s]*$"))]
    pub redis: String,
    /// When the kubelet pulls.
    pub pull_policy: PullPolicy,
    /// Names of Secrets with registry credentials, in the same namespace.
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    pub pull_secrets: Vec<String>,
}

/// When the kubelet pulls an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// Always ask the registry.
    Always,
    /// Only what the node lacks.
    #[default]
    IfNotPresent,
    /// Only what the node has.
    Never,
}

impl PullPolicy {
    /// The name that Kubernetes uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Isolation of the parts from everything else in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// Whether NetworkPolicies are made.
    pub enabled: bool,
}

impl Default for NetworkPolicySpec {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Names one key of a Secret in the same namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key inside it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// CPU, memory and ephemeral storage of a container.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("!('memory' in self.requests) || !('memory' in self.limits) || quantity(self.limits['memory']).compareTo(quantity(self.requests['memory'])) >= 0", "limits.memory is less than requests.memory: raise the limit or lower the request"),
        ("!('cpu' in self.requests) || !('cpu' in self.limits) || quantity(self.limits['cpu']).compareTo(quantity(self.requests['cpu'])) >= 0", "limits.cpu is less than requests.cpu: raise the limit or lower the request"),
])))]
pub struct Resources {
    /// What the scheduler reserves.
    #[schemars(schema_with = "quantities")]
    pub requests: Quantities,
    /// What the kernel enforces.
    #[schemars(schema_with = "quantities")]
    pub limits: Quantities,
}

/// Amounts by resource name, as Kubernetes writes them (`250m`, `512Mi`).
pub type Quantities = std::collections::BTreeMap<String, String>;

/// A map of at most eight quantities. They are plain strings, so that rules can compare them.
fn quantities(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": {"type": "string", "maxLength": 24, "pattern": "^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"},
    })
}

impl Resources {
    /// Builds from pairs, for defaults.
    pub fn of(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Self {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        Self {
            requests: map(requests),
            limits: map(limits),
        }
    }
}

/// The CustomResourceDefinition as it is installed: the derived one with the rule about its own name.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = TankaPlatform::crd();
    for version in &mut crd.spec.versions {
        if let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        {
            root.x_kubernetes_validations = Some(root_rules().into());
        }
    }
    crd
}

/// Rules that need more than the spec: about the object's name, and about the release that runs.
fn root_rules() -> [ValidationRule; 2] {
    let rule = |rule: String, message: &str| ValidationRule {
        rule,
        message: Some(message.to_owned()),
        ..ValidationRule::default()
    };
    // A release as one number, whatever stands behind the hyphen: the three parts have four digits each at most.
    let number = |version: &str| {
        let part = |index| format!("int({version}.split('-')[0].split('.')[{index}])");
        format!("({} * 100000000 + {} * 10000 + {})", part(0), part(1), part(2))
    };
    let downgrade = format!(
        "self.spec.version == '' || self.spec.version == oldSelf.spec.version || !has(oldSelf.status) || !has(oldSelf.status.version) || {} >= {}",
        number("self.spec.version"),
        number("oldSelf.status.version")
    );
    [
        rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 40"
                .to_owned(),
            "metadata.name prefixes the names of services: use at most 40 lower-case letters, digits and hyphens, starting with a letter",
        ),
        rule(
            downgrade,
            "spec.version is older than the release that runs (status.version), whose schema it may not know: keep the version or raise it",
        ),
    ]
}

/// Validation rules in the form that goes into a schema: pairs of a CEL expression and a sentence for people.
fn rules(pairs: &[(&str, &str)]) -> serde_json::Value {
    pairs
        .iter()
        .map(|(rule, message)| serde_json::json!({"rule": rule, "message": message}))
        .collect()
}
