//! Counts of background work.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::SecondsGauge;

/// How an attempt at a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum JobOutcome {
    /// The work has written its outcome, good or bad.
    Settled,
    /// A mistake of ours, or the database was away.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
    /// Another worker has it.
    Lost,
    /// The process ended first.
    Interrupted,
}

/// Labels of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JobLabels {
    kind: &'static str,
    outcome: JobOutcome,
}

/// Labels of a duration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JobKindLabels {
    kind: &'static str,
}

/// Counts of background work.
#[derive(Debug, Clone)]
pub struct JobMetrics {
    attempts: Family<JobLabels, Counter>,
    duration: Family<JobKindLabels, Histogram, fn() -> Histogram>,
    /// Jobs of this process that run.
    pub running: Gauge,
    /// Jobs of all tenants that wait longer than they should.
    pub due: Gauge,
    /// Seconds that the oldest of them waits.
    pub oldest: SecondsGauge,
}

impl JobMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let m = Self {
            attempts: Family::default(),
            duration: Family::new_with_constructor(job_histogram),
            running: Gauge::default(),
            due: Gauge::default(),
            oldest: Gauge::default(),
        };
        let r = registry.sub_registry_with_prefix("jobs");
        r.register(
            "attempts",
            "Attempts at jobs by kind and how they ended",
            m.attempts.clone(),
        );
        r.register(
            "duration_seconds",
            "Duration of attempts at jobs",
            m.duration.clone(),
        );
        r.register("running", "Jobs that this process is at", m.running.clone());
        r.register(
            "due",
            "Jobs of all tenants that could begin, up to 10,000",
            m.due.clone(),
        );
        r.register(
            "oldest_due_seconds",
            "Time since the oldest job that could begin was due",
            m.oldest.clone(),
        );
        m
    }

    /// Counts an attempt.
    pub fn count(&self, kind: &'static str, outcome: JobOutcome, took: Duration) {
        self.attempts.get_or_create(&JobLabels { kind, outcome }).inc();
        self.duration
            .get_or_create(&JobKindLabels { kind })
            .observe(took.as_secs_f64());
    }
}

/// From a request to another server up to a long sync.
fn job_histogram() -> Histogram {
    Histogram::new([0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0])
}
