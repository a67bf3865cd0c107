//! What to do about a platform: a pure function of what was asked for and what was observed.

pub mod migration;
pub mod pool;
pub mod prune;
pub mod scaling;

use std::collections::BTreeSet;
use std::time::Duration;

use crds::names::{self, Component};

use self::prune::Deletion;
use self::scaling::Replicas;
use super::assess::Assessment;
use super::build::secrets::SecretRequest;
use super::build::{
    api_config, api_deployment, api_service, hpa, ingress, migration_job, network_policies, pdb,
    postgres_access, postgres_patroni, postgres_services, postgres_statefulset, redis_service,
    redis_statefulset, secrets,
};
use super::object::{Key, Kind, Object};
use super::observe::World;
use super::validate::{Cache, Database, Platform};

/// Time to the next look when nothing changes: the promise that a condition is at most ten seconds old rests on it.
const CALM: Duration = Duration::from_secs(5);
/// Time to the next look while something moves.
const BUSY: Duration = Duration::from_secs(1);
/// Time to the next look while nothing takes writes, so that a failover is measured closely.
const URGENT: Duration = Duration::from_millis(250);

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Secrets to create.
    pub secrets: Vec<SecretRequest>,
    /// Objects as they should be, in the order in which they are needed.
    pub objects: Vec<Object>,
    /// A number of API pods to leave to the autoscaler, before the objects are applied.
    pub seed_replicas: Option<i32>,
    /// Objects that have no place any more.
    pub deletions: Vec<Deletion>,
    /// When to look again.
    pub requeue: Duration,
}

/// Decides.
pub fn plan(platform: &Platform, world: &World, assessment: &Assessment) -> Plan {
    let requeue = pace(assessment);
    if platform.spec.paused {
        return Plan {
            secrets: Vec::new(),
            objects: Vec::new(),
            seed_replicas: None,
            deletions: Vec::new(),
            requeue,
        };
    }
    let missing = |request: &SecretRequest| !world.secrets.contains_key(&request.name);
    let mut objects = foundation(platform);
    // What waits behind a gate is not applied yet, but an earlier version of it stays as it is.
    let mut keep: BTreeSet<Key> = objects.iter().map(|object| object.key.clone()).collect();
    if assessment.database_writable {
        objects.push(migration_job::build(platform));
    }
    keep.insert(Key::new(Kind::Job, migration_job::name(platform)));
    let (tier, seed_replicas) = api_tier(platform, world);
    keep.extend(tier.iter().map(|object| object.key.clone()));
    let open = assessment.migrations.ok;
    if open {
        objects.extend(tier);
    }
    Plan {
        secrets: secrets::requests(platform).into_iter().filter(missing).collect(),
        deletions: prune::orphans(&world.objects, &keep, &platform.uid),
        seed_replicas: seed_replicas.filter(|_| open),
        objects,
        requeue,
    }
}

/// Everything that waits for nothing: the database, the cache, configuration, access and isolation.
fn foundation(platform: &Platform) -> Vec<Object> {
    let mut objects = Vec::new();
    if platform.spec.network_policy.enabled {
        objects.extend(network_policies::build(platform));
    }
    if let Database::Managed(postgres) = &platform.database {
        objects.extend(postgres_access::build(platform));
        objects.push(postgres_patroni::build(platform, postgres));
        objects.extend(postgres_services::build(platform));
        objects.push(pdb::build(platform, Component::Postgres));
        objects.push(postgres_statefulset::build(platform, postgres));
    }
    if let Cache::Managed(redis) = &platform.cache {
        objects.push(redis_service::build(platform));
        objects.push(pdb::build(platform, Component::Redis));
        objects.push(redis_statefulset::build(platform, redis));
    }
    objects.push(api_config::build(platform));
    objects
}

/// Everything that waits for the schema.
fn api_tier(platform: &Platform, world: &World) -> (Vec<Object>, Option<i32>) {
    let deployment = Key::new(Kind::Deployment, names::component(&platform.name, Component::Api));
    let (replicas, seed) = match scaling::replicas(platform, world.objects.get(&deployment)) {
        Replicas::Fixed(number) => (Some(number), None),
        Replicas::Seed(number) => (None, Some(number)),
        Replicas::Autoscaled => (None, None),
    };
    let mut objects = vec![
        api_service::build(platform),
        pdb::build(platform, Component::Api),
        api_deployment::build(platform, replicas),
    ];
    if platform.spec.api.autoscaling.enabled {
        objects.push(hpa::build(platform));
    }
    if platform.spec.ingress.enabled && platform.spec.ingress.gateway.is_none() {
        objects.push(ingress::build(platform));
    }
    (objects, seed)
}

fn pace(assessment: &Assessment) -> Duration {
    let Assessment {
        database,
        database_writable,
        cache,
        migrations,
        api,
        ingress,
        end_to_end,
    } = assessment;
    if !database_writable {
        URGENT
    } else if [database, cache, migrations, api, ingress, end_to_end]
        .iter()
        .all(|finding| finding.ok)
    {
        CALM
    } else {
        BUSY
    }
}

#[cfg(test)]
mod tests;
