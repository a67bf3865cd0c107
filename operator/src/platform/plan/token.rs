//! A pod's token is bound to the ServiceAccount that there was when the pod was made. Deleted and made again, the account has another
//! uid: the API server refuses the old tokens, nothing renews them, and Patroni, which keeps its state there, loses its lock. Only new
//! pods mend that.

use std::collections::BTreeSet;

use super::rollout::Fleet;
use crate::platform::object::{Key, Kind, is_ours};
use crate::platform::observe::World;
use crate::platform::observe::pods::created;
use crate::platform::validate::Platform;

/// Pods of the fleet that are older than the account whose token they hold. Times are whole seconds: a pod of the same second counts
/// as younger, as it is after every first creation.
fn void(fleet: &Fleet, world: &World, account: &str) -> BTreeSet<String> {
    let account = world.objects.get(&Key::new(Kind::ServiceAccount, account));
    let Some(since) = account.and_then(created) else {
        return BTreeSet::new();
    };
    let older = world
        .pods
        .iter()
        .filter(|pod| pod.created.is_some_and(|made| made < since));
    older
        .filter(|pod| fleet.members.iter().any(|member| member.uid == pod.uid))
        .map(|pod| pod.uid.clone())
        .collect()
}

/// Whether the account that is there is one of an earlier platform, or on its way out: pods that were made now would soon hold void
/// tokens.
pub fn account_is_going(platform: &Platform, world: &World, account: &str) -> bool {
    let account = world.objects.get(&Key::new(Kind::ServiceAccount, account));
    account.is_some_and(|live| {
        live["metadata"].get("deletionTimestamp").is_some() || !is_ours(live, &platform.name, &platform.uid)
    })
}

/// Marks members whose token is void as outdated, and those of them that are not well as broken: they cannot become well. Says
/// whether there are any.
pub fn mark(fleet: &mut Fleet, world: &World, account: &str) -> bool {
    let void = void(fleet, world, account);
    for member in fleet.members.iter_mut().filter(|m| void.contains(&m.uid)) {
        member.outdated = true;
        member.broken |= !member.well && !member.leaving;
    }
    !void.is_empty()
}

#[cfg(test)]
mod tests {
    use crds::names::Component;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::platform::fixtures::{platform, running_pod};
    use crate::platform::observe::pods::Pod;
    use crate::platform::plan::rollout::{Member, Step};

    const ACCOUNT: &str = "acme-postgres";

    fn world(pods: &[&str], account: &str) -> World {
        let pods = pods.iter().enumerate().map(|(ordinal, made)| Pod {
            created: Some(made.parse().unwrap()),
            ..running_pod(Component::Postgres, &format!("{ACCOUNT}-{ordinal}"))
        });
        World {
            pods: pods.collect(),
            objects: [(
                Key::new(Kind::ServiceAccount, ACCOUNT),
                json!({"metadata": {"creationTimestamp": account}}),
            )]
            .into(),
            ..World::default()
        }
    }

    fn fleet(world: &World, well: bool, primary: Option<&str>) -> Fleet {
        let members = world.pods.iter().zip(0..).map(|(pod, ordinal)| Member {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            ordinal,
            well,
            ..Member::default()
        });
        Fleet {
            members: members.collect(),
            primary: primary.map(str::to_owned),
            wanted: world.pods.len(),
        }
    }

    const BEFORE: &str = "2026-11-21T12:00:00Z";
    const THEN: &str = "2026-11-21T12:00:10Z";
    const AFTER: &str = "2026-11-21T12:00:20Z";

    #[rstest]
    #[case::older(BEFORE, true)]
    #[case::of_the_same_second(THEN, false)]
    #[case::younger(AFTER, false)]
    fn only_pods_older_than_their_account_are_replaced(#[case] made: &str, #[case] replaced: bool) {
        let world = world(&[made], THEN);
        let mut fleet = fleet(&world, true, Some("acme-postgres-0"));
        assert_eq!(mark(&mut fleet, &world, ACCOUNT), replaced);
        assert_eq!(fleet.next() != Step::Done, replaced);
    }

    /// While there is a primary, as any rollout: replicas first.
    #[test]
    fn replicas_go_before_the_primary() {
        let world = world(&[BEFORE; 3], THEN);
        let mut fleet = fleet(&world, true, Some("acme-postgres-2"));
        mark(&mut fleet, &world, ACCOUNT);
        assert!(matches!(fleet.next(), Step::Replace(member) if member.ordinal == 1));
    }

    /// Once Patroni has lost its lock nobody is well, and waiting would be for ever.
    #[test]
    fn without_a_primary_they_go_one_after_the_other() {
        let world = world(&[BEFORE, BEFORE, AFTER], THEN);
        let mut fleet = fleet(&world, false, None);
        mark(&mut fleet, &world, ACCOUNT);
        assert!(matches!(fleet.next(), Step::Replace(member) if member.ordinal == 1));
        fleet.members[2].leaving = true;
        assert_eq!(fleet.next(), Step::Wait);
    }

    #[rstest]
    #[case::there(json!({"ownerReferences": [{"uid": "OURS"}]}), false)]
    #[case::of_an_earlier_platform(json!({"ownerReferences": [{"uid": "earlier"}]}), true)]
    #[case::deleted(json!({"ownerReferences": [{"uid": "OURS"}], "deletionTimestamp": THEN}), true)]
    fn instances_wait_until_an_earlier_account_is_gone(#[case] metadata: Value, #[case] going: bool) {
        let platform = platform(json!({}));
        let text = metadata.to_string().replace("OURS", &platform.uid);
        let metadata: Value = serde_json::from_str(&text).unwrap();
        let mut world = world(&[], THEN);
        world.objects.insert(
            Key::new(Kind::ServiceAccount, ACCOUNT),
            json!({"metadata": metadata}),
        );
        assert_eq!(account_is_going(&platform, &world, ACCOUNT), going);
    }

    #[test]
    fn a_world_without_the_account_says_nothing_about_its_tokens() {
        let mut world = world(&[BEFORE], THEN);
        world.objects.clear();
        let mut fleet = fleet(&world, true, Some("acme-postgres-0"));
        assert!(!mark(&mut fleet, &world, ACCOUNT));
        assert_eq!(fleet.next(), Step::Done);
    }
}
