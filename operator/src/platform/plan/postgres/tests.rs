//! A small PostgreSQL cluster that does what it is asked, and a plan that is asked again and again: what must hold on the way, and
//! where it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::platform::fixtures::platform;
use crate::platform::object::{Key, Kind};
use crate::platform::observe::commands::Tried;
use crate::platform::observe::patroni::{Change, Member};
use crate::platform::observe::pods::{Pod, Problem};
use crate::platform::validate::Database;

/// Looks that a member needs to come back.
const AWAY: u8 = 2;

#[derive(Debug, Clone)]
struct Instance {
    incarnation: u32,
    revision: String,
    /// Looks until it is in step; 0 when it is.
    away: u8,
    runs_with: i64,
    broken: bool,
}

/// The cluster. It keeps book of what must never happen.
#[derive(Debug, Clone)]
struct Simulation {
    instances: BTreeMap<i32, Instance>,
    replicas: i32,
    revision: String,
    primary: i32,
    config: Value,
    /// Images that do not start.
    bad: String,
    handovers: u32,
}

impl Simulation {
    fn new(postgres: &ManagedPostgres, primary: i32) -> Self {
        let instance = Instance {
            incarnation: 0,
            revision: "first".to_owned(),
            away: 0,
            runs_with: 200,
            broken: false,
        };
        Self {
            instances: (0..postgres.instances).map(|i| (i, instance.clone())).collect(),
            replicas: postgres.instances,
            revision: "first".to_owned(),
            primary,
            config: postgres_patroni::dynamic_part(postgres),
            bad: String::new(),
            handovers: 0,
        }
    }

    fn configured(&self) -> i64 {
        let value = &self.config["postgresql"]["parameters"]["max_connections"];
        value.as_str().and_then(|text| text.parse().ok()).unwrap_or(100)
    }

    fn name(ordinal: i32) -> String {
        format!("acme-postgres-{ordinal}")
    }

    fn ordinal(name: &str) -> i32 {
        name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap()
    }

    fn world(&self) -> World {
        let set = json!({
            "metadata": {"uid": "s", "generation": 1},
            "spec": {"replicas": self.replicas, "volumeClaimTemplates": Self::templates()},
            "status": {"observedGeneration": 1, "updateRevision": self.revision},
        });
        let pods = self.instances.iter().map(|(ordinal, instance)| Pod {
            name: Self::name(*ordinal),
            uid: format!("{ordinal}-{}", instance.incarnation),
            revision: Some(instance.revision.clone()),
            component: "postgres".to_owned(),
            ip: Some("10.0.0.1".to_owned()),
            ready: instance.away == 0,
            problem: instance.broken.then(|| Problem {
                reason: Reason::ImagePullFailed,
                message: "image".to_owned(),
            }),
            ..Pod::default()
        });
        let members = self.instances.iter().filter(|(_, instance)| !instance.broken);
        let members = members.map(|(ordinal, instance)| self.member(*ordinal, instance));
        World {
            objects: [(Key::new(Kind::StatefulSet, "acme-postgres"), set)].into(),
            pods: pods.collect(),
            patroni: Some(Cluster {
                members: members.collect(),
                writable: true,
                paused: false,
                config: Some(self.config.clone()),
            }),
            ..World::default()
        }
    }

    fn templates() -> Value {
        let platform = platform(json!({}));
        let Database::Managed(postgres) = &platform.database else {
            return Value::Null;
        };
        postgres_statefulset::build(&platform, postgres).manifest["spec"]["volumeClaimTemplates"].clone()
    }

    fn member(&self, ordinal: i32, instance: &Instance) -> Member {
        let leads = ordinal == self.primary;
        let pending = instance.runs_with != self.configured();
        let change = Change {
            old_value: json!(instance.runs_with.to_string()),
            new_value: json!(self.configured().to_string()),
        };
        let state = match (leads, instance.away) {
            (true, _) => "running",
            (false, 0) => "streaming",
            (false, _) => "starting",
        };
        Member {
            name: Self::name(ordinal),
            role: if leads { "leader" } else { "quorum_standby" }.to_owned(),
            state: state.to_owned(),
            timeline: Some(1),
            lag: Some(0),
            pending_restart: pending,
            pending: pending
                .then(|| ("max_connections".to_owned(), change))
                .into_iter()
                .collect(),
            scheduled_restart: None,
        }
    }

