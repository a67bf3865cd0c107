//! PostgreSQL after its first day: parameters, number of instances, replacement of pods, volumes, repair, and Patroni's own state.

use crds::conditions::Reason;
use crds::names::{self, Component};
use crds::platform::postgres::{ManagedPostgres, Synchronous};
use serde_json::json;

use super::actions::Action;
use super::members::{self, Members};
use super::rollout::{Fleet, Step};
use super::state::{self, State};
use super::token;
use super::upkeep::{self, Live, Upkeep};
use super::volumes::{self, Templates};
use super::{parameters, repair, switchover};
use crate::platform::build::{postgres_patroni, postgres_statefulset};
use crate::platform::observe::World;
use crate::platform::observe::patroni::Cluster;
use crate::platform::validate::Platform;

/// Tries after which a request that Patroni refuses is told instead of waited for.
const PATIENT_TRIES: u32 = 3;

/// Decides.
pub fn upkeep(platform: &Platform, postgres: &ManagedPostgres, world: &World) -> Upkeep {
    let name = names::component(&platform.name, Component::Postgres);
    let live = Live::of(world, &name);
    let mut set = postgres_statefulset::build(platform, postgres);
    let volumes = volumes::decide(world, &name, &set.manifest);
    let mut fleet = fleet(postgres, world, &live);
    let locked_out = token::mark(&mut fleet, world, &name);
    let look = Look {
        name: &name,
        postgres,
        world,
        live: &live,
        fleet,
        locked_out,
    };
    let (number, mut actions, finding) = look.at_instances(&volumes.templates);
    set.manifest["spec"]["replicas"] = json!(number);
    let mut set = upkeep::with_templates(set, &volumes.templates);
    actions.extend(volumes.actions);
    if !live.exists && token::account_is_going(platform, world, &name) {
        set = None;
    }
    if let State::Stale(more) = state::decide(platform, world) {
        actions.extend(more);
        set = None;
    }
    Upkeep {
        set,
        members: live.replicas.unwrap_or(0).max(postgres.instances),
        actions,
        finding: given_up(world).or(volumes.obstacle).or(finding),
    }
}

fn given_up(world: &World) -> Option<(Reason, String)> {
    let member = repair::given_up(world)?;
    let message = format!(
        "{} does not stream although it was copied anew {} times: look at its log, mend the cause and delete the pod",
        member.name,
        repair::MOST_COPIES
    );
    Some((Reason::ReplicaBroken, message))
}

fn fleet(postgres: &ManagedPostgres, world: &World, live: &Live) -> Fleet {
    let primary = world.primary().map(|member| member.name.clone());
    let in_step = |name: &str| {
        let cluster = world.patroni.as_ref();
        primary.as_deref() == Some(name)
            || cluster.is_some_and(|cluster| {
                let mut streaming = cluster.streaming();
                streaming
                    .any(|member| member.name == name && (!is_synchronous(postgres) || member.in_quorum()))
            })
    };
    upkeep::fleet(world, Component::Postgres, live, primary.clone(), |pod| {
        in_step(&pod.name)
    })
}

fn is_synchronous(postgres: &ManagedPostgres) -> bool {
    postgres.synchronous != Synchronous::Async
}

/// One look at the instances.
struct Look<'a> {
    name: &'a str,
    postgres: &'a ManagedPostgres,
    world: &'a World,
    live: &'a Live,
    fleet: Fleet,
    /// Whether members hold tokens that the API server refuses.
    locked_out: bool,
}

type Finding = Option<(Reason, String)>;

