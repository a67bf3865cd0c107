//! Which live objects have no place in the platform any more.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::planted::{self, Bug};
use crate::platform::object::{Key, Kind};

/// An object to delete, with the identity that it must still have then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// Kind and name.
    pub key: Key,
    /// Its uid; a new object of the same name is spared.
    pub uid: String,
}

/// Kinds whose objects hold data or are made by others on our behalf: never pruned.
const SPARED: [Kind; 3] = [Kind::Pod, Kind::PersistentVolumeClaim, Kind::Secret];

/// Live objects that this platform owns and that are not in `keep`. Only an owner reference with our uid counts: a label can be
/// copied by anybody.
pub fn orphans(objects: &BTreeMap<Key, Value>, keep: &BTreeSet<Key>, uid: &str) -> Vec<Deletion> {
    let owned = |live: &Value| {
        live["metadata"]["ownerReferences"]
            .as_array()
            .is_some_and(|owners| owners.iter().any(|o| o["uid"] == uid))
            || planted::is(Bug::OwnerUnchecked)
    };
    objects
        .iter()
        .filter(|(key, live)| !SPARED.contains(&key.kind) && !keep.contains(key) && owned(live))
        .filter(|(_, live)| live["metadata"].get("deletionTimestamp").is_none())
        .filter_map(|(key, live)| deletion(key, live))
        .collect()
}

/// The deletion of an object as it was seen.
pub fn deletion(key: &Key, live: &Value) -> Option<Deletion> {
    Some(Deletion {
        key: key.clone(),
        uid: live["metadata"]["uid"].as_str()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_ours_and_unwanted_goes() {
        let live = |owner: &str| json!({"metadata": {"uid": "x", "ownerReferences": [{"uid": owner}]}});
        let service = |name: &str| Key::new(Kind::Service, name);
        let objects = BTreeMap::from([
            (service("wanted"), live("us")),
            (service("left-over"), live("us")),
            (service("foreign"), live("them")),
            (
                service("unowned"),
                json!({"metadata": {"uid": "x", "labels": {"tanka.dev/platform": "acme"}}}),
            ),
            (Key::new(Kind::PersistentVolumeClaim, "data"), live("us")),
        ]);
        let keep = BTreeSet::from([service("wanted")]);
        let expected = vec![Deletion {
            key: service("left-over"),
            uid: "x".to_owned(),
        }];
        assert_eq!(orphans(&objects, &keep, "us"), expected);
    }
}
