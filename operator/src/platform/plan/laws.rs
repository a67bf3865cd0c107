//! Laws of plans. Random lives of a platform are led in a cluster in memory: the spec changes, things are lost, changed by hand or
//! made by others. At every look the plan must keep the laws, and in the end there must be nothing left to do.

mod model;

use std::collections::BTreeMap;

use crds::conditions::ConditionType;
use crds::names::{self, Component};
use crds::platform::DeletionPolicy;
use proptest::prelude::*;
use serde_json::{Value, json};

use self::model::{FAILING, Model};
use crate::platform::assess::{Assessment, assess};
use crate::platform::build::migration_job;
use crate::platform::fixtures;
use crate::platform::object::{Key, Kind, Object};
use crate::platform::observe::World;
use crate::platform::plan::actions::Action;
use crate::platform::plan::migration::{self, Migration};
use crate::platform::plan::{Plan, plan};
use crate::platform::status::{self, Inputs};
use crate::platform::validate::{Database, Platform};

/// Looks after which nothing may be left to do.
const LOOKS: usize = 120;

/// What somebody asks for.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the spec")]
#[derive(Debug, Clone)]
struct Wish {
    instances: i32,
    members: i32,
    autoscaled: bool,
    replicas: i32,
    release: usize,
    fails: bool,
    isolated: bool,
    deletes: bool,
    memory: usize,
    storage: usize,
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Event {
    Ask(Wish),
    LosePod(usize),
    Lose(usize),
    Drift(usize),
    Scale(i64),
    Wait,
}

impl Wish {
    fn spec(&self, storage: usize) -> Value {
        let release = ["0.1.0", "0.2.0", "0.3.0"][self.release];
        let image = if self.fails {
            format!("tanka/api-server:{FAILING}-{release}")
        } else {
            String::new()
        };
        let (size, memory) = (["10Gi", "20Gi"][storage], ["4MB", "8MB"][self.memory]);
        json!({
            "version": release,
            "images": {"apiServer": image},
            "deletionPolicy": if self.deletes { "Delete" } else { "Retain" },
            "api": {"replicas": self.replicas, "autoscaling": {
                "enabled": self.autoscaled, "minReplicas": self.replicas, "maxReplicas": self.replicas + 2}},
            "postgres": {"managed": {"instances": self.instances, "storage": {"size": size},
                "parameters": {"work_mem": memory}}},
            "redis": {"managed": {"replicas": self.members}},
            "networkPolicy": {"enabled": self.isolated},
        })
    }
}

fn wish() -> impl Strategy<Value = Wish> {
    let sizes = (
        prop::sample::select(vec![1, 3, 5]),
        prop::sample::select(vec![1, 3]),
        1_i32..4,
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (
        sizes,
        flags,
        0_usize..3,
        prop::bool::weighted(0.2),
        0_usize..2,
        0_usize..2,
    )
        .prop_map(
            |(
                (instances, members, replicas),
                (autoscaled, isolated, deletes),
                release,
                fails,
                memory,
                storage,
            )| Wish {
                instances,
                members,
                autoscaled,
                replicas,
                release,
                fails,
                isolated,
                deletes,
                memory,
                storage,
            },
        )
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => wish().prop_map(Event::Ask),
        2 => (0_usize..64).prop_map(Event::LosePod),
        1 => (0_usize..64).prop_map(Event::Lose),
        1 => (0_usize..64).prop_map(Event::Drift),
        1 => (1_i64..6).prop_map(Event::Scale),
        2 => Just(Event::Wait),
    ];
    (wish(), prop::collection::vec(event, 1..7))
        .prop_map(|(first, rest)| [Event::Ask(first)].into_iter().chain(rest).collect())
}

/// A platform that was asked for, in a cluster that others use too.
struct Life {
    platform: Platform,
    model: Model,
    strangers: BTreeMap<Key, Value>,
    storage: usize,
}

impl Life {
    fn new() -> Self {
        let platform = fixtures::platform(json!({}));
        let labels = json!({names::PLATFORM_LABEL: platform.name, names::MANAGED_BY_LABEL: names::MANAGED_BY,
            names::INSTANCE_LABEL: platform.name});
        // Somebody has copied our labels: only an owner tells whose an object is.
        let unowned = json!({"metadata": {"uid": "theirs-1", "labels": labels}});
        let owned = json!({"metadata": {"uid": "theirs-2", "labels": labels, "ownerReferences": [{"uid": "another"}]}});
        let strangers = BTreeMap::from([
            (Key::new(Kind::Service, "acme-extra"), unowned.clone()),
            (Key::new(Kind::ConfigMap, "acme-extra"), owned.clone()),
            (Key::new(Kind::ServiceAccount, "acme-extra"), unowned),
            // This name is needed.
            (Key::new(Kind::PodDisruptionBudget, "acme-redis"), owned),
        ]);
        let mut model = Model::new();
        model.objects.extend(strangers.clone());
        Self {
            platform,
            model,
            strangers,
            storage: 0,
        }
    }

