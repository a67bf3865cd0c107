//! What is counted. Labels come from closed sets only: route templates, methods, statuses, instances of the configuration.

mod counted;
mod database;
pub mod jobs;
pub mod search;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use self::counted::Counted;
pub use self::database::{
    DatabaseMetrics, InstanceLabels, OutcomeLabels, PoolLabels, ReadLabels, StatementLabels,
};
use self::jobs::JobMetrics;
use self::search::SearchMetrics;
use crate::cache::counts::CacheCounts;

/// Content type of the exposition.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of latency buckets in seconds: dense around the goals of 50, 200 and 500 ms.
const LATENCY: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 10.0,
];

/// Upper bounds of buckets in seconds: what is known takes microseconds, the goal of what is looked up is 5 ms.
const VALIDATION: [f64; 10] = [
    0.000_001, 0.000_005, 0.000_025, 0.000_1, 0.001, 0.002_5, 0.005, 0.025, 0.1, 1.0,
];

fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY)
}

/// A gauge of seconds.
pub type SecondsGauge = Gauge<f64, AtomicU64>;

/// Everything that is counted, and its exposition.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The HTTP listener.
    pub http: HttpMetrics,
    /// PostgreSQL.
    pub database: DatabaseMetrics,
    /// Real-time connections.
    pub realtime: RealtimeMetrics,
    /// Password hashing.
    pub hashing: HashingMetrics,
    /// The configuration file.
    pub config: ConfigMetrics,
    /// Validated tokens.
    pub access: AccessMetrics,
    /// Limits of requests and guesses.
    pub limits: LimitMetrics,
    /// The cache.
    pub cache: CacheCounts,
    /// Background work.
    pub jobs: JobMetrics,
    /// Searches by meaning.
    pub search: SearchMetrics,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::default();
        let http = HttpMetrics::register(&mut registry);
        let tanka = registry.sub_registry_with_prefix("tanka");
        let database = DatabaseMetrics::register(tanka);
        let realtime = RealtimeMetrics::register(tanka);
        let hashing = HashingMetrics::register(tanka);
        let config = ConfigMetrics::register(tanka);
        let access = AccessMetrics::register(tanka);
        let limits = LimitMetrics::register(tanka);
        let cache = CacheCounts::register(tanka);
        let jobs = JobMetrics::register(tanka);
        let search = SearchMetrics::register(tanka);
        let build = Family::<BuildLabels, Gauge>::default();
        build
            .get_or_create(&BuildLabels {
                version: env!("CARGO_PKG_VERSION"),
            })
            .set(1);
        tanka.register("build_info", "The release that runs", build);
        Arc::new(Self {
            registry,
            http,
            database,
            realtime,
            hashing,
            config,
            access,
            limits,
            cache,
            jobs,
            search,
        })
    }

    /// The exposition in OpenMetrics text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

/// Labels of a finished request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Method, or `OTHER`.
    pub method: &'static str,
    /// Route template.
    pub endpoint: String,
    /// Status code.
    pub status: u16,
}

/// Labels of a latency.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LatencyLabels {
    /// Method, or `OTHER`.
    pub method: &'static str,
    /// Route template.
    pub endpoint: String,
}

/// Counts of the HTTP listener.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    /// Finished requests.
    pub requests: Family<RequestLabels, Counter>,
    /// Their duration.
    pub duration: Family<LatencyLabels, Histogram, fn() -> Histogram>,
    /// Statements that they needed.
    pub statements: Family<LatencyLabels, Counter>,
    /// Requests whose client left before the answer.
    pub aborted: Family<LatencyLabels, Counter>,
    /// Handlers that panicked.
    pub panics: Counter,
    /// Requests that were refused because too many were in flight.
    pub shed: Counter,
    /// Requests in flight.
    pub in_flight: Gauge,
    /// Open connections.
    pub connections: Gauge,
    /// Connections that were refused because there are too many.
    pub refused: Counter,
}

