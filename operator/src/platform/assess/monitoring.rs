//! Whether a platform is watched: rules, monitors and dashboards.

use crds::conditions::Reason;
use crds::names::{self, Component};

use super::{Finding, rejected};
use crate::platform::build::monitoring;
use crate::platform::object::{Key, Kind};
use crate::platform::observe::World;
use crate::platform::observe::apis::Availability;
use crate::platform::validate::Platform;

/// Assesses what watches the platform.
pub fn monitoring(platform: &Platform, world: &World) -> Finding {
    let spec = &platform.spec.monitoring;
    if !(spec.alerts.enabled || spec.pod_monitor.enabled || spec.dashboards.enabled) {
        return Finding::good(Reason::Disabled, "switched off in the spec");
    }
    if let Some(finding) = rejected(world, |key| is_monitoring(platform, key)) {
        return finding;
    }
    for (kind, wanted) in [
        (Kind::PrometheusRule, spec.alerts.enabled),
        (Kind::PodMonitor, spec.pod_monitor.enabled),
    ] {
        if let (true, Availability::Unreadable(words)) = (wanted, world.apis.of(kind)) {
            return Finding::bad(
                Reason::ApplyFailed,
                format!("objects of kind {} cannot be read: {words}", kind.as_str()),
            );
        }
    }
    let keys: Vec<Key> = monitoring::build(platform, &world.apis)
        .into_iter()
        .map(|object| object.key)
        .collect();
    if let Some(missing) = keys.iter().find(|key| !world.objects.contains_key(key)) {
        return Finding::bad(Reason::Progressing, format!("{missing} is not there yet"));
    }
    let places = keys
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let fallback = (spec.alerts.enabled && !world.apis.usable(Kind::PrometheusRule))
        || (spec.pod_monitor.enabled && !world.apis.usable(Kind::PodMonitor));
    if fallback {
        let rest = if places.is_empty() {
            "nothing is made".to_owned()
        } else {
            format!("in use: {places}")
        };
        return Finding::good(
            Reason::ConfigMapsUsed,
            format!("prometheus-operator is not installed; {rest}"),
        );
    }
    Finding::good(Reason::Available, places)
}

/// Whether an object is there to watch the platform.
pub fn is_monitoring(platform: &Platform, key: &Key) -> bool {
    let of_kind = [Kind::PrometheusRule, Kind::PodMonitor].contains(&key.kind);
    of_kind
        || key.name == names::alerts(&platform.name)
        || key.name == names::dashboards(&platform.name)
        || key.name == names::component(&platform.name, Component::Monitoring)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::fixtures::platform;
    use crate::platform::observe::Rejection;
    use crate::platform::observe::apis::Apis;

    fn world(platform: &Platform, apis: Apis) -> World {
        let objects = monitoring::build(platform, &apis);
        World {
            objects: objects
                .into_iter()
                .map(|object| (object.key, object.manifest))
                .collect(),
            apis,
            ..World::default()
        }
    }

    fn installed() -> Apis {
        Apis::new([Kind::PrometheusRule, Kind::PodMonitor].map(|kind| (kind, Availability::Usable)))
    }

    #[test]
    fn a_cluster_without_prometheus_operator_is_no_error() {
        let platform = platform(json!({}));
        let finding = monitoring(&platform, &world(&platform, Apis::default()));
        assert!(finding.ok);
        assert_eq!(finding.reason, Reason::ConfigMapsUsed);
        assert!(
            finding.message.contains("ConfigMap \"acme-alerts\""),
            "{}",
            finding.message
        );
    }

    #[test]
    fn with_prometheus_operator_its_objects_are_named() {
        let platform = platform(json!({}));
        let finding = monitoring(&platform, &world(&platform, installed()));
        assert_eq!(finding.reason, Reason::Available);
        assert!(
            finding.message.contains("PrometheusRule \"acme-alerts\""),
            "{}",
            finding.message
        );
        assert!(
            finding.message.contains("PodMonitor \"acme-postgres\""),
            "{}",
            finding.message
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let platform = platform(json!({}));
        let mut world = world(&platform, installed());
        world.objects.remove(&Key::new(Kind::PodMonitor, "acme-api"));
        let finding = monitoring(&platform, &world);
        assert!(
            !finding.ok && finding.message.contains("PodMonitor \"acme-api\""),
            "{finding:?}"
        );
    }

    #[test]
    fn kinds_that_may_not_be_read_are_told() {
        let platform = platform(json!({}));
        let words = Availability::Unreadable("prometheusrules is forbidden".to_owned());
        let apis = Apis::new([(Kind::PrometheusRule, words)]);
        let finding = monitoring(&platform, &world(&platform, apis));
        assert!(
            !finding.ok && finding.message.contains("forbidden"),
            "{finding:?}"
        );
    }

    #[test]
    fn a_refusal_is_told() {
        let platform = platform(json!({}));
        let mut world = world(&platform, installed());
        let key = Key::new(Kind::PodMonitor, "acme-postgres");
        world.rejected.insert(key, Rejection::Refused("quota".to_owned()));
        let finding = monitoring(&platform, &world);
        assert_eq!(finding.reason, Reason::ApplyFailed);
    }

    #[test]
    fn all_switched_off_is_as_it_should_be() {
        let off = json!({"enabled": false});
        let platform = platform(json!({"monitoring": {"alerts": off, "podMonitor": off, "dashboards": off}}));
        assert_eq!(monitoring(&platform, &World::default()).reason, Reason::Disabled);
    }
}
