//! A replica that will not come back by itself is copied anew. Patroni rewinds or copies what it knows to have diverged; what it
//! cannot see is a replica that waits for log that no longer exists, or that decided too early that it had not diverged.

use std::time::Duration;

use super::actions::Action;
use crate::platform::observe::World;
use crate::platform::observe::patroni::{Cluster, Member};

/// Silence after which a running replica counts as stuck: several times what a restart, a rewind or a failover needs.
pub const STUCK_AFTER: Duration = Duration::from_mins(2);
/// Copies in a row after which a person has to look.
pub const MOST_COPIES: u32 = 3;

/// Whether what the replica holds is of use to nobody: it is not in the quorum, so no acknowledged write needs it, and it runs
/// without following the primary.
fn is_stuck(cluster: &Cluster, member: &Member) -> bool {
    let idle = matches!(
        member.state.as_str(),
        "running" | "in archive recovery" | "start failed" | "stopped" | "crashed"
    );
    let streams = cluster.streaming().any(|other| other.name == member.name);
    member.role == "replica" && idle && !streams
}

/// Members that have been stuck for too long.
pub fn stuck(world: &World) -> impl Iterator<Item = &Member> {
    let cluster = world
        .patroni
        .as_ref()
        .filter(|cluster| cluster.primary().is_some());
    cluster.into_iter().flat_map(move |cluster| {
        cluster.members.iter().filter(move |member| {
            is_stuck(cluster, member)
                && world
                    .silent
                    .get(&member.name)
                    .is_some_and(|silent| *silent >= STUCK_AFTER)
        })
    })
}

/// The replica to copy anew now: one at a time, while the primary takes writes, at most a few times in a row. Under synchronous
/// replication another replica must hold what was acknowledged, unless there is none that could.
pub fn reinitialize(world: &World) -> Option<Action> {
    let cluster = world.patroni.as_ref()?;
    let copying = |member: &Member| member.state == "creating replica";
    if world.primary().is_none() || cluster.paused || cluster.members.iter().any(copying) {
        return None;
    }
    stuck(world)
        .map(|member| Action::Reinitialize {
            member: member.name.clone(),
        })
        .find(|action| {
            world.commands.may(&action.name()) && world.commands.times(&action.name()) < MOST_COPIES
        })
}

/// A replica that was copied anew as often as makes sense and is stuck still.
pub fn given_up(world: &World) -> Option<&Member> {
    stuck(world).find(|member| {
        let name = Action::Reinitialize {
            member: member.name.clone(),
        }
        .name();
        world.commands.times(&name) >= MOST_COPIES
    })
}

#[cfg(test)]
mod tests {
    use crds::names::Component;

    use super::*;
    use crate::platform::fixtures::running_pod;
    use crate::platform::observe::commands::Tried;

    fn world(role: &str, state: &str, silent: u64) -> World {
        let member = |name: &str, role: &str, state: &str, timeline| Member {
            name: name.to_owned(),
            role: role.to_owned(),
            state: state.to_owned(),
            timeline: Some(timeline),
            ..Member::default()
        };
        World {
            patroni: Some(Cluster {
                members: vec![
                    member("acme-postgres-0", "leader", "running", 2),
                    member("acme-postgres-1", "quorum_standby", "streaming", 2),
                    member("acme-postgres-2", role, state, 1),
                ],
                writable: true,
                ..Cluster::default()
            }),
            pods: vec![running_pod(Component::Postgres, "acme-postgres-0")],
            silent: [("acme-postgres-2".to_owned(), Duration::from_secs(silent))].into(),
            ..World::default()
        }
    }

    fn copied(world: &World) -> bool {
        reinitialize(world).is_some()
    }

    #[test]
    fn a_replica_that_stays_behind_is_copied_anew() {
        assert!(copied(&world("replica", "running", 120)));
        assert!(copied(&world("replica", "in archive recovery", 130)));
    }

    #[test]
    fn one_that_may_still_come_or_whose_data_counts_is_left_alone() {
        assert!(!copied(&world("replica", "running", 119)), "too early");
        assert!(
            !copied(&world("quorum_standby", "running", 600)),
            "acknowledged writes may rest on it"
        );
        assert!(
            !copied(&world("replica", "creating replica", 600)),
            "it is being copied"
        );
        assert!(!copied(&world("replica", "starting", 600)), "it replays");
        let mut headless = world("replica", "running", 600);
        headless.pods.clear();
        assert!(!copied(&headless), "nobody to copy from");
    }

    #[test]
    fn copies_are_bounded() {
        let mut tired = world("replica", "running", 600);
        let tried = Tried {
            times: MOST_COPIES,
            ago: Duration::from_mins(10),
            failure: None,
        };
        tired
            .commands
            .tried
            .insert("reinitialize/acme-postgres-2".to_owned(), tried);
        assert!(!copied(&tired));
        assert_eq!(given_up(&tired).map(|m| m.name.as_str()), Some("acme-postgres-2"));
    }
}
