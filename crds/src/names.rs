//! Names, labels and ports that the parts share. A name that a person or another program relies on stands only here.

/// Field manager of objects.
pub const FIELD_MANAGER: &str = "tanka-operator";
/// Field manager of status.
pub const STATUS_FIELD_MANAGER: &str = "tanka-operator-status";
/// Value of `app.kubernetes.io/managed-by`.
pub const MANAGED_BY: &str = "tanka-operator";
/// Value of `app.kubernetes.io/part-of`.
pub const PART_OF: &str = "tanka";

/// Label of every object of a platform: the platform's name.
pub const PLATFORM_LABEL: &str = "tanka.dev/platform";
/// Kubernetes' own labels.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
/// The platform's name again, for tools that know only the standard labels.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// Which part of the platform.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// The product.
pub const PART_OF_LABEL: &str = "app.kubernetes.io/part-of";
/// Who keeps the object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Release.
pub const VERSION_LABEL: &str = "app.kubernetes.io/version";
/// Label that Patroni keeps on its pods and objects: the cluster's name.
pub const PATRONI_SCOPE_LABEL: &str = "tanka.dev/postgres-cluster";
/// Label that Patroni keeps on its pods: `primary`, `replica`.
pub const PATRONI_ROLE_LABEL: &str = "tanka.dev/postgres-role";
/// Annotation on pod templates: digest of what cannot be reloaded.
pub const CHECKSUM_ANNOTATION: &str = "tanka.dev/checksum";

/// HTTP and WebSocket port of the API.
pub const API_PORT: u16 = 8000;
/// Metrics, health and debugging of the API; ingress never routes it.
pub const API_OPS_PORT: u16 = 9000;
/// Metrics and health of the operator.
pub const OPERATOR_PORT: u16 = 8080;
/// PostgreSQL.
pub const POSTGRES_PORT: u16 = 5432;
/// Patroni's REST API.
pub const PATRONI_PORT: u16 = 8008;
/// Redis.
pub const REDIS_PORT: u16 = 6379;
/// Sentinel.
pub const SENTINEL_PORT: u16 = 26379;
/// Name under which Sentinels know the primary.
pub const REDIS_MASTER_NAME: &str = "tanka";
/// Database that the API uses.
pub const DATABASE: &str = "tanka";

/// A part of a platform, the value of `app.kubernetes.io/component`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// PostgreSQL under Patroni.
    Postgres,
    /// Redis under Sentinel.
    Redis,
    /// The API server.
    Api,
    /// Schema migration.
    Migration,
    /// Alerts and dashboards.
    Monitoring,
}

impl Component {
    /// The label's value, also the suffix of object names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Api => "api",
            Self::Migration => "migrate",
            Self::Monitoring => "monitoring",
        }
    }
}

/// `acme-postgres` and the like.
pub fn component(platform: &str, component: Component) -> String {
    format!("{platform}-{}", component.as_str())
}

/// Service of the primary.
pub fn postgres_read_write(platform: &str) -> String {
    format!("{platform}-postgres-rw")
}

/// Service of the replicas.
pub fn postgres_read_only(platform: &str) -> String {
    format!("{platform}-postgres-ro")
}

/// ConfigMap with `tanka.yaml`.
pub fn api_config(platform: &str) -> String {
    format!("{platform}-api-config")
}

/// ConfigMap with Patroni's configuration.
pub fn postgres_config(platform: &str) -> String {
    format!("{platform}-postgres-patroni")
}

/// Rules of a platform: name of their PrometheusRule, or of their ConfigMap.
pub fn alerts(platform: &str) -> String {
    format!("{platform}-alerts")
}

/// ConfigMap with Grafana dashboards.
pub fn dashboards(platform: &str) -> String {
    format!("{platform}-dashboards")
}

/// Stable DNS name of member `ordinal` of a StatefulSet behind a headless service of the same name.
pub fn member_host(set: &str, ordinal: i32, namespace: &str) -> String {
    format!("{set}-{ordinal}.{set}.{namespace}.svc")
}
