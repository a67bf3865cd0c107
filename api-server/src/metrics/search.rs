//! Counts of searches by meaning.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::store::search::How;

/// Upper bounds of shares of the truly nearest, dense around the goal of 0.99.
const SHARES: [f64; 8] = [0.5, 0.8, 0.9, 0.95, 0.98, 0.989, 0.999, 1.0];

/// How a search was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Way {
    /// Everything was compared.
    Exact,
    /// Through the index.
    Approximate,
    /// Everything, after the index gave too few.
    Fallback,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WayLabels {
    way: Way,
}

/// Counts of searches by meaning.
#[derive(Debug, Clone)]
pub struct SearchMetrics {
    searches: Family<WayLabels, Counter>,
    recall: Histogram,
}

impl SearchMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let m = Self {
            searches: Family::default(),
            recall: Histogram::new(SHARES),
        };
        let r = registry.sub_registry_with_prefix("memory_search");
        r.register(
            "by_meaning",
            "Searches by meaning, by the way they were done",
            m.searches.clone(),
        );
        r.register(
            "recall",
            "Share of the truly nearest that sampled searches through the index found",
            m.recall.clone(),
        );
        m
    }

    /// Counts a search by meaning.
    pub fn count(&self, how: How) {
        let way = match how {
            How::Exactly => Way::Exact,
            How::FellBack => Way::Fallback,
            How::Approximately { recall } => {
                if let Some(recall) = recall {
                    self.recall.observe(recall);
                }
                Way::Approximate
            }
        };
        self.searches.get_or_create(&WayLabels { way }).inc();
    }
}
