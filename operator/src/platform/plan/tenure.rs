//! Who owns what outlives its pods: volumes, credentials and Patroni's state. Owned by the platform they go with it, without an
//! owner they stay. The policy can change at any time, so it is compared with what is there at every look.

use crds::names;
use crds::platform::DeletionPolicy;
use serde_json::Value;

use crate::platform::build::metadata;
use crate::platform::build::postgres_access;
use crate::platform::object::{Key, Kind};
use crate::platform::observe::World;
use crate::platform::validate::Platform;

/// A change of owners, of the object as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenure {
    /// Kind and name.
    pub key: Key,
    /// Its uid; a new object of the same name is left alone.
    pub uid: String,
    /// Its version; an object that has changed since is looked at again first.
    pub resource_version: String,
    /// All owners that it is to have.
    pub owners: Vec<Value>,
}

/// The changes that make owners fit the deletion policy.
pub fn changes(platform: &Platform, world: &World) -> Vec<Tenure> {
    let candidates = world.objects.iter().filter(|(key, _)| is_kept(platform, key));
    candidates
        .filter(|(_, live)| live["metadata"].get("deletionTimestamp").is_none())
        .filter_map(|(key, live)| {
            let present = live["metadata"]["ownerReferences"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let owners = wanted(platform, &present)?;
            (owners != present).then(|| {
                Some(Tenure {
                    key: key.clone(),
                    uid: live["metadata"]["uid"].as_str()?.to_owned(),
                    resource_version: live["metadata"]["resourceVersion"].as_str()?.to_owned(),
                    owners,
                })
            })?
        })
        .collect()
}

/// Whether an object is one of those that outlive their pods. The caches hold only volumes of this platform; Secrets and Patroni's
/// ConfigMaps are told by name.
fn is_kept(platform: &Platform, key: &Key) -> bool {
    match key.kind {
        Kind::PersistentVolumeClaim | Kind::Secret => true,
        Kind::ConfigMap => postgres_access::state(platform).contains(&key.name),
        _ => false,
    }
}

/// The owners that an object should have, given those that it has. `None` where somebody else has a say: an earlier platform of the
/// same name, whose things are about to go with it, or somebody whose object has our name by chance.
fn wanted(platform: &Platform, present: &[Value]) -> Option<Vec<Value>> {
    // The StatefulSet's controller keeps a reference of its own on the volumes of its members, by the same policy.
    let is_set = |owner: &Value| {
        owner["kind"] == "StatefulSet"
            && owner["name"]
                .as_str()
                .is_some_and(|name| name.starts_with(&format!("{}-", platform.name)))
    };
    let is_us = |owner: &Value| owner["uid"] == platform.uid;
    if !present.iter().all(|owner| is_us(owner) || is_set(owner)) {
        return None;
    }
    match platform.spec.deletion_policy {
        DeletionPolicy::Retain => Some(Vec::new()),
        DeletionPolicy::Delete if present.iter().any(is_us) => Some(present.to_vec()),
        DeletionPolicy::Delete => {
            let mut owner = metadata::owner(platform);
            // A volume may have the StatefulSet for its controller, and there can be only one.
            owner["controller"] = Value::Bool(false);
            Some(present.iter().cloned().chain([owner]).collect())
        }
    }
}

/// Secrets that the platform needs and that belong to somebody else: what would read them must not start.
pub fn foreign_secrets<'a>(platform: &'a Platform, world: &'a World) -> impl Iterator<Item = &'a Key> {
    world
        .objects
        .iter()
        .filter(|(key, live)| {
            key.kind == Kind::Secret && !crate::platform::object::is_ours(live, &platform.name, &platform.uid)
        })
        .map(|(key, _)| key)
}

/// Whether an object's pods would read a Secret. The API reads those of all parts.
pub fn reads(platform: &Platform, manifest: &Value, secret: &str) -> bool {
    use names::Component;
    let component = &manifest["metadata"]["labels"][names::COMPONENT_LABEL];
    let is = |wanted: Component| *component == wanted.as_str();
    let of = |wanted: Component| names::component(&platform.name, wanted) == secret;
    is(Component::Api)
        || (is(Component::Migration) && of(Component::Postgres))
        || (is(Component::Postgres) && of(Component::Postgres))
        || (is(Component::Redis) && of(Component::Redis))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::platform::fixtures::platform;

    const US: &str = "0b9f1f5e-0000-4000-8000-000000000001";

    fn holding(kind: Kind, name: &str, owners: &Value) -> World {
        let live = json!({"metadata": {"uid": "x", "resourceVersion": "7", "ownerReferences": owners}});
        World {
            objects: [(Key::new(kind, name), live)].into(),
            ..World::default()
        }
    }

    fn us() -> Value {
        json!({"kind": "TankaPlatform", "name": "acme", "uid": US})
    }

    fn set() -> Value {
        json!({"kind": "StatefulSet", "name": "acme-postgres", "uid": "set", "controller": true})
    }

    #[rstest]
    #[case::secret(Kind::Secret, "acme-postgres")]
    #[case::volume(Kind::PersistentVolumeClaim, "data-acme-postgres-4")]
    #[case::state(Kind::ConfigMap, "acme-postgres-leader")]
    fn the_policy_decides_in_both_directions(#[case] kind: Kind, #[case] name: &str) {
        let delete = platform(json!({"deletionPolicy": "Delete"}));
        let unowned = holding(kind, name, &json!([]));
        let found = changes(&delete, &unowned);
        assert_eq!(found[0].owners[0]["uid"], US);
        assert_eq!(
            (found[0].uid.as_str(), found[0].resource_version.as_str()),
            ("x", "7")
        );
        let retain = platform(json!({}));
        assert_eq!(changes(&retain, &unowned), Vec::new());
        let owned = holding(kind, name, &json!([us()]));
        assert_eq!(changes(&delete, &owned), Vec::new());
        assert_eq!(changes(&retain, &owned)[0].owners, Vec::<Value>::new());
    }

    #[test]
    fn a_volume_that_the_set_left_behind_is_kept_too() {
        let world = holding(
            Kind::PersistentVolumeClaim,
            "data-acme-postgres-4",
            &json!([set(), us()]),
        );
        assert_eq!(
            changes(&platform(json!({})), &world)[0].owners,
            Vec::<Value>::new()
        );
    }

    #[test]
    fn what_somebody_else_owns_is_left_alone() {
        let theirs = json!([{"kind": "TankaPlatform", "name": "acme", "uid": "an earlier one"}]);
        for policy in ["Retain", "Delete"] {
            let world = holding(Kind::PersistentVolumeClaim, "data-acme-postgres-0", &theirs);
            assert_eq!(
                changes(&platform(json!({"deletionPolicy": policy})), &world),
                Vec::new()
            );
        }
    }

    #[test]
    fn ordinary_objects_are_none_of_this() {
        let world = holding(Kind::ConfigMap, "acme-api-config", &json!([us()]));
        assert_eq!(changes(&platform(json!({})), &world), Vec::new());
    }
}