impl HttpMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(latency_histogram),
            statements: Family::default(),
            aborted: Family::default(),
            panics: Counter::default(),
            shed: Counter::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            refused: Counter::default(),
        };
        registry.register(
            "http_requests",
            "Finished HTTP requests",
            metrics.requests.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "Duration of HTTP requests in seconds",
            metrics.duration.clone(),
        );
        let tanka = registry.sub_registry_with_prefix("tanka_http");
        tanka.register(
            "database_statements",
            "Statements that requests needed, by endpoint",
            metrics.statements.clone(),
        );
        tanka.register(
            "requests_aborted",
            "Requests whose client left before the answer",
            metrics.aborted.clone(),
        );
        tanka.register(
            "requests_shed",
            "Requests refused because too many were in flight",
            metrics.shed.clone(),
        );
        tanka.register("panics", "Handlers that panicked", metrics.panics.clone());
        tanka.register(
            "requests_in_flight",
            "Requests being answered",
            metrics.in_flight.clone(),
        );
        tanka.register("connections", "Open connections", metrics.connections.clone());
        tanka.register(
            "connections_refused",
            "Connections over the limit",
            metrics.refused.clone(),
        );
        metrics
    }
}

/// Why sockets closed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// One of a closed set.
    pub reason: &'static str,
}

/// Where events came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabels {
    /// `local`, `redis`, `poll` or `history`.
    pub source: &'static str,
}

/// Counts of real-time connections.
#[derive(Debug, Clone)]
pub struct RealtimeMetrics {
    /// Open connections, WebSockets and event streams.
    pub sockets: Gauge,
    /// Channels with local members.
    pub channels: Gauge,
    /// Memberships of connections in channels.
    pub subscriptions: Gauge,
    /// Bytes that wait for connections.
    pub queue_bytes: Gauge,
    /// Bytes that still waited for connections when those were given up or ended.
    pub discarded_bytes: Counter,
    /// From the moment an event was written to the moment it was handed to connections.
    pub delay: Family<SourceLabels, Histogram>,
    /// How often Redis began to deliver.
    pub reconnects: Counter,
    /// Frames handed to sockets.
    pub deliveries: Family<SourceLabels, Counter>,
    /// Frames that were not handed over, or not published.
    pub dropped: Family<ReasonLabels, Counter>,
    /// Closed sockets.
    pub closed: Family<ReasonLabels, Counter>,
    /// Connections that came back, by what they got.
    pub resumes: Family<OutcomeLabels, Counter>,
    /// Whether Redis answers.
    pub redis_up: Gauge,
    /// Whether the subscription to Redis is alive.
    pub subscribed: Gauge,
}

impl RealtimeMetrics {
    #[expect(clippy::too_many_lines, reason = "a list")]
    fn register(registry: &mut Registry) -> Self {
        let m = Self {
            sockets: Gauge::default(),
            channels: Gauge::default(),
            subscriptions: Gauge::default(),
            queue_bytes: Gauge::default(),
            discarded_bytes: Counter::default(),
            delay: Family::new_with_constructor(latency_histogram),
            reconnects: Counter::default(),
            deliveries: Family::default(),
            dropped: Family::default(),
            closed: Family::default(),
            resumes: Family::default(),
            redis_up: Gauge::default(),
            subscribed: Gauge::default(),
        };
        registry.register("websocket_connections", "Open WebSockets", m.sockets.clone());
        registry.register(
            "websocket_closed",
            "Closed WebSockets by reason",
            m.closed.clone(),
        );
        registry.register(
            "websocket_resumes",
            "Resumed connections by outcome",
            m.resumes.clone(),
        );
        registry.register(
            "realtime_subscriptions",
            "Memberships of connections in channels",
            m.subscriptions.clone(),
        );
        registry.register(
            "realtime_queue_bytes",
            "What waits for connections",
            m.queue_bytes.clone(),
        );
        registry.register(
            "realtime_discarded_bytes",
            "What still waited for connections when they ended",
            m.discarded_bytes.clone(),
        );
        registry.register(
            "realtime_delivery_delay_seconds",
            "From writing an event to handing it to connections",
            m.delay.clone(),
        );
        registry.register(
            "realtime_redis_reconnects",
            "How often Redis began to deliver events",
            m.reconnects.clone(),
        );
        registry.register(
            "realtime_channels",
            "Channels with local members",
            m.channels.clone(),
        );
        registry.register(
            "realtime_deliveries",
            "Frames handed to sockets, by source",
            m.deliveries.clone(),
        );
        registry.register("realtime_dropped", "Frames dropped, by reason", m.dropped.clone());
        registry.register("redis_up", "1 while Redis answers", m.redis_up.clone());
        registry.register(
            "realtime_subscribed",
            "1 while Redis delivers events",
            m.subscribed.clone(),
        );
        m
    }
}

