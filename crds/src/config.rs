//! The schema of `tanka.yaml`: what the operator writes into a ConfigMap and the API server reads, hot.
//! Every key has a default except the addresses of PostgreSQL and Redis. Secrets are named by file, never inline.

use std::path::PathBuf;

use garde::Validate;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::units::{Size, Span};

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

/// PostgreSQL: every instance, primary and replicas alike. Which one is the primary is found by asking them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Database {
    /// All instances; order does not matter.
    #[garde(length(min = 1, max = 16), dive)]
    pub instances: Vec<Instance>,
    /// Database name, for instances that are given by host.
    #[serde(default = "default_database")]
    #[garde(length(min = 1, max = 63))]
    pub name: String,
    /// Login role, for instances that are given by host.
    #[serde(default = "default_user")]
    #[garde(length(min = 1, max = 63))]
    pub user: String,
    /// File that holds the role's password, for instances that are given by host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub password_file: Option<PathBuf>,
    /// Connections of this process, primary and replicas together.
    #[serde(default = "default_pool_size")]
    #[garde(range(min = 2, max = 100))]
    pub pool_size: u32,
    /// How long a request waits for a connection before it is refused with 503.
    #[serde(default = "default_acquire_timeout")]
    #[garde(skip)]
    pub acquire_timeout: Span,
    /// A replica that is further behind than this serves nothing.
    #[serde(default = "default_max_replica_lag")]
    #[garde(skip)]
    pub max_replica_lag: Span,
    /// How long a read with a consistency token waits for a replica before it goes to the primary.
    #[serde(default = "default_read_your_writes_timeout")]
    #[garde(skip)]
    pub read_your_writes_timeout: Span,
    /// Statements that take longer are logged.
    #[serde(default = "default_slow_query_threshold")]
    #[garde(skip)]
    pub slow_query_threshold: Span,
}

/// One PostgreSQL instance: either by `host`, or by a file that holds its connection URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Instance {
    /// Shown in `X-Served-By`, logs and metrics, so it must be unique and from a bounded set.
    #[garde(length(min = 1, max = 63))]
    pub name: String,
    /// DNS name or address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(custom(one_address(self.url_file.as_ref())))]
    pub host: Option<String>,
    /// TCP port.
    #[serde(default = "default_postgres_port")]
    #[garde(skip)]
    pub port: u16,
    /// File that holds a `postgres://` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub url_file: Option<PathBuf>,
}

fn one_address(url_file: Option<&PathBuf>) -> impl FnOnce(&Option<String>, &()) -> garde::Result + '_ {
    move |host, ()| match (host, url_file) {
        (Some(_), None) | (None, Some(_)) => Ok(()),
        _ => Err(garde::Error::new("give either host or urlFile")),
    }
}

/// Redis: by Sentinels, or by a file that holds one URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redis {
    /// Sentinels, each as `host:port`; any one of them is enough to find the primary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[garde(length(max = 9), custom(one_redis(self.url_file.as_ref())))]
    pub sentinels: Vec<String>,
    /// Name under which the Sentinels know the primary.
    #[serde(default = "default_master_name")]
    #[garde(length(min = 1, max = 63))]
    pub master_name: String,
    /// File that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub password_file: Option<PathBuf>,
    /// File that holds a `redis://` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub url_file: Option<PathBuf>,
}

fn one_redis(url_file: Option<&PathBuf>) -> impl FnOnce(&Vec<String>, &()) -> garde::Result + '_ {
    move |sentinels, ()| {
        if sentinels.is_empty() == url_file.is_some() {
            Ok(())
        } else {
            Err(garde::Error::new("give either sentinels or urlFile"))
        }
    }
}

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

section! {
    /// Limits of the HTTP listener.
    Http {
        /// Largest request body.
        body_limit: Size = Size::from_mib(1), [skip];
        /// Time for a request's line and headers to arrive, and for an idle connection.
        header_timeout: Span = Span::from_secs(10), [skip];
        /// Time for a whole request.
        request_timeout: Span = Span::from_secs(15), [skip];
        /// Time for a JSON body to arrive, and for a client to take what was sent to it.
        body_timeout: Span = Span::from_secs(10), [skip];
        /// Open connections; more are refused.
        max_connections: u32 = 60_000, [range(min = 10, max = 1_000_000)];
        /// Requests that are answered at the same time; more are refused at once with 503.
        max_in_flight: u32 = 2_000, [range(min = 10, max = 100_000)];
        /// Origins that browsers may call from, for CORS and WebSockets. Empty: same origin only.
        allowed_origins: Vec<String> = Vec::new(), [length(max = 64)];
        /// Networks of proxies whose X-Forwarded-For is believed. The first address from the right that is in none of them is the client's.
        trusted_proxies: Vec<IpNet> = private_networks(), [length(max = 64)];
        /// Whether every answer says what it cost (X-DB-Queries, X-Cache-Hit-Rate). Operators of the platform always see it.
        debug_headers: bool = false, [skip];
    }
}

section! {
    /// Lifetimes of tokens.
    Auth {
        /// How long an access token is good for.
        access_token_ttl: Span = Span::from_secs(900), [skip];
        /// How long a refresh token is good for.
        refresh_token_ttl: Span = Span::from_secs(2_592_000), [skip];
        /// How long a session can be refreshed after its login.
        session_max_age: Span = Span::from_secs(7_776_000), [skip];
        /// How long an invitation is good for.
        invitation_ttl: Span = Span::from_secs(604_800), [skip];
    }
}

