//! Redis after its first day: number of members, replacement of pods, and volumes. The role of the primary moves by itself when
//! its pod is stopped: the hook that runs before hands over.

use crds::names::{self, Component};
use crds::platform::redis::ManagedRedis;

use super::actions::Action;
use super::members::{self, Members};
use super::rollout::{Fleet, Step};
use super::upkeep::{self, Live, Upkeep};
use super::volumes::{self, Templates};
use crate::platform::build::redis_statefulset;
use crate::platform::observe::World;
use crate::platform::validate::Platform;
use crds::conditions::Reason;

/// Decides.
pub fn upkeep(platform: &Platform, redis: &ManagedRedis, world: &World) -> Upkeep {
    let name = names::component(&platform.name, Component::Redis);
    let live = Live::of(world, &name);
    let fleet = fleet(world, &live);
    let wanted = redis.replicas;
    // Members know how many they are, so those that are not wanted go together and the others learn the new number at once.
    let members = members::decide(wanted, live.replicas, &fleet, i32::MAX);
    let asked = ManagedRedis {
        replicas: members.number(),
        ..redis.clone()
    };
    let set = redis_statefulset::build(platform, &asked);
    let volumes = volumes::decide(world, &name, &set.manifest);
    let (mut actions, finding) = if volumes.templates == Templates::Remake {
        (Vec::new(), None)
    } else if live.replicas.is_some_and(|live| live > wanted) {
        shrink(&name, wanted, &members, &fleet, world)
    } else if live.replicas == Some(wanted) {
        roll(&name, &live, &fleet, world)
    } else {
        (Vec::new(), None)
    };
    actions.extend(volumes.actions);
    Upkeep {
        set: upkeep::with_templates(set, &volumes.templates),
        members: live.replicas.unwrap_or(0).max(wanted),
        actions,
        finding: volumes.obstacle.or(finding),
    }
}

fn fleet(world: &World, live: &Live) -> Fleet {
    let view = world.sentinel.as_ref();
    let primary = view
        .filter(|view| view.primary_up)
        .map(|view| view.primary.clone());
    let in_step =
        |name: &str| primary.as_deref() == Some(name) || view.is_some_and(|view| view.in_step.contains(name));
    upkeep::fleet(world, Component::Redis, live, primary.clone(), |pod| {
        in_step(&pod.name)
    })
}

type Decision = (Vec<Action>, Option<(Reason, String)>);

fn shrink(name: &str, wanted: i32, members: &Members, fleet: &Fleet, world: &World) -> Decision {
    let finding = |what: &str| {
        let live = fleet.wanted;
        Some((
            Reason::RollingOut,
            format!("{name} goes from {live} to {wanted} members; {what}"),
        ))
    };
    match members {
        Members::Ask(_) => (Vec::new(), finding("the others go now")),
        Members::Hold(_) => (Vec::new(), finding("waits until those that stay are in step")),
        Members::MovePrimary(_) => {
            let primary = fleet
                .members
                .iter()
                .find(|member| fleet.primary.as_ref() == Some(&member.name));
            let ready = fleet.is_whole() && could_fail_over(world);
            let actions = primary
                .filter(|_| ready)
                .map(|member| paced(world, upkeep::delete(fleet, member)));
            (
                actions.unwrap_or_default(),
                finding("the primary hands over first"),
            )
        }
    }
}

fn roll(name: &str, live: &Live, fleet: &Fleet, world: &World) -> Decision {
    let next = match fleet.next() {
        Step::Done => return (Vec::new(), upkeep::unsettled(name, live, fleet)),
        Step::Wait => None,
        Step::Replace(member) => Some(member),
        Step::HandOver(member) => Some(member).filter(|_| could_fail_over(world)),
    };
    let actions = next.map(|member| paced(world, upkeep::delete(fleet, &member)));
    let actions = actions.unwrap_or_default();
    (actions, Some(upkeep::progress(name, fleet)))
}

/// FC29: whether every Sentinel knows every replica, and enough of them agree.
fn could_fail_over(world: &World) -> bool {
    world
        .sentinel
        .as_ref()
        .is_some_and(|view| view.blind.is_empty() && view.quorum_problem.is_none())
}

fn paced(world: &World, action: Action) -> Vec<Action> {
    if world.commands.may(&action.name()) {
        vec![action]
    } else {
        Vec::new()
    }
}