impl Look<'_> {
    /// How many instances to ask for, what to do to them, and how things stand.
    fn at_instances(&self, templates: &Templates) -> (i32, Vec<Action>, Finding) {
        let wanted = self.postgres.instances;
        let held = self.live.replicas.map_or(wanted, |live| live.max(wanted));
        let cluster = self.world.patroni.as_ref();
        if cluster.is_some_and(|cluster| cluster.paused) {
            let message = format!(
                "Patroni of {} was paused by hand: resume it, so that changes can go on",
                self.name
            );
            return (held, Vec::new(), Some((Reason::Paused, message)));
        }
        if self.locked_out {
            // Before all else: a Patroni that cannot write its state can do nothing of what follows.
            let message = format!(
                "pods of {} hold tokens of a ServiceAccount that was deleted, and are replaced one after the other",
                self.name
            );
            return (held, self.roll().0, Some((Reason::RollingOut, message)));
        }
        if let Some((actions, finding)) = self.set_parameters() {
            return (held, actions, Some(finding));
        }
        let members = members::decide(wanted, self.live.replicas, &self.fleet, 1);
        if self.live.replicas.is_some_and(|live| live > wanted) {
            let (actions, finding) = self.shrink(&members);
            return (members.number(), actions, Some(finding));
        }
        if self.live.replicas != Some(wanted) || *templates == Templates::Remake {
            let before = self
                .live
                .replicas
                .filter(|live| self.live.exists && *live < wanted);
            let growing = before.map(|live| {
                let message = format!("{} goes from {live} to {wanted} instances", self.name);
                (Reason::RollingOut, message)
            });
            return (members.number(), Vec::new(), growing);
        }
        let (actions, finding) = self.roll();
        (members.number(), actions, finding)
    }

    /// Brings Patroni's store to the spec before anything else: what follows may rest on it.
    fn set_parameters(&self) -> Option<(Vec<Action>, (Reason, String))> {
        let stored = self.world.patroni.as_ref()?.config.as_ref()?;
        let patch = parameters::patch(stored, &postgres_patroni::dynamic_part(self.postgres))?;
        let action = Action::SetParameters { patch };
        let commands = &self.world.commands;
        let name = action.name();
        let finding = match commands.failure(&name) {
            Some(words) if commands.times(&name) >= PATIENT_TRIES => (
                Reason::ApplyFailed,
                format!("Patroni of {} does not take its settings: {words}", self.name),
            ),
            _ => (
                Reason::RollingOut,
                format!("settings of {} are brought to the spec", self.name),
            ),
        };
        Some((self.paced(action), finding))
    }

    fn shrink(&self, members: &Members) -> (Vec<Action>, (Reason, String)) {
        let wanted = self.postgres.instances;
        let say = |what: &str| {
            let live = self.live.replicas.unwrap_or(0);
            (
                Reason::RollingOut,
                format!("{} goes from {live} to {wanted} instances; {what}", self.name),
            )
        };
        match members {
            Members::Ask(_) => (Vec::new(), say("the one with the highest number goes next")),
            Members::Hold(_) => (
                self.repair(),
                say("waits until those that stay are in step and those that go are gone"),
            ),
            Members::MovePrimary(_) => {
                let stays = |name: &str| {
                    self.fleet
                        .members
                        .iter()
                        .any(|m| m.name == name && m.ordinal < wanted && m.well)
                };
                let finding = say("the primary's role moves to one that stays");
                (self.hand_over(Some(&stays)), finding)
            }
        }
    }

    fn roll(&self) -> (Vec<Action>, Finding) {
        let fleet = &self.fleet;
        match fleet.next() {
            Step::Done => match upkeep::unsettled(self.name, self.live, fleet) {
                Some(finding) => (self.repair(), Some(finding)),
                None => self.restart(),
            },
            Step::Wait => (self.repair(), Some(upkeep::progress(self.name, fleet))),
            Step::Replace(member) => (
                self.paced(upkeep::delete(fleet, &member)),
                Some(upkeep::progress(self.name, fleet)),
            ),
            Step::HandOver(_) => (self.hand_over(None), Some(upkeep::progress(self.name, fleet))),
        }
    }

    /// Restarts what waits for it; otherwise repairs what is stuck.
    fn restart(&self) -> (Vec<Action>, Finding) {
        let waiting = |cluster: &Cluster| {
            let members = cluster.members.iter().filter(|member| member.pending_restart);
            members.map(|member| member.name.clone()).collect::<Vec<_>>()
        };
        let names = self.world.patroni.as_ref().map(waiting).unwrap_or_default();
        if names.is_empty() {
            return (self.repair(), None);
        }
        let message = format!(
            "parameters of {} wait for a restart of {}",
            self.name,
            names.join(", ")
        );
        let finding = Some((Reason::RollingOut, message));
        if !self.fleet.is_whole() {
            return (self.repair(), finding);
        }
        let synchronous = is_synchronous(self.postgres);
        let action = self
            .world
            .patroni
            .as_ref()
            .and_then(|cluster| parameters::restart(cluster, synchronous));
        (
            action.map(|action| self.paced(action)).unwrap_or_default(),
            finding,
        )
    }

    fn repair(&self) -> Vec<Action> {
        repair::reinitialize(self.world).into_iter().collect()
    }

    /// Asks for the primary's role to move: to the best of those that `stays` admits, or, where all are as good, to any.
    fn hand_over(&self, stays: Option<&dyn Fn(&str) -> bool>) -> Vec<Action> {
        let Some((cluster, primary)) = self.world.patroni.as_ref().zip(self.world.primary()) else {
            return Vec::new();
        };
        let eligible = |name: &str| stays.is_none_or(|stays| stays(name));
        let best = switchover::candidate(cluster, is_synchronous(self.postgres), eligible);
        best.map(|best| {
            self.paced(Action::Switchover {
                from: primary.name.clone(),
                to: stays.map(|_| best),
            })
        })
        .unwrap_or_default()
    }

    fn paced(&self, action: Action) -> Vec<Action> {
        if self.world.commands.may(&action.name()) {
            vec![action]
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests;
