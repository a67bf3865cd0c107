//! What the cache counts. Hits and misses are counters, so that they add up over pods and any span of time (F25).

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::kind::{KINDS, Kind};

/// How a lookup ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LookupLabels {
    /// Name of the kind.
    pub cache: &'static str,
    /// `hit_local`, `hit_shared`, `miss` or `stale`.
    pub outcome: &'static str,
}

/// Which kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// Name of the kind.
    pub cache: &'static str,
}

/// Counts of the cache.
#[derive(Debug, Clone)]
pub struct CacheCounts {
    /// Lookups.
    pub lookups: Family<LookupLabels, Counter>,
    /// Answers computed from the database.
    pub loads: Family<KindLabels, Counter>,
    /// Fills that were refused, because something was written meanwhile.
    pub refused: Family<KindLabels, Counter>,
    /// Invalidations.
    pub invalidations: Family<KindLabels, Counter>,
    /// Failures of Redis.
    pub errors: Counter,
    /// Invalidations that reached this process by the table, because no message came.
    pub found_late: Counter,
    /// Entries of this process.
    pub entries: Gauge,
    /// Their size.
    pub bytes: Gauge,
    /// Whether invalidations of other processes arrive at once.
    pub subscribed: Gauge,
    /// Duration of loads.
    pub load_duration: Histogram,
}

/// How a lookup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// This process had it.
    Local,
    /// Redis had it.
    Shared,
    /// Nobody had it.
    Miss,
    /// It could not be computed, and one that has ended was served.
    Stale,
}

impl Outcome {
    /// For metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "hit_local",
            Self::Shared => "hit_shared",
            Self::Miss => "miss",
            Self::Stale => "stale",
        }
    }
}

impl CacheCounts {
    /// Registers everything, each series at zero.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self {
            lookups: Family::default(),
            loads: Family::default(),
            refused: Family::default(),
            invalidations: Family::default(),
            errors: Counter::default(),
            found_late: Counter::default(),
            entries: Gauge::default(),
            bytes: Gauge::default(),
            subscribed: Gauge::default(),
            load_duration: Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
            ]),
        };
        for kind in KINDS {
            for outcome in [Outcome::Local, Outcome::Shared, Outcome::Miss] {
                let _ = m.lookups.get_or_create_owned(&labels(kind, outcome));
            }
            for family in [&m.loads, &m.refused, &m.invalidations] {
                let _ = family.get_or_create_owned(&of_kind(kind));
            }
        }
        let r = registry.sub_registry_with_prefix("cache");
        r.register("lookups", "Lookups by kind and outcome", m.lookups.clone());
        r.register("loads", "Answers computed from the database", m.loads.clone());
        r.register(
            "fills_refused",
            "Computed answers that were not stored, because something was written meanwhile",
            m.refused.clone(),
        );
        r.register("invalidations", "Invalidations by kind", m.invalidations.clone());
        r.register("errors", "Failures of Redis", m.errors.clone());
        r.register(
            "invalidations_found_late",
            "Invalidations that were found in the table, because no message came",
            m.found_late.clone(),
        );
        r.register("local_entries", "Entries of this process", m.entries.clone());
        r.register(
            "local_bytes",
            "Size of the entries of this process",
            m.bytes.clone(),
        );
        r.register(
            "subscribed",
            "1 while invalidations of other processes arrive at once",
            m.subscribed.clone(),
        );
        r.register(
            "load_duration_seconds",
            "Time to compute an answer from the database",
            m.load_duration.clone(),
        );
        m
    }

    /// Counts a lookup.
    pub fn note(&self, kind: Kind, outcome: Outcome) {
        self.lookups.get_or_create(&labels(kind, outcome)).inc();
    }

    /// Lookups of a kind so far: in this process, in Redis, in neither.
    pub fn totals(&self, kind: Kind) -> [u64; 3] {
        [Outcome::Local, Outcome::Shared, Outcome::Miss]
            .map(|outcome| self.lookups.get_or_create(&labels(kind, outcome)).get())
    }
}

/// Labels of a lookup.
fn labels(kind: Kind, outcome: Outcome) -> LookupLabels {
    LookupLabels {
        cache: kind.as_str(),
        outcome: outcome.as_str(),
    }
}

/// Labels of a kind.
pub fn of_kind(kind: Kind) -> KindLabels {
    KindLabels { cache: kind.as_str() }
}
