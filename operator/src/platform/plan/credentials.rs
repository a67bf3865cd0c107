//! A Secret that is gone comes back with the values that were seen last. Where nobody remembers them, new ones help only if nothing
//! holds the old ones any more.

use crds::names::{self, Component};

use crate::platform::object::Kind;
use crate::platform::observe::World;
use crate::platform::observe::pods::Pod;
use crate::platform::validate::Platform;

/// Whether data or processes still hold what was in a Secret: drawn anew, it would lock everybody out of them.
pub fn are_held(platform: &Platform, world: &World, secret: &str) -> bool {
    let is_of = |component| names::component(&platform.name, component) == secret;
    if is_of(Component::Postgres) {
        let volumes = format!("data-{secret}-");
        let mut keys = world.objects.keys();
        return keys.any(|key| key.kind == Kind::PersistentVolumeClaim && key.name.starts_with(&volumes));
    }
    // A member that is not ready would be given the new ones when it starts again.
    let is_member = |pod: &Pod| pod.component == Component::Redis.as_str() && pod.ready;
    is_of(Component::Redis) && world.pods.iter().any(is_member)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::platform::fixtures::{platform, running_pod};
    use crate::platform::object::Key;

    #[rstest]
    #[case::nothing_yet("acme-postgres", None, None, false)]
    #[case::volume("acme-postgres", Some("data-acme-postgres-0"), None, true)]
    #[case::volume_of_redis("acme-postgres", Some("data-acme-redis-0"), None, false)]
    #[case::member("acme-redis", None, Some(Component::Redis), true)]
    #[case::redis_holds_no_password_on_its_volume("acme-redis", Some("data-acme-redis-0"), None, false)]
    #[case::the_api_takes_new_ones("acme-api", Some("data-acme-postgres-0"), Some(Component::Api), false)]
    fn credentials_are_drawn_only_where_nothing_holds_the_old_ones(
        #[case] secret: &str,
        #[case] volume: Option<&str>,
        #[case] pod: Option<Component>,
        #[case] held: bool,
    ) {
        let claim = |name: &str| (Key::new(Kind::PersistentVolumeClaim, name), json!({}));
        let world = World {
            objects: volume.map(claim).into_iter().collect(),
            pods: pod
                .map(|component| running_pod(component, "a-pod"))
                .into_iter()
                .collect(),
            ..World::default()
        };
        assert_eq!(are_held(&platform(json!({})), &world, secret), held);
    }
}