/// Counts of password hashing.
#[derive(Debug, Clone)]
pub struct HashingMetrics {
    /// Hashes being computed.
    pub running: Gauge,
    /// Requests that wait for their turn.
    pub waiting: Gauge,
    /// Requests that were refused.
    pub shed: Counter,
    /// Duration of one hash, without waiting.
    pub duration: Histogram,
}

impl HashingMetrics {
    fn register(registry: &mut Registry) -> Self {
        let m = Self {
            running: Gauge::default(),
            waiting: Gauge::default(),
            shed: Counter::default(),
            duration: latency_histogram(),
        };
        let r = registry.sub_registry_with_prefix("password_hashing");
        r.register("running", "Password hashes being computed", m.running.clone());
        r.register(
            "waiting",
            "Requests waiting for the hashing pool",
            m.waiting.clone(),
        );
        r.register("shed", "Requests refused because too many wait", m.shed.clone());
        r.register(
            "duration_seconds",
            "Duration of one password hash",
            m.duration.clone(),
        );
        m
    }
}

/// Counts of validated tokens.
#[derive(Debug, Clone)]
pub struct AccessMetrics {
    /// Tokens that were known.
    pub hits: Counter,
    /// Tokens that were asked for.
    pub misses: Counter,
    /// Changes of rights that were learned.
    pub changes: Counter,
    /// Time to learn whose token it is.
    pub validation: Histogram,
}

impl AccessMetrics {
    fn register(registry: &mut Registry) -> Self {
        let m = Self {
            hits: Counter::default(),
            misses: Counter::default(),
            changes: Counter::default(),
            validation: Histogram::new(VALIDATION),
        };
        let r = registry.sub_registry_with_prefix("access_tokens");
        r.register("hits", "Access tokens that this process knew", m.hits.clone());
        r.register("misses", "Access tokens that were looked up", m.misses.clone());
        r.register(
            "changes",
            "Changes of rights that ended what was known",
            m.changes.clone(),
        );
        r.register(
            "validation_seconds",
            "Time to learn whose access token it is",
            m.validation.clone(),
        );
        m
    }
}

/// Counts of limits.
#[derive(Debug, Clone)]
pub struct LimitMetrics {
    /// Requests over the limit.
    pub refused: Counter,
    /// Guesses that had to wait.
    pub guesses_refused: Counter,
    /// Requests that were counted without Redis.
    pub local: Counter,
}

impl LimitMetrics {
    fn register(registry: &mut Registry) -> Self {
        let m = Self {
            refused: Counter::default(),
            guesses_refused: Counter::default(),
            local: Counter::default(),
        };
        let r = registry.sub_registry_with_prefix("limits");
        r.register("refused", "Requests over their limit", m.refused.clone());
        r.register(
            "guesses_refused",
            "Guesses of passwords that came too early",
            m.guesses_refused.clone(),
        );
        r.register(
            "local",
            "Requests that were counted without Redis",
            m.local.clone(),
        );
        m
    }
}

/// What became of a changed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ReloadOutcome {
    /// It is in force.
    Applied,
    /// It is not valid.
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    outcome: ReloadOutcome,
}

/// Counts of the configuration file.
#[derive(Debug, Clone)]
pub struct ConfigMetrics {
    reloads: Family<ReloadLabels, Counter>,
    last_ok: Gauge,
}

impl ConfigMetrics {
    fn register(registry: &mut Registry) -> Self {
        let m = Self {
            reloads: Family::default(),
            last_ok: Gauge::default(),
        };
        m.last_ok.set(1);
        let r = registry.sub_registry_with_prefix("config");
        r.register(
            "reloads",
            "Changed configuration files by outcome",
            m.reloads.clone(),
        );
        r.register(
            "last_reload_successful",
            "0 while the file on disk is refused",
            m.last_ok.clone(),
        );
        m
    }

    /// Counts a changed file.
    pub fn count(&self, outcome: ReloadOutcome) {
        self.reloads.get_or_create(&ReloadLabels { outcome }).inc();
        self.last_ok.set(i64::from(outcome == ReloadOutcome::Applied));
    }
}
