//! What is counted of PostgreSQL.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{SecondsGauge, latency_histogram};

/// One PostgreSQL instance, by its configured name. Not `instance`: that label belongs to whoever scrapes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct InstanceLabels {
    /// Configured name.
    pub server: String,
}

/// Where a read went and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReadLabels {
    /// `primary` or `replica`.
    pub role: &'static str,
    /// Why there.
    pub reason: &'static str,
}

/// State of pooled connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabels {
    /// Configured name of the instance.
    pub pool: String,
    /// `idle`, `used` or `max`.
    pub state: &'static str,
}

/// How writes ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// One of a closed set.
    pub outcome: &'static str,
}

/// Which statements.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatementLabels {
    /// The verb, from a closed set.
    pub kind: &'static str,
}

/// Counts of PostgreSQL.
#[derive(Debug, Clone)]
pub struct DatabaseMetrics {
    /// Whether an instance answers probes.
    pub up: Family<InstanceLabels, Gauge>,
    /// Whether an instance is the primary.
    pub primary: Family<InstanceLabels, Gauge>,
    /// How old what a replica serves can be.
    pub lag: Family<InstanceLabels, SecondsGauge>,
    /// Connections of all clients to an instance.
    pub connections: Family<InstanceLabels, Gauge>,
    /// Connections that an instance allows.
    pub connections_limit: Family<InstanceLabels, Gauge>,
    /// Times that an instance was taken out of reading.
    pub ejections: Family<InstanceLabels, Counter>,
    /// Reads.
    pub reads: Family<ReadLabels, Counter>,
    /// Reads that no replica could serve, and the primary had no room for.
    pub strays_refused: Counter,
    /// Writes.
    pub writes: Family<OutcomeLabels, Counter>,
    /// Attempts of writes beyond the first.
    pub write_retries: Counter,
    /// Writes that wait for a primary.
    pub held: Gauge,
    /// Connections.
    pub pool: Family<PoolLabels, Gauge>,
    /// Time that requests waited for a connection.
    pub acquire: Histogram,
    /// Duration of statements.
    pub statements: Family<StatementLabels, Histogram, fn() -> Histogram>,
    /// Statements over the threshold.
    pub slow: Counter,
    /// Operations over the threshold.
    pub slow_operations: Counter,
}

impl DatabaseMetrics {
    #[expect(clippy::too_many_lines, reason = "a list")]
    pub(super) fn register(registry: &mut Registry) -> Self {
        let m = Self {
            up: Family::default(),
            primary: Family::default(),
            lag: Family::default(),
            connections: Family::default(),
            connections_limit: Family::default(),
            ejections: Family::default(),
            reads: Family::default(),
            strays_refused: Counter::default(),
            writes: Family::default(),
            write_retries: Counter::default(),
            held: Gauge::default(),
            pool: Family::default(),
            acquire: latency_histogram(),
            statements: Family::new_with_constructor(latency_histogram),
            slow: Counter::default(),
            slow_operations: Counter::default(),
        };
        let r = registry.sub_registry_with_prefix("database");
        r.register("instance_up", "1 while an instance answers probes", m.up.clone());
        r.register(
            "instance_primary",
            "1 for the instance that accepts writes",
            m.primary.clone(),
        );
        r.register(
            "replica_lag_seconds",
            "Age of what a replica would serve",
            m.lag.clone(),
        );
        r.register(
            "connections",
            "Connections of all clients to an instance",
            m.connections.clone(),
        );
        r.register(
            "connections_limit",
            "Connections that an instance allows",
            m.connections_limit.clone(),
        );
        r.register(
            "ejections",
            "Times that an instance stopped serving reads",
            m.ejections.clone(),
        );
        r.register(
            "reads",
            "Reads by the role that served them and why",
            m.reads.clone(),
        );
        r.register(
            "fallback_reads_refused",
            "Reads that no replica could serve, and the primary had no room for",
            m.strays_refused.clone(),
        );
        r.register("writes", "Writes by outcome", m.writes.clone());
        r.register(
            "write_retries",
            "Attempts of writes beyond the first",
            m.write_retries.clone(),
        );
        r.register("writes_held", "Writes that wait for a primary", m.held.clone());
        r.register(
            "pool_connections",
            "Connections of each pool by state",
            m.pool.clone(),
        );
        r.register(
            "acquire_duration_seconds",
            "Time to get a connection",
            m.acquire.clone(),
        );
        r.register(
            "statement_duration_seconds",
            "Duration of statements by verb",
            m.statements.clone(),
        );
        r.register(
            "slow_statements",
            "Statements over the slow query threshold",
            m.slow.clone(),
        );
        r.register(
            "slow_operations",
            "Reads and writes over the slow query threshold, waiting and commit included",
            m.slow_operations.clone(),
        );
        m
    }
}