section! {
    /// The two-tier cache.
    Cache {
        /// Off: every read goes to PostgreSQL.
        enabled: bool = true, [skip];
        /// Memory of the in-process tier.
        l1_capacity: Size = Size::from_mib(64), [skip];
        /// Time to live of each kind of entry.
        ttl: CacheTtl = CacheTtl::default(), [skip];
        /// Loading before the first request.
        warm_up: WarmUp = WarmUp::default(), [dive];
    }
}

section! {
    /// Loading before the first request.
    WarmUp {
        /// Whether a starting process loads what is asked most, unless another one has just done so.
        on_start: bool = true, [skip];
        /// Cron expressions (five fields, UTC) at which one process of all loads it anew.
        schedules: Vec<String> = Vec::new(), [length(max = 8)];
    }
}

section! {
    /// Time to live of each kind of entry.
    CacheTtl {
        /// Validated access tokens.
        tokens: Span = Span::from_secs(300), [skip];
        /// A person's profile.
        user_profile: Span = Span::from_secs(900), [skip];
        /// A person's permissions.
        permissions: Span = Span::from_secs(900), [skip];
        /// Lists of memories.
        memories: Span = Span::from_secs(60), [skip];
        /// The plan catalogue.
        plans: Span = Span::from_secs(3_600), [skip];
        /// Recommendations.
        recommendations: Span = Span::from_secs(86_400), [skip];
        /// Analyses of usage.
        usage_analysis: Span = Span::from_secs(604_800), [skip];
        /// Anything else.
        default: Span = Span::from_secs(300), [skip];
    }
}

/// An OpenAI-compatible endpoint that turns texts into vectors. Without one, memories are searched by their words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Embeddings {
    /// Base address, such as `https://api.openai.com/v1`; `/embeddings` is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[garde(inner(length(min = 8, max = 512)), custom(web_address()))]
    pub url: Option<String>,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[garde(inner(length(min = 1, max = 128)), custom(model_of(self.url.as_ref())))]
    pub model: Option<String>,
    /// Length of its vectors, where the model allows to choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[garde(inner(range(min = 1, max = 4000)))]
    pub dimensions: Option<u32>,
    /// File that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub api_key_file: Option<PathBuf>,
}

fn web_address() -> impl FnOnce(&Option<String>, &()) -> garde::Result {
    |url, ()| {
        let known = |url: &String| url.starts_with("https://") || url.starts_with("http://");
        if url.as_ref().is_none_or(known) {
            Ok(())
        } else {
            Err(garde::Error::new("must begin with https:// or http://"))
        }
    }
}

fn model_of(url: Option<&String>) -> impl FnOnce(&Option<String>, &()) -> garde::Result + '_ {
    move |model, ()| {
        if url.is_some() && model.is_none() {
            Err(garde::Error::new("name the model of the endpoint"))
        } else {
            Ok(())
        }
    }
}

section! {
    /// Background work: syncs, webhooks, schedules.
    Jobs {
        /// Jobs that this process runs at the same time. 0: it runs none.
        concurrency: u32 = 4, [range(min = 0, max = 64)];
        /// How long a job waits for its worker to come back before another one takes it.
        lease: Span = Span::from_secs(60), [skip];
    }
}

section! {
    /// Requests that the server sends to addresses that people gave: webhooks and syncs.
    Outbound {
        /// Networks that they may reach although they are not public. Empty: none.
        allowed_networks: Vec<IpNet> = Vec::new(), [length(max = 64)];
    }
}

section! {
    /// Files of people.
    Resources {
        /// Largest file.
        max_size: Size = Size::from_mib(25), [skip];
        /// Content types that may be stored, such as `image/png` or `text/*`. Empty: all.
        content_types: Vec<String> = Vec::new(), [length(max = 64)];
    }
}

section! {
    /// Requests per person; logins per address and account.
    RateLimit {
        /// Sustained requests per minute of one person.
        requests_per_minute: u32 = 600, [range(min = 1, max = 1_000_000)];
        /// Requests that may come at once.
        burst: u32 = 100, [range(min = 1, max = 100_000)];
        /// Login attempts per minute.
        login_per_minute: u32 = 10, [range(min = 1, max = 10_000)];
    }
}

section! {
    /// Real-time connections.
    WebSocket {
        /// Sockets of this process; more are refused with 503.
        max_connections: u32 = 50_000, [range(min = 1, max = 1_000_000)];
        /// Bytes that may wait for one slow socket before it is closed.
        send_buffer: Size = Size::from_kib(128), [skip];
        /// Events kept for each channel, for clients that come back.
        history_size: u32 = 300, [range(min = 0, max = 10_000)];
        /// How long they are kept.
        history_ttl: Span = Span::from_secs(600), [skip];
    }
}

section! {
    /// What happens after SIGTERM.
    Drain {
        /// Time until the process ends whatever is still in flight.
        timeout: Span = Span::from_secs(30), [skip];
    }
}

/// Networks that do not leave a site: in a cluster, proxies are there.
fn private_networks() -> Vec<IpNet> {
    [
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    ]
    .into_iter()
    .filter_map(|network| network.parse().ok())
    .collect()
}

fn default_database() -> String {
    "tanka".to_owned()
}

fn default_user() -> String {
    "tanka_app".to_owned()
}

fn default_master_name() -> String {
    "tanka".to_owned()
}

const fn default_postgres_port() -> u16 {
    5432
}

const fn default_pool_size() -> u32 {
    8
}

const fn default_acquire_timeout() -> Span {
    Span::from_secs(2)
}

const fn default_max_replica_lag() -> Span {
    Span::from_secs(1)
}

const fn default_read_your_writes_timeout() -> Span {
    Span::from_millis(20)
}

const fn default_slow_query_threshold() -> Span {
    Span::from_millis(100)
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