    fn meet(&mut self, event: &Event) {
        let deployment = Key::new(
            Kind::Deployment,
            names::component(&self.platform.name, Component::Api),
        );
        match event {
            Event::Ask(wish) => {
                // Volumes never shrink: the definition refuses it.
                self.storage = self.storage.max(wish.storage);
                self.platform = fixtures::platform(wish.spec(self.storage));
            }
            Event::LosePod(place) => self.model.lose_pod(*place),
            Event::Lose(place) => {
                if let Some(key) = self.own(*place) {
                    self.model.delete(&key);
                }
            }
            Event::Drift(place) => {
                if let Some(live) = self.own(*place).and_then(|key| self.model.objects.get_mut(&key)) {
                    live["metadata"]["labels"][names::PART_OF_LABEL] = json!("something else");
                }
            }
            Event::Scale(replicas) if self.platform.spec.api.autoscaling.enabled => {
                self.model.scale(&deployment, *replicas);
            }
            Event::Scale(_) | Event::Wait => {}
        }
    }

    /// One of our objects. A set that is lost by hand takes its pods along, which no plan could help.
    fn own(&self, place: usize) -> Option<Key> {
        let spared = |key: &Key| {
            matches!(key.kind, Kind::StatefulSet | Kind::PersistentVolumeClaim)
                || self.strangers.contains_key(key)
        };
        let own: Vec<&Key> = self.model.objects.keys().filter(|key| !spared(key)).collect();
        own.get(place % own.len().max(1)).map(|key| (*key).clone())
    }

    fn decide(&self) -> (World, Assessment, Plan) {
        let world = self.model.world(&self.platform);
        let assessment = assess(&self.platform, &world);
        let plan = plan(&self.platform, &world, &assessment);
        (world, assessment, plan)
    }

    fn look(&mut self) -> Result<(), TestCaseError> {
        let (world, assessment, plan) = self.decide();
        self.keeps_gates(&world, &plan)?;
        self.deletes_only_its_own(&plan)?;
        self.leaves_the_autoscaler_alone(&plan)?;
        self.takes_down_one_at_a_time(&plan)?;
        self.tells_the_truth(&world, &assessment)?;
        self.model.carry_out(&self.platform, &plan);
        self.model.step();
        Ok(())
    }

