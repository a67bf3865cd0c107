//! Who sets the number of API pods: the spec, or the autoscaler.

use serde_json::Value;

use crate::platform::validate::Platform;

/// What to do about `spec.replicas` of the Deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replicas {
    /// The spec decides: send this number.
    Fixed(i32),
    /// The autoscaler decides, and there is nothing to scale yet: leave this number behind under a field manager of its own,
    /// so that taking our hands off the field does not reset it to one.
    Seed(i32),
    /// The autoscaler decides: never mention the field.
    Autoscaled,
}

/// The field manager that holds `spec.replicas` until the autoscaler takes it over.
pub const SEED_MANAGER: &str = "tanka-operator-replicas";

/// Decides from the spec, the live Deployment, and whether there is an autoscaler. One that is about to be deleted still decides:
/// a number that is sent beside it would be overruled, and sent again.
pub fn replicas(platform: &Platform, deployment: Option<&Value>, autoscaler: bool) -> Replicas {
    let api = &platform.spec.api;
    if !api.autoscaling.enabled {
        return match deployment {
            Some(_) if autoscaler => Replicas::Autoscaled,
            _ => Replicas::Fixed(api.replicas),
        };
    }
    match deployment {
        None => Replicas::Seed(api.autoscaling.min_replicas),
        Some(live) if only_we_hold_replicas(live) => {
            let current = live["spec"]["replicas"]
                .as_i64()
                .and_then(|n| i32::try_from(n).ok());
            Replicas::Seed(current.unwrap_or(api.autoscaling.min_replicas))
        }
        Some(_) => Replicas::Autoscaled,
    }
}

/// Whether nobody would keep the number if we let go of it.
fn only_we_hold_replicas(live: &Value) -> bool {
    let holders = live["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut managers = holders
        .filter(|entry| entry["fieldsV1"]["f:spec"].get("f:replicas").is_some())
        .map(|entry| &entry["manager"]);
    managers.all(|manager| manager == crds::names::FIELD_MANAGER)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::fixtures::platform;

    fn held_by(managers: &[&str]) -> Value {
        let entries: Vec<_> = managers
            .iter()
            .map(|manager| json!({"manager": manager, "fieldsV1": {"f:spec": {"f:replicas": {}}}}))
            .collect();
        json!({"spec": {"replicas": 7}, "metadata": {"managedFields": entries}})
    }

    #[test]
    fn a_new_deployment_starts_with_the_minimum() {
        assert_eq!(replicas(&platform(json!({})), None, false), Replicas::Seed(3));
    }

    #[test]
    fn the_live_number_is_handed_over_when_autoscaling_is_switched_on() {
        assert_eq!(
            replicas(&platform(json!({})), Some(&held_by(&["tanka-operator"])), false),
            Replicas::Seed(7)
        );
    }

    #[test]
    fn the_field_is_left_alone_once_somebody_else_holds_it() {
        let live = held_by(&["tanka-operator", SEED_MANAGER]);
        assert_eq!(
            replicas(&platform(json!({})), Some(&live), true),
            Replicas::Autoscaled
        );
    }

    #[test]
    fn the_spec_decides_without_autoscaling() {
        let spec = json!({"api": {"replicas": 5, "autoscaling": {"enabled": false}}});
        let live = held_by(&["kube-controller-manager"]);
        assert_eq!(replicas(&platform(spec), Some(&live), false), Replicas::Fixed(5));
    }

    #[test]
    fn the_current_number_stays_until_the_autoscaler_is_gone() {
        let spec = json!({"api": {"replicas": 5, "autoscaling": {"enabled": false}}});
        let live = held_by(&["kube-controller-manager"]);
        assert_eq!(replicas(&platform(spec), Some(&live), true), Replicas::Autoscaled);
    }
}
