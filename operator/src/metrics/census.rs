//! What is counted only when somebody asks: platforms by condition, and those that wait for a look. Nothing is kept up to date for
//! it, and a platform that is gone is not counted any more.

use std::collections::BTreeMap;
use std::fmt;

use crds::conditions::ConditionType;
use kube::runtime::reflector::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::platform::cache::Guarded;
use crate::platform::pending::Pending;

/// Platforms by condition.
#[derive(Debug)]
pub struct Census(pub Vec<Store<Guarded>>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct State {
    condition: &'static str,
    status: &'static str,
}

impl Census {
    fn count(&self) -> BTreeMap<State, i64> {
        let mut counts = BTreeMap::new();
        let platforms = self.0.iter().flat_map(Store::state);
        for platform in platforms {
            let Ok(platform) = &platform.0 else { continue };
            let conditions = platform
                .status
                .as_ref()
                .map(|status| status.conditions.as_slice());
            for kind in ConditionType::ALL {
                let found = conditions
                    .unwrap_or_default()
                    .iter()
                    .find(|condition| condition.type_ == kind.as_str());
                let state = State {
                    condition: kind.as_str(),
                    status: match found.map(|condition| condition.status.as_str()) {
                        Some("True") => "True",
                        Some("False") => "False",
                        _ => "Absent",
                    },
                };
                *counts.entry(state).or_default() += 1;
            }
        }
        counts
    }
}

impl Collector for Census {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "platforms",
            "Platforms by condition and its status",
            None,
            MetricType::Gauge,
        )?;
        for (state, count) in self.count() {
            ConstGauge::new(count).encode(family.encode_family(&state)?)?;
        }
        Ok(())
    }
}

/// Platforms that wait for a look.
#[derive(Debug)]
pub struct Queue(pub Vec<Pending>);

impl Collector for Queue {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let depth: usize = self.0.iter().map(Pending::depth).sum();
        let gauge = ConstGauge::new(i64::try_from(depth).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(
            "reconcile_queue_depth",
            "Platforms whose objects have changed and which wait for a look",
            None,
            MetricType::Gauge,
        )?)
    }
}
