//! The schema of `tanka.yaml`: what the operator writes into a ConfigMap and the API server reads, hot.
//! Every key has a default except the addresses of PostgreSQL and Redis. Secrets are named by file, never inline.

use garde::Validate;
use serde::{Deserialize, Serialize};

/// Declares a section with defaults for all its keys.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr, [$($rule:tt)*];)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])* #[garde($($rule)*)] pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

mod data;
mod services;
mod serving;
mod traces;

pub use self::data::{
    Cache, CacheTtl, DEFAULT_REGION, Embeddings, Jobs, ObjectStore, Outbound, Resources, WarmUp,
};
pub use self::services::{Database, Instance, Redis};
pub use self::serving::{Auth, Drain, Http, RateLimit, WebSocket};
pub use self::traces::Traces;

/// The whole file. Unknown keys are errors, so that a typing mistake cannot pass for a setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Least severe level that is logged; the only key whose change is visible at once in the log.
    #[serde(default)]
    #[garde(skip)]
    pub log_level: LogLevel,
    /// Where PostgreSQL is and how it is used.
    #[garde(dive)]
    pub database: Database,
    /// Where Redis is.
    #[garde(dive)]
    pub redis: Redis,
    /// Limits of the HTTP listener.
    #[serde(default)]
    #[garde(dive)]
    pub http: Http,
    /// Lifetimes of tokens.
    #[serde(default)]
    #[garde(dive)]
    pub auth: Auth,
    /// The two-tier cache.
    #[serde(default)]
    #[garde(dive)]
    pub cache: Cache,
    /// Endpoint that turns texts into vectors.
    #[serde(default)]
    #[garde(dive)]
    pub embeddings: Embeddings,
    /// Background work.
    #[serde(default)]
    #[garde(dive)]
    pub jobs: Jobs,
    /// Requests that the server sends to addresses that people gave.
    #[serde(default)]
    #[garde(dive)]
    pub outbound: Outbound,
    /// Files of people.
    #[serde(default)]
    #[garde(dive)]
    pub resources: Resources,
    /// Requests per person.
    #[serde(default)]
    #[garde(dive)]
    pub rate_limit: RateLimit,
    /// Real-time connections.
    #[serde(default)]
    #[garde(dive)]
    pub websocket: WebSocket,
    /// What happens after SIGTERM.
    #[serde(default)]
    #[garde(dive)]
    pub drain: Drain,
    /// Where traces go.
    #[serde(default)]
    #[garde(dive)]
    pub traces: Traces,
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl LogLevel {
    /// The level's name as tracing filters write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Reads and validates a file's text.
///
/// # Errors
/// Names line, column and what is expected there, over several lines, for people.
pub fn parse(text: &str) -> Result<Config, String> {
    serde_saphyr::from_str_valid(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LEAST: &str = "
database: {instances: [{name: pg-0, host: pg-0.pg}]}
redis: {sentinels: ['redis-0.redis:26379']}
";

    #[test]
    fn addresses_alone_make_a_configuration() {
        let config = parse(LEAST).unwrap();
        assert_eq!(config.database.pool_size, 8);
        assert_eq!(config.websocket.send_buffer.bytes(), 128 * 1024);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let config = parse(LEAST).unwrap();
        assert_eq!(parse(&serde_saphyr::to_string(&config).unwrap()).unwrap(), config);
    }

    #[rstest]
    #[case("logLevel: loud", "logLevel")]
    #[case("cache: {l1Capacity: 64MB}", "64MB")]
    #[case("cache: {l1Capactiy: 64Mi}", "l1Capactiy")]
    #[case("rateLimit: {burst: 0}", "burst")]
    #[case("embeddings: {url: 'ftp://somewhere', model: m}", "must begin with https://")]
    #[case("embeddings: {url: 'https://somewhere/v1'}", "name the model")]
    #[case("http: {trustedProxies: [10.0.0.1/33]}", "trustedProxies")]
    #[case("traces: {endpoint: 'collector:4317'}", "must begin with http://")]
    #[case(
        "resources: {objectStore: {endpoint: 's3.example.com', bucket: files, accessKeyFile: /a, secretKeyFile: /b}}",
        "must begin with https://"
    )]
    #[case(
        "resources: {objectStore: {endpoint: 'https://s3.example.com', bucket: files}}",
        "accessKeyFile"
    )]
    #[case("traces: {samplePercent: 101}", "samplePercent")]
    fn a_mistake_is_named(#[case] line: &str, #[case] named: &str) {
        let error = parse(&format!("{LEAST}{line}\n")).unwrap_err();
        assert!(error.contains(named), "{error}");
    }

    #[test]
    fn an_instance_has_exactly_one_address() {
        let text = LEAST.replace("host: pg-0.pg", "host: pg-0.pg, urlFile: /secret/url");
        assert!(parse(&text).unwrap_err().contains("either host or urlFile"));
    }
}
