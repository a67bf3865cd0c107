//! Everything that watches a platform: rules, monitors, dashboards, in the forms that the cluster understands.

use std::collections::BTreeSet;

use crds::names;

use super::{alerts, dashboards, pod_monitors};
use crate::platform::object::{Key, Kind, Object};
use crate::platform::observe::apis::{Apis, Availability};
use crate::platform::validate::Platform;

/// All objects, given which optional APIs there are.
pub fn build(platform: &Platform, apis: &Apis) -> Vec<Object> {
    let monitoring = &platform.spec.monitoring;
    let mut objects = Vec::new();
    if monitoring.alerts.enabled {
        match apis.of(Kind::PrometheusRule) {
            Availability::Usable => objects.push(alerts::prometheus_rule(platform)),
            Availability::Absent => objects.push(alerts::config_map(platform)),
            Availability::Unreadable(_) => {}
        }
    }
    if monitoring.pod_monitor.enabled && apis.usable(Kind::PodMonitor) {
        objects.extend(pod_monitors::build(platform));
    }
    if monitoring.dashboards.enabled {
        objects.push(dashboards::build(platform));
    }
    objects
}

/// What is left as it is while it is not known whether the cluster has the API that would take its place.
pub fn undecided(platform: &Platform, apis: &Apis) -> BTreeSet<Key> {
    let undecided = matches!(apis.of(Kind::PrometheusRule), Availability::Unreadable(_));
    let fallback = Key::new(Kind::ConfigMap, names::alerts(&platform.name));
    (undecided && platform.spec.monitoring.alerts.enabled)
        .then_some(fallback)
        .into_iter()
        .collect()
}
