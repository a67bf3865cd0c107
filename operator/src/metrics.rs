//! Metrics of the operator. Labels come from closed sets; names of platforms stand only in the gauges of their conditions, as many as
//! there are platforms, and go with them.

mod census;
mod conditions;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::reflector::Store;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use self::census::{Census, Queue};
use self::conditions::Conditions;
use crate::platform::cache::Guarded;
use crate::platform::object::Kind;
use crate::platform::pending::Pending;

/// Why something was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Cause {
    /// The object was not there.
    Missing,
    /// A field that is ours was not as it should be: the spec has changed, or somebody else changed the object.
    Differs,
    /// The object has no place any more.
    Obsolete,
    /// A field is handed over to another writer.
    HandOver,
    /// A step of a rollout, of growing a volume and the like.
    Upkeep,
    /// The operator's own rights in a namespace.
    Rights,
    /// A controller is to try again at once what it was refused.
    Reminder,
    /// What was observed has changed.
    Status,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    kind: &'static str,
    reason: Cause,
}

/// All metrics; clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    writes: Family<Write, Counter>,
    reconciles: Histogram,
    waits: Histogram,
    failures: Counter,
    panics: Counter,
    failovers: Histogram,
    leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            writes: Family::default(),
            // From a look that finds nothing to do to one that waits for every deadline.
            reconciles: Histogram::new([
                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ]),
            waits: Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]),
            failures: Counter::default(),
            panics: Counter::default(),
            failovers: Histogram::new([0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0]),
            leader: Gauge::default(),
            registry: Arc::new(Mutex::new(Registry::with_prefix("tanka"))),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register(
            "apiserver_writes",
            "Requests that change something, by kind and reason",
            self.writes.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "Time of one look at one platform",
            Unit::Seconds,
            self.reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile_queue_wait",
            "Time from a change of a platform's objects to the look at it",
            Unit::Seconds,
            self.waits.clone(),
        );
        registry.register("reconcile_failures", "Looks that failed", self.failures.clone());
        registry.register(
            "reconcile_panics",
            "Looks that ended in a panic",
            self.panics.clone(),
        );
        registry.register_with_unit(
            "postgres_failover_downtime",
            "Time without a primary",
            Unit::Seconds,
            self.failovers.clone(),
        );
        registry.register(
            "operator_leader",
            "1 while this process is the leader",
            self.leader.clone(),
        );
    }

    /// Counts the platforms by their conditions, and those that wait for a look, whenever somebody asks.
    pub fn watch(&self, platforms: Vec<Store<Guarded>>, pending: Vec<Pending>) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(Conditions(platforms.clone())));
        registry.register_collector(Box::new(Census(platforms)));
        registry.register_collector(Box::new(Queue(pending)));
    }

    /// Counts a write.
    pub fn write(&self, kind: Kind, reason: Cause) {
        self.count(kind.as_str(), reason);
    }

    /// Counts a write of status.
    pub fn status_write(&self) {
        self.count("TankaPlatform", Cause::Status);
    }

    fn count(&self, kind: &'static str, reason: Cause) {
        self.writes.get_or_create(&Write { kind, reason }).inc();
    }

    /// Times a look until the guard is dropped.
    pub fn reconcile(&self) -> impl Drop + use<> {
        Timer {
            started: Instant::now(),
            histogram: self.reconciles.clone(),
        }
    }

    /// Records how long a platform has waited for a look.
    pub fn waited(&self, time: Duration) {
        self.waits.observe(time.as_secs_f64());
    }

    /// Counts a failed look.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// Counts a look that ended in a panic.
    pub fn panicked(&self) {
        self.panics.inc();
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
