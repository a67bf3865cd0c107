//! Elements that somebody put in the place of ours. Ports are told apart by number, yet must have different names: a port whose
//! number was changed by hand stays beside ours when the two are merged, and the API server refuses both for having one name.

use crds::names;
use kube::Error;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::{Applier, doubt};
use crate::metrics::Cause;
use crate::platform::deadline::bounded;
use crate::platform::object::Object;
use crate::platform::validate::Platform;

/// Fields by which Kubernetes tells the elements of a list of ports apart.
const NUMBERS: [&str; 2] = ["containerPort", "port"];

impl Applier {
    /// Removes what stands in the way of an object that was refused; the next look applies the rest. Answers whether anything did.
    pub(super) async fn take_out_strangers(
        &self,
        platform: &Platform,
        object: &Object,
        live: &Value,
    ) -> Result<bool, Error> {
        let Some(mut patch) = removal(live, &object.manifest) else {
            return Ok(false);
        };
        doubt::tie(&mut patch, live);
        let parameters = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.metrics.write(object.key.kind, Cause::Differs);
        let api = self.api(platform, object.key.kind);
        match bounded(api.patch(&object.key.name, &parameters, &Patch::Strategic(patch))).await {
            Ok(_) => Ok(true),
            Err(Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A strategic merge patch that puts ours in the place of such elements of `live`; `None` where there are none. What others added
/// under names of their own stays.
fn removal(live: &Value, desired: &Value) -> Option<Value> {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            let fields = desired
                .iter()
                .filter_map(|(name, wanted)| Some((name.clone(), removal(live.get(name)?, wanted)?)));
            let fields: Map<String, Value> = fields.collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        (Value::Array(live), Value::Array(desired)) => of_list(live, desired),
        _ => None,
    }
}

fn of_list(live: &[Value], desired: &[Value]) -> Option<Value> {
    let all_have = |field: &str| !desired.is_empty() && desired.iter().all(|item| item.get(field).is_some());
    let found: Vec<Value> = if let Some(number) = NUMBERS.into_iter().find(|field| all_have(field)) {
        let is_stranger = |item: &&Value| {
            let wanted = |other: &Value| other[number] == item[number];
            let namesake = |other: &Value| other["name"].is_string() && other["name"] == item["name"];
            desired.iter().any(namesake) && !desired.iter().any(wanted)
        };
        let strangers = live.iter().filter(is_stranger);
        let mut found: Vec<Value> = strangers
            .map(|item| json!({number: item[number], "$patch": "delete"}))
            .collect();
        if !found.is_empty() {
            // Without them a list might be empty that must not be.
            found.extend(desired.iter().cloned());
        }
        found
    } else if all_have("name") {
        let inner = |wanted: &Value| {
            let item = live.iter().find(|item| item["name"] == wanted["name"])?;
            let mut patch = removal(item, wanted)?;
            patch["name"] = wanted["name"].clone();
            Some(patch)
        };
        desired.iter().filter_map(inner).collect()
    } else {
        Vec::new()
    };
    (!found.is_empty()).then_some(Value::Array(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_whose_number_was_changed_by_hand_is_taken_out() {
        let live = json!({"spec": {"ports": [{"name": "postgres", "port": 5555}], "type": "ClusterIP"}});
        let desired = json!({"spec": {"ports": [{"name": "postgres", "port": 5432}], "type": "ClusterIP"}});
        let expected = json!({"spec": {"ports": [{"port": 5555, "$patch": "delete"}, {"name": "postgres", "port": 5432}]}});
        assert_eq!(removal(&live, &desired), Some(expected));
    }

    #[test]
    fn so_is_one_of_a_container_and_its_neighbours_stay() {
        let live = json!({"containers": [{"name": "proxy", "ports": [{"name": "http", "containerPort": 1}]},
            {"name": "api", "ports": [{"name": "http", "containerPort": 8001}, {"name": "ops", "containerPort": 9000}, {"name": "more", "containerPort": 7}]}]});
        let desired = json!({"containers": [{"name": "api", "ports": [{"name": "http", "containerPort": 8000}, {"name": "ops", "containerPort": 9000}]}]});
        let expected = json!({"containers": [{"name": "api", "ports": [{"containerPort": 8001, "$patch": "delete"},
            {"name": "http", "containerPort": 8000}, {"name": "ops", "containerPort": 9000}]}]});
        assert_eq!(removal(&live, &desired), Some(expected));
    }

    #[test]
    fn where_nothing_is_in_the_way_nothing_is_taken_out() {
        let desired = json!({"ports": [{"name": "postgres", "port": 5432}], "args": ["serve"]});
        let live = json!({"ports": [{"name": "postgres", "port": 5432}, {"name": "metrics", "port": 9187}], "args": []});
        assert_eq!(removal(&live, &desired), None);
    }
}