    /// Migration after a database that takes writes, API after the migration of this release, new pods before old ones go.
    fn keeps_gates(&self, world: &World, plan: &Plan) -> Result<(), TestCaseError> {
        let job = Key::new(Kind::Job, migration_job::name(&self.platform, world));
        let migrated = migration::state(world.objects.get(&job)) == Migration::Done;
        for object in &plan.objects {
            match object.key.kind {
                Kind::Job => prop_assert!(self.model.primary().is_some(), "a migration without a primary"),
                Kind::Deployment => {
                    prop_assert!(migrated, "the API before its migration");
                    let bounds = &object.manifest["spec"]["strategy"]["rollingUpdate"];
                    prop_assert_eq!(bounds, &json!({"maxUnavailable": 0, "maxSurge": 1}), "no canary");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn deletes_only_its_own(&self, plan: &Plan) -> Result<(), TestCaseError> {
        for deletion in &plan.deletions {
            let live = &self.model.objects[&deletion.key];
            let owners = live["metadata"]["ownerReferences"].as_array();
            let ours = owners.is_some_and(|owners| owners.iter().any(|o| o["uid"] == self.platform.uid));
            prop_assert!(ours, "{} belongs to somebody else", deletion.key);
            let holds_data = matches!(
                deletion.key.kind,
                Kind::Secret | Kind::PersistentVolumeClaim | Kind::Pod
            );
            prop_assert!(!holds_data, "{} holds data", deletion.key);
        }
        for tenure in &plan.tenures {
            prop_assert!(!self.strangers.contains_key(&tenure.key));
        }
        Ok(())
    }

    fn leaves_the_autoscaler_alone(&self, plan: &Plan) -> Result<(), TestCaseError> {
        let name = names::component(&self.platform.name, Component::Api);
        let rules = self
            .model
            .objects
            .contains_key(&Key::new(Kind::HorizontalPodAutoscaler, &name));
        let deployment = Key::new(Kind::Deployment, &name);
        let exists = self.model.objects.contains_key(&deployment);
        let sent = plan.objects.iter().find(|object| object.key == deployment);
        if let Some(sent) = sent
            && (self.platform.spec.api.autoscaling.enabled || (rules && exists))
        {
            prop_assert!(
                sent.manifest["spec"].get("replicas").is_none(),
                "replicas under an autoscaler"
            );
        }
        Ok(())
    }

    /// Never two instances, and the primary's only where there is no other or its role has moved.
    fn takes_down_one_at_a_time(&self, plan: &Plan) -> Result<(), TestCaseError> {
        for component in [Component::Postgres, Component::Redis] {
            let set = names::component(&self.platform.name, component);
            let live = self.model.objects.get(&Key::new(Kind::StatefulSet, &set));
            let size = live.map_or(0, |live| live["spec"]["replicas"].as_u64().unwrap_or(0));
            let ready: Vec<&String> = self.model.ready(component).collect();
            let going: Vec<&String> = plan
                .actions
                .iter()
                .filter_map(|action| match action {
                    Action::DeletePod { name, .. } if name.starts_with(&set) => Some(name),
                    _ => None,
                })
                .collect();
            prop_assert!(going.len() <= 1, "{going:?} at once");
            for name in going {
                let others = ready.iter().filter(|other| **other != name).count() as u64;
                prop_assert!(
                    !ready.contains(&name) || others + 1 == size,
                    "{name} goes while another is away"
                );
                let leads = component == Component::Postgres && self.model.primary() == Some(name);
                prop_assert!(!leads || size == 1, "the primary's pod goes before its role");
            }
            let planned = plan
                .objects
                .iter()
                .find(|object| object.key == Key::new(Kind::StatefulSet, &set));
            let wanted = planned
                .and_then(|sent| sent.manifest["spec"]["replicas"].as_u64())
                .unwrap_or(size);
            if wanted < size {
                self.shrinks_safely(component, wanted, size)?;
            }
        }
        Ok(())
    }

    fn shrinks_safely(&self, component: Component, wanted: u64, size: u64) -> Result<(), TestCaseError> {
        let Database::Managed(postgres) = &self.platform.database else {
            return Ok(());
        };
        if component == Component::Postgres {
            prop_assert_eq!(wanted, size - 1, "more than one instance goes");
            prop_assert!(wanted >= u64::try_from(postgres.instances).unwrap_or(0));
            let ordinal = |name: &String| {
                name.rsplit('-')
                    .next()
                    .and_then(|digits| digits.parse::<u64>().ok())
            };
            let primary = self.model.primary().and_then(ordinal);
            prop_assert!(
                primary.is_some_and(|primary| primary < wanted),
                "the primary is scaled away"
            );
        }
        Ok(())
    }

    fn tells_the_truth(&self, world: &World, assessment: &Assessment) -> Result<(), TestCaseError> {
        let inputs = Inputs {
            platform: &self.platform,
            world,
            assessment,
            failover: None,
            now: world.now,
        };
        let status = status::status(&inputs, &crds::TankaPlatformStatus::default());
        let ready = status
            .conditions
            .iter()
            .any(|c| c.type_ == ConditionType::Ready.as_str() && c.status == "True");
        prop_assert!(
            !ready || self.model.works(),
            "Ready although something does not work"
        );
        Ok(())
    }

    /// What the plan asks for that is not there, for people.
    fn left_to_do(&self, plan: &Plan) -> Vec<String> {
        let Plan {
            secrets,
            objects,
            seed_replicas,
            tenures,
            nudges,
            deletions,
            actions,
            requeue: _,
        } = plan;
        let is_done = |object: &&Object| {
            self.model.is_done(&self.platform, object) || self.model.is_taken(&self.platform, &object.key)
        };
        let objects = objects.iter().filter(|object| !is_done(object));
        let mut left: Vec<String> = objects.map(|object| format!("apply {}", object.key)).collect();
        left.extend(secrets.iter().map(|secret| format!("create {}", secret.name)));
        left.extend(seed_replicas.map(|number| format!("leave {number} replicas behind")));
        left.extend(tenures.iter().map(|tenure| format!("own {}", tenure.key)));
        left.extend(nudges.iter().map(|key| format!("remind {key}")));
        left.extend(
            deletions
                .iter()
                .map(|deletion| format!("delete {}", deletion.key)),
        );
        left.extend(actions.iter().map(Action::name));
        left
    }
}

fn live(events: &[Event]) -> Result<(), TestCaseError> {
    let mut life = Life::new();
    for event in events {
        life.meet(event);
        for _ in 0..3 {
            life.look()?;
        }
    }
    let (mut idle, mut left) = (0, Vec::new());
    for _ in 0..LOOKS {
        let (.., plan) = life.decide();
        left = life.left_to_do(&plan);
        idle = if left.is_empty() { idle + 1 } else { 0 };
        if idle > 4 {
            break;
        }
        life.look()?;
    }
    prop_assert!(idle > 4, "there is always something left to do: {left:?}");
    for (key, before) in &life.strangers {
        prop_assert_eq!(life.model.objects.get(key), Some(before), "{} was touched", key);
    }
    let retains = life.platform.spec.deletion_policy == DeletionPolicy::Retain;
    for (key, live) in &life.model.objects {
        if matches!(key.kind, Kind::Secret | Kind::PersistentVolumeClaim) {
            let owners = live["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len);
            prop_assert_eq!(owners == 0, retains, "{} has {} owners", key, owners);
        }
    }
    prop_assert!(life.model.primary().is_some() && life.model.ready(Component::Redis).next().is_some());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_life_keeps_the_laws_and_comes_to_rest(events in events()) {
        live(&events)?;
    }
}

/// Each of these bugs breaks a law in a few random lives.
#[cfg(feature = "planted")]
#[test]
fn planted_bugs_break_a_law() {
    use crate::planted::{Bug, plant_here};
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    for bug in [
        Bug::GateSkipped,
        Bug::OwnerUnchecked,
        Bug::ReplicasTaken,
        Bug::TwoAtOnce,
        Bug::ReadyLie,
    ] {
        let config = Config {
            cases: 64,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..Config::default()
        };
        let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        plant_here(Some(bug));
        let found = TestRunner::new_with_rng(config, seed).run(&events(), |events| live(&events));
        plant_here(None);
        match found {
            Err(failure) => println!(
                "{bug:?}: {}",
                failure.to_string().lines().next().unwrap_or_default()
            ),
            Ok(()) => panic!("{bug:?} breaks no law"),
        }
    }
}