    /// A start: a replica never runs with less than its primary, as Patroni sees to it.
    fn start(&mut self, ordinal: i32) {
        let floor = self.instances[&self.primary].runs_with;
        let configured = self.configured();
        let leads = ordinal == self.primary;
        if let Some(instance) = self.instances.get_mut(&ordinal) {
            instance.runs_with = if leads { configured } else { configured.max(floor) };
            instance.away = AWAY;
        }
    }

    fn everybody_else_is_in_step(&self, ordinal: i32) -> bool {
        self.instances
            .iter()
            .all(|(other, instance)| *other == ordinal || instance.away == 0)
    }

    fn carry_out(&mut self, action: &Action) -> Result<(), TestCaseError> {
        match action {
            Action::SetParameters { patch } => merge(&mut self.config, patch),
            Action::Restart { member } => {
                let ordinal = Self::ordinal(member);
                prop_assert!(
                    self.everybody_else_is_in_step(ordinal),
                    "restart of a second member"
                );
                prop_assert_ne!(self.instances[&ordinal].runs_with, self.configured());
                self.start(ordinal);
                if ordinal == self.primary {
                    self.instances.get_mut(&ordinal).unwrap().away = 0;
                }
            }
            Action::Switchover { from, to } => {
                prop_assert_eq!(Self::ordinal(from), self.primary);
                let replicas = self
                    .instances
                    .iter()
                    .filter(|(o, i)| **o != self.primary && i.away == 0);
                let best = replicas.map(|(ordinal, _)| *ordinal).next_back();
                let to = to.as_ref().map(|name| Self::ordinal(name)).or(best);
                let before = self.primary;
                prop_assert!(to.is_some_and(|to| to != before && self.instances[&to].away == 0));
                self.primary = to.unwrap();
                self.handovers += 1;
                self.start(before);
            }
            Action::DeletePod { name, uid, .. } => {
                let ordinal = Self::ordinal(name);
                let instance = self.instances[&ordinal].clone();
                prop_assert_eq!(uid, &format!("{ordinal}-{}", instance.incarnation));
                prop_assert_ne!(&instance.revision, &self.revision, "it is what it should be");
                prop_assert!(
                    instance.broken || self.everybody_else_is_in_step(ordinal),
                    "a second member goes down"
                );
                prop_assert!(
                    self.instances.len() == 1 || ordinal != self.primary,
                    "the primary goes before its role"
                );
                let revision = self.revision.clone();
                let broken = revision == self.bad;
                let entry = self.instances.get_mut(&ordinal).unwrap();
                *entry = Instance {
                    incarnation: instance.incarnation + 1,
                    revision,
                    broken,
                    ..instance
                };
                self.start(ordinal);
            }
            other => prop_assert!(false, "nobody asked for {:?}", other),
        }
        Ok(())
    }

    /// One look: decide, apply, let time pass.
    fn look(&mut self, platform: &Platform) -> Result<Upkeep, TestCaseError> {
        let Database::Managed(postgres) = &platform.database else {
            return Err(TestCaseError::fail("managed"));
        };
        let upkeep = upkeep(platform, postgres, &self.world());
        prop_assert!(upkeep.actions.len() <= 1, "{:?}", upkeep.actions);
        let set = upkeep.set.as_ref().expect("nothing holds it back");
        let replicas = i32::try_from(set.manifest["spec"]["replicas"].as_i64().unwrap()).unwrap();
        if replicas < self.replicas {
            prop_assert!(self.primary < replicas, "the primary's pod is scaled away");
            prop_assert_eq!(replicas, self.replicas - 1);
            self.instances.remove(&replicas);
        }
        for ordinal in self.replicas..replicas {
            let revision = self.revision.clone();
            self.instances.insert(
                ordinal,
                Instance {
                    incarnation: 0,
                    revision,
                    away: AWAY,
                    runs_with: 200,
                    broken: false,
                },
            );
            self.start(ordinal);
        }
        self.replicas = replicas;
        for action in &upkeep.actions {
            self.carry_out(action)?;
        }
        for instance in self.instances.values_mut().filter(|instance| !instance.broken) {
            instance.away = instance.away.saturating_sub(1);
        }
        Ok(upkeep)
    }

    fn settle(&mut self, platform: &Platform) -> Result<u32, TestCaseError> {
        for looks in 0..80 {
            let upkeep = self.look(platform)?;
            if upkeep.finding.is_none() && upkeep.actions.is_empty() {
                return Ok(looks);
            }
        }
        Err(TestCaseError::fail(format!("it does not settle: {self:?}")))
    }
}

fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(key);
                } else {
                    merge(target.entry(key).or_insert(json!({})), value);
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

fn spec(instances: i32, connections: i64) -> Platform {
    let parameters = json!({"max_connections": connections.to_string()});
    platform(json!({"postgres": {"managed": {"instances": instances, "parameters": parameters}}}))
}

fn managed(platform: &Platform) -> &ManagedPostgres {
    match &platform.database {
        Database::Managed(postgres) => postgres,
        Database::External(_) => panic!("managed"),
    }
}

fn sizes() -> impl Strategy<Value = i32> {
    prop::sample::select(vec![1, 3, 5])
}

proptest! {
    /// Whatever changes at once, number, image and parameters, it arrives: one member at a time, the primary never before its
    /// role, and nothing is sent any more when all is equal.
    #[test]
    fn every_change_arrives_without_a_second_member_down(
        from in sizes(), to in sizes(), primary in 0_i32..5, image in any::<bool>(),
        connections in prop::sample::select(vec![150_i64, 200, 300]),
    ) {
        let before = spec(from, 200);
        let after = spec(to, connections);
        let mut cluster = Simulation::new(managed(&before), primary % from);
        prop_assert_eq!(cluster.settle(&before)?, 0, "an idle cluster is left alone");
        if image {
            cluster.revision = "second".to_owned();
        }
        cluster.settle(&after)?;
        prop_assert_eq!(cluster.replicas, to);
        prop_assert!(cluster.instances.values().all(|i| i.revision == cluster.revision && i.runs_with == connections));
        prop_assert_eq!(&cluster.config, &postgres_patroni::dynamic_part(managed(&after)));
        prop_assert!(cluster.handovers <= 3, "{} handovers", cluster.handovers);
        prop_assert_eq!(cluster.settle(&after)?, 0);
    }
}

#[test]
fn an_image_that_does_not_start_stops_at_the_first_replica_and_is_corrected() {
    let platform = spec(3, 200);
    let mut cluster = Simulation::new(managed(&platform), 0);
    cluster.bad = "bad".to_owned();
    cluster.revision = "bad".to_owned();
    for _ in 0..20 {
        cluster.look(&platform).unwrap();
    }
    let broken: Vec<_> = cluster.instances.values().map(|i| i.broken).collect();
    assert_eq!(broken, [false, false, true]);
    cluster.revision = "third".to_owned();
    cluster.settle(&platform).unwrap();
    assert!(cluster.instances.values().all(|i| i.revision == "third"));
}

#[test]
fn nothing_is_touched_while_patroni_is_paused_by_hand() {
    let platform = spec(3, 300);
    let mut cluster = Simulation::new(managed(&spec(3, 200)), 0);
    cluster.revision = "second".to_owned();
    let mut world = cluster.world();
    world.patroni.as_mut().unwrap().paused = true;
    let upkeep = upkeep(&platform, managed(&platform), &world);
    assert_eq!(upkeep.actions, Vec::new());
    assert_eq!(upkeep.finding.unwrap().0, Reason::Paused);
}

#[test]
fn settings_that_patroni_refuses_are_told_after_a_few_tries() {
    let platform = spec(3, 300);
    let mut world = Simulation::new(managed(&spec(3, 200)), 0).world();
    let tried = Tried {
        times: PATIENT_TRIES,
        ago: Duration::from_secs(1),
        failure: Some("401 Unauthorized".to_owned()),
    };
    world.commands.tried.insert("parameters".to_owned(), tried);
    let upkeep = upkeep(&platform, managed(&platform), &world);
    let (reason, message) = upkeep.finding.unwrap();
    assert_eq!((reason, upkeep.actions), (Reason::ApplyFailed, Vec::new()));
    assert!(message.contains("401 Unauthorized"), "{message}");
}

#[test]
fn clients_keep_an_instance_in_their_list_until_it_is_gone() {
    let platform = spec(1, 200);
    let world = Simulation::new(managed(&spec(3, 200)), 2).world();
    let upkeep = upkeep(&platform, managed(&platform), &world);
    assert_eq!(upkeep.members, 3);
    let moved = Action::Switchover {
        from: "acme-postgres-2".to_owned(),
        to: Some("acme-postgres-0".to_owned()),
    };
    assert_eq!(upkeep.actions, [moved]);
}
