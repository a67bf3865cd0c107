//! Patroni's `ConfigMaps`. They belong to the data: they tell who was the last primary and who holds every acknowledged write, so
//! they stay as long as the volumes do (`tenure` sees to that), and no longer.

use crds::names::{self, Component};

use super::actions::Action;
use crate::platform::object::{Key, Kind};
use crate::platform::observe::World;
use crate::platform::validate::Platform;

/// What to do about them.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// They are in order, or it is not known that they are not.
    Kept,
    /// They tell of volumes that are gone: new instances would wait for ever for a primary that cannot come back. Until they are
    /// gone too, no instance may start.
    Stale(Vec<Action>),
}

/// Decides.
pub fn decide(platform: &Platform, world: &World) -> State {
    let set = names::component(&platform.name, Component::Postgres);
    let exists = world.objects.contains_key(&Key::new(Kind::StatefulSet, &set));
    let Some(maps) = &world.patroni_state else {
        return State::Kept;
    };
    let prefix = format!("data-{set}-");
    let has_data = world
        .objects
        .keys()
        .any(|key| key.kind == Kind::PersistentVolumeClaim && key.name.starts_with(&prefix));
    let has_pods = world
        .pods
        .iter()
        .any(|pod| pod.component == Component::Postgres.as_str());
    if !exists && !has_data && !has_pods && !maps.is_empty() {
        let actions = maps.iter().map(|map| Action::DiscardState {
            name: map.name.clone(),
            uid: map.uid.clone(),
        });
        return State::Stale(
            actions
                .filter(|action| world.commands.may(&action.name()))
                .collect(),
        );
    }
    State::Kept
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::platform::fixtures::platform;
    use crate::platform::observe::state::StateMap;

    fn world(others: &[(Kind, &str)]) -> World {
        World {
            patroni_state: Some(vec![StateMap {
                name: "acme-postgres-config".to_owned(),
                uid: "m".to_owned(),
            }]),
            objects: others
                .iter()
                .map(|(kind, name)| (Key::new(*kind, *name), Value::Null))
                .collect(),
            ..World::default()
        }
    }

    const SET: (Kind, &str) = (Kind::StatefulSet, "acme-postgres");
    const CLAIM: (Kind, &str) = (Kind::PersistentVolumeClaim, "data-acme-postgres-2");

    #[test]
    fn state_without_data_is_discarded_before_anything_starts() {
        let platform = platform(json!({}));
        let State::Stale(actions) = decide(&platform, &world(&[])) else {
            panic!("kept")
        };
        assert_eq!(actions.len(), 1);
    }

    #[test]
    fn state_stays_as_long_as_there_is_data() {
        let platform = platform(json!({}));
        assert_eq!(decide(&platform, &world(&[CLAIM])), State::Kept);
        assert_eq!(decide(&platform, &world(&[SET])), State::Kept);
        assert_eq!(
            decide(&platform, &World::default()),
            State::Kept,
            "nobody has looked"
        );
    }
}
