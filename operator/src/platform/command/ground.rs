//! Whether an action still stands on what it was decided upon.

use crds::names::{self, Component};

use crate::platform::object::{Key, Kind, is_ours};
use crate::platform::observe::World;
use crate::platform::plan::actions::Action;
use crate::platform::validate::Platform;

/// Pods and volumes are found by their labels and names, which anybody can copy: they are touched only while the StatefulSet that
/// they belong to is ours.
pub(super) fn is_own(platform: &Platform, world: &World, action: &Action) -> bool {
    let component = match action {
        Action::OrphanStatefulSet { name, .. } | Action::DeletePod { name, .. } => name.clone(),
        Action::ResizeVolume { claim, .. } => claim.trim_start_matches("data-").to_owned(),
        _ => return true,
    };
    let mut sets = world
        .objects
        .iter()
        .filter(|(key, _)| key.kind == Kind::StatefulSet);
    sets.any(|(key, live)| component.starts_with(&key.name) && is_ours(live, &platform.name, &platform.uid))
}

/// Whether an action that replaces a pod was decided upon a StatefulSet that was not what the spec says. Somebody may have changed it
/// by hand: then its pods count as outdated until it has been changed back, and nothing is wrong with them.
pub(super) fn is_lost(platform: &Platform, world: &World, action: &Action) -> bool {
    let moved = |component| {
        let set = names::component(&platform.name, component);
        world.moved.contains(&Key::new(Kind::StatefulSet, set))
    };
    match action {
        Action::DeletePod { name, .. } => {
            [Component::Postgres, Component::Redis]
                .into_iter()
                .any(|component| {
                    name.starts_with(&names::component(&platform.name, component)) && moved(component)
                })
        }
        Action::Switchover { .. } => moved(Component::Postgres),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::fixtures::platform;

    /// A template that somebody changed by hand, and that was changed back just now, restarts nothing.
    #[test]
    fn no_pod_is_replaced_on_the_word_of_a_set_that_has_moved() {
        let platform = platform(json!({}));
        let delete = Action::DeletePod {
            name: "acme-redis-0".to_owned(),
            uid: "u".to_owned(),
            relying_on: Vec::new(),
        };
        let switchover = Action::Switchover {
            from: "acme-postgres-0".to_owned(),
            to: None,
        };
        let restart = Action::Restart {
            member: "acme-postgres-0".to_owned(),
        };
        let moved = |set: &str| World {
            moved: [Key::new(Kind::StatefulSet, set)].into(),
            ..World::default()
        };
        let lost = |set: &str, action| is_lost(&platform, &moved(set), action);
        assert!(lost("acme-redis", &delete) && lost("acme-postgres", &switchover));
        assert!(!lost("acme-postgres", &delete) && !lost("acme-redis", &switchover));
        assert!(!lost("acme-postgres", &restart));
    }
}
