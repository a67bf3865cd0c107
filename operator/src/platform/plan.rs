//! What to do about a platform: a pure function of what was asked for and what was observed.

pub mod actions;
pub mod credentials;
pub mod edge;
pub mod members;
pub mod migration;
pub mod nudge;
pub mod parameters;
pub mod pool;
pub mod postgres;
pub mod prune;
pub mod redis;
pub mod repair;
pub mod rollout;
pub mod scaling;
pub mod state;
pub mod switchover;
pub mod tenure;
mod token;
pub mod upkeep;
pub mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crds::names::{self, Component};

use self::actions::Action;
use self::migration::Migration;
use self::prune::Deletion;
use self::scaling::Replicas;
use self::tenure::Tenure;
use super::assess::Assessment;
use super::build::secrets::SecretRequest;
use super::build::{
    api_config, api_deployment, api_service, hpa, migration_job, monitoring, network_policies, pdb,
    postgres_access, postgres_patroni, postgres_services, redis_service, secrets, service_account,
};
use super::object::{Key, Kind, Object};
use super::observe::{World, secrets as held};
use super::validate::{Cache, Database, Platform};
use crate::planted::{self, Bug};

/// Time to the next look when nothing changes: the promise that a condition is at most ten seconds old rests on it.
const CALM: Duration = Duration::from_secs(5);
/// Time to the next look while something moves.
const BUSY: Duration = Duration::from_secs(1);
/// Time to the next look while nothing takes writes, so that a failover is measured closely.
const URGENT: Duration = Duration::from_millis(250);

/// What to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Secrets to create.
    pub secrets: Vec<SecretRequest>,
    /// Objects as they should be, in the order in which they are needed.
    pub objects: Vec<Object>,
    /// A number of API pods to leave to the autoscaler, before the objects are applied.
    pub seed_replicas: Option<i32>,
    /// Volumes, credentials and the like whose owners do not fit the deletion policy.
    pub tenures: Vec<Tenure>,
    /// Objects whose controller is to try at once what it was refused before.
    pub nudges: Vec<Key>,
    /// Objects that have no place any more.
    pub deletions: Vec<Deletion>,
    /// What to do once, after the objects are applied.
    pub actions: Vec<Action>,
    /// When to look again.
    pub requeue: Duration,
}

/// Decides.
pub fn plan(platform: &Platform, world: &World, assessment: &Assessment) -> Plan {
    let requeue = pace(assessment);
    if platform.spec.paused {
        return Plan {
            requeue,
            ..Plan::default()
        };
    }
    let missing = |request: &SecretRequest| !world.secrets.contains_key(&request.name);
    let (mut objects, actions) = foundation(platform, world, &other_files(platform, world, assessment));
    // What watches a platform waits for nothing: its first hour is watched too.
    objects.extend(monitoring::build(platform, &world.apis));
    // What waits behind a gate is not applied yet, but an earlier version of it stays as it is.
    let mut keep: BTreeSet<Key> = objects.iter().map(|object| object.key.clone()).collect();
    let job = Key::new(Kind::Job, migration_job::name(platform, world));
    let migration = migration::state(world.objects.get(&job));
    // A Job is made once: most of it cannot be changed.
    if assessment.database_writable && migration == Migration::Absent {
        objects.push(migration_job::build(platform, world));
    }
    keep.insert(job.clone());
    keep.extend(
        postgres_access::state(platform)
            .into_iter()
            .map(|name| Key::new(Kind::ConfigMap, name)),
    );
    // A StatefulSet may be held back, but it is never a left-over while its component is managed.
    keep.extend(sets(platform));
    let (tier, seed_replicas) = api_tier(platform, world);
    keep.extend(tier.iter().map(|object| object.key.clone()));
    keep.extend(monitoring::undecided(platform, &world.apis));
    keep.extend(edge::kept(platform, assessment.ingress.ok));
    let migrated = assessment.migrations.ok || planted::is(Bug::GateSkipped);
    let open = migrated && is_supplied(platform, world);
    let deployment = Key::new(Kind::Deployment, names::component(&platform.name, Component::Api));
    if open {
        objects.extend(tier);
    } else if world.objects.contains_key(&deployment) {
        // Pods serve already. Everything around them is kept, they themselves stay as they are.
        objects.extend(tier.into_iter().filter(|object| object.key != deployment));
    }
    // A Secret of somebody else has nothing that our pods could use.
    let foreign: Vec<&Key> = tenure::foreign_secrets(platform, world).collect();
    objects.retain(|object| {
        !runs_pods(object.key.kind)
            || !foreign
                .iter()
                .any(|secret| tenure::reads(platform, &object.manifest, &secret.name))
    });
    let again = migration::is_due(&migration, world.now)
        .then(|| prune::deletion(&job, world.objects.get(&job)?))
        .flatten();
    Plan {
        secrets: secrets::requests(platform).into_iter().filter(missing).collect(),
        tenures: tenure::changes(platform, world),
        nudges: nudge::due(world),
        deletions: prune::orphans(&world.objects, &keep, &platform.uid)
            .into_iter()
            .chain(again)
            .collect(),
        seed_replicas: seed_replicas.filter(|_| open),
        objects,
        actions,
        requeue,
    }
}

