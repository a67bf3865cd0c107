//! Metrics of the operator. Labels come from closed sets only: never a name of a platform.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::platform::object::Kind;

/// What was asked of the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(missing_docs, reason = "the names are Kubernetes' own")]
pub enum Verb {
    Create,
    Apply,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    kind: &'static str,
    verb: Verb,
}

/// All metrics; clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    writes: Family<Write, Counter>,
    reconciles: Histogram,
    failures: Counter,
    failovers: Histogram,
    leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tanka");
        let metrics = Self {
            writes: Family::default(),
            // From a look that finds nothing to do to one that waits for every deadline.
            reconciles: Histogram::new([
                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ]),
            failures: Counter::default(),
            failovers: Histogram::new([0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0]),
            leader: Gauge::default(),
            registry: Arc::default(),
        };
        registry.register(
            "apiserver_writes",
            "Requests that change something, by kind and verb",
            metrics.writes.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "Time of one look at one platform",
            Unit::Seconds,
            metrics.reconciles.clone(),
        );
        registry.register(
            "reconcile_failures",
            "Looks that failed",
            metrics.failures.clone(),
        );
        registry.register_with_unit(
            "postgres_failover_downtime",
            "Time without a primary",
            Unit::Seconds,
            metrics.failovers.clone(),
        );
        registry.register(
            "operator_leader",
            "1 while this process is the leader",
            metrics.leader.clone(),
        );
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        metrics
    }
}

impl Metrics {
    /// Counts a write.
    pub fn write(&self, kind: Kind, verb: Verb) {
        self.writes
            .get_or_create(&Write {
                kind: kind.as_str(),
                verb,
            })
            .inc();
    }

    /// Counts a write of status.
    pub fn status_write(&self) {
        self.writes
            .get_or_create(&Write {
                kind: "TankaPlatformStatus",
                verb: Verb::Apply,
            })
            .inc();
    }

    /// Times a look until the guard is dropped.
    pub fn reconcile(&self) -> impl Drop + use<> {
        Timer {
            started: Instant::now(),
            histogram: self.reconciles.clone(),
        }
    }

    /// Counts a failed look.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// Records a failover.
    pub fn failover(&self, downtime_millis: i64) {
        let millis = i32::try_from(downtime_millis).unwrap_or(i32::MAX);
        self.failovers.observe(f64::from(millis) / 1_000.0);
    }

    /// Shows who leads.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// The text that Prometheus reads.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

struct Timer {
    started: Instant,
    histogram: Histogram,
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.histogram.observe(self.started.elapsed().as_secs_f64());
    }
}
