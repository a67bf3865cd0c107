//! Controllers of Kubernetes wait longer and longer after a pod was refused, up to a quarter of an hour. A platform whose quota was
//! raised should not: while pods are refused their controller is reminded now and then.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::platform::object::Key;
use crate::platform::observe::World;

/// Annotation with the time of the last reminder.
pub const ANNOTATION: &str = "tanka.dev/reminded-at";
/// Time between reminders.
const PAUSE: SignedDuration = SignedDuration::from_secs(6);

/// Objects whose controller is to be reminded.
pub fn due(world: &World) -> Vec<Key> {
    let rests = |live: &Value| {
        let last = live["metadata"]["annotations"][ANNOTATION].as_str();
        let last: Option<Timestamp> = last.and_then(|time| time.parse().ok());
        last.is_some_and(|last| world.now.duration_since(last) < PAUSE)
    };
    world
        .refused
        .iter()
        .filter(|key| world.objects.get(*key).is_some_and(|live| !rests(live)))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::object::Kind;

    #[test]
    fn a_controller_is_reminded_now_and_then_while_its_pods_are_refused() {
        let key = Key::new(Kind::StatefulSet, "acme-redis");
        let at = |text: &str| text.parse().unwrap();
        let reminded = json!({"metadata": {"annotations": {ANNOTATION: "2026-11-21T12:00:00Z"}}});
        let mut world = World {
            now: at("2026-11-21T12:00:05Z"),
            objects: [(key.clone(), reminded)].into(),
            ..World::default()
        };
        assert_eq!(due(&world), Vec::new(), "nothing is refused");
        world.refused.insert(key.clone());
        assert_eq!(due(&world), Vec::new(), "it was reminded just now");
        world.now = at("2026-11-21T12:00:06Z");
        assert_eq!(due(&world), vec![key.clone()]);
        world.objects.insert(key.clone(), json!({"metadata": {}}));
        assert_eq!(due(&world), vec![key]);
    }
}