/// The StatefulSets that belong to the platform.
fn sets(platform: &Platform) -> Vec<Key> {
    let managed = [
        (
            matches!(platform.database, Database::Managed(_)),
            Component::Postgres,
        ),
        (matches!(platform.cache, Cache::Managed(_)), Component::Redis),
    ];
    managed
        .into_iter()
        .filter(|(managed, _)| *managed)
        .map(|(_, component)| Key::new(Kind::StatefulSet, names::component(&platform.name, component)))
        .collect()
}

/// Everything that waits for nothing: the database, the cache, configuration, access and isolation.
fn foundation(
    platform: &Platform,
    world: &World,
    other_files: &BTreeMap<String, String>,
) -> (Vec<Object>, Vec<Action>) {
    let (mut objects, mut actions) = (Vec::new(), Vec::new());
    // Clients must find an instance as long as it may be the primary, also when it is about to go.
    let mut listed = platform.clone();
    if platform.spec.network_policy.enabled {
        objects.extend(network_policies::build(platform));
    }
    if let Database::Managed(postgres) = &platform.database {
        objects.extend(postgres_access::build(platform));
        objects.push(postgres_patroni::build(platform, postgres));
        objects.extend(postgres_services::build(platform));
        objects.push(pdb::build(platform, Component::Postgres));
        let upkeep = postgres::upkeep(platform, postgres, world);
        objects.extend(upkeep.set);
        actions.extend(upkeep.actions);
        if let Database::Managed(listed) = &mut listed.database {
            listed.instances = upkeep.members;
        }
    }
    if let Cache::Managed(redis) = &platform.cache {
        objects.push(service_account::build(platform, Component::Redis));
        objects.push(redis_service::build(platform));
        objects.push(pdb::build(platform, Component::Redis));
        let upkeep = redis::upkeep(platform, redis, world);
        objects.extend(upkeep.set);
        actions.extend(upkeep.actions);
    }
    objects.push(service_account::build(platform, Component::Migration));
    objects.push(service_account::build(platform, Component::Api));
    objects.push(api_config::build(&listed, other_files));
    (objects, actions)
}

/// Configuration of other releases, as long as not all pods are known to be of this one.
fn other_files(platform: &Platform, world: &World, assessment: &Assessment) -> BTreeMap<String, String> {
    let key = Key::new(Kind::ConfigMap, names::api_config(&platform.name));
    let files = world.objects.get(&key).and_then(|live| live["data"].as_object());
    let wanted = api_config::file(&platform.version);
    files
        .into_iter()
        .flatten()
        .filter(|(name, _)| !assessment.api.ok && **name != wanted)
        .filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())))
        .collect()
}

/// Everything that waits for the schema.
fn api_tier(platform: &Platform, world: &World) -> (Vec<Object>, Option<i32>) {
    let deployment = Key::new(Kind::Deployment, names::component(&platform.name, Component::Api));
    let autoscaler = Key::new(Kind::HorizontalPodAutoscaler, &deployment.name);
    let scaled = world.objects.contains_key(&autoscaler);
    let (replicas, seed) = match scaling::replicas(platform, world.objects.get(&deployment), scaled) {
        Replicas::Fixed(number) => (Some(number), None),
        Replicas::Seed(number) => (None, Some(number)),
        Replicas::Autoscaled if planted::is(Bug::ReplicasTaken) => (Some(platform.spec.api.replicas), None),
        Replicas::Autoscaled => (None, None),
    };
    let mut objects = vec![
        api_service::build(platform),
        pdb::build(platform, Component::Api),
        api_deployment::build(platform, world, replicas),
    ];
    if platform.spec.api.autoscaling.enabled {
        objects.push(hpa::build(platform));
    }
    objects.extend(edge::objects(platform, world));
    (objects, seed)
}

/// Whether every key of a Secret that the spec names can be used: without it no new pod could start.
fn is_supplied(platform: &Platform, world: &World) -> bool {
    held::missing(&world.references, &held::named(platform)).is_none()
}

fn runs_pods(kind: Kind) -> bool {
    matches!(kind, Kind::StatefulSet | Kind::Deployment | Kind::Job)
}

fn pace(assessment: &Assessment) -> Duration {
    let Assessment {
        database,
        database_writable,
        cache,
        migrations,
        api,
        ingress,
        monitoring,
        end_to_end,
    } = assessment;
    if !database_writable {
        URGENT
    } else if [database, cache, migrations, api, ingress, monitoring, end_to_end]
        .iter()
        .all(|finding| finding.ok)
    {
        CALM
    } else {
        BUSY
    }
}

#[cfg(test)]
mod effects;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
