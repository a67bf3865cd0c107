//! `status` from what was observed: pure, and stable, so that the same observation never causes a write.

pub mod announce;

use crds::TankaPlatformStatus;
use crds::conditions::{ConditionType, Reason};
use crds::names::{self, Component};
use crds::platform::status::{ApiStatus, LastFailover, PostgresStatus, RedisStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::assess::{Assessment, Finding};
use super::object::{Key, Kind};
use super::observe::World;
use super::validate::{Cache, Database, Platform};
use crate::planted::{self, Bug};

/// Lag is shown in steps of a WAL segment, so that an idle replica's heartbeat does not cause writes.
const LAG_STEP: i64 = 16 << 20;
/// Longer messages are cut: a condition is for people.
const MAX_MESSAGE: usize = 1_024;

/// What the status of one look is made of.
pub struct Inputs<'a> {
    /// What was asked for.
    pub platform: &'a Platform,
    /// What was observed.
    pub world: &'a World,
    /// What it means.
    pub assessment: &'a Assessment,
    /// A change of primary that this look has seen.
    pub failover: Option<LastFailover>,
    /// When it was.
    pub now: Timestamp,
}

/// The status after a look, given the one before.
pub fn status(inputs: &Inputs<'_>, before: &TankaPlatformStatus) -> TankaPlatformStatus {
    let Inputs {
        platform,
        world,
        assessment,
        failover,
        now,
    } = inputs;
    let version = if assessment.api.ok {
        Some(platform.version.clone())
    } else {
        before.version.clone()
    };
    TankaPlatformStatus {
        observed_generation: Some(platform.generation),
        version,
        url: Some(url(platform, world)),
        api: Some(api(platform, world)),
        postgres: postgres(platform, world, failover.as_ref(), before),
        redis: redis(platform, world, before),
        conditions: conditions(platform, assessment, &before.conditions, *now),
    }
}

/// The status of a platform that was not looked at to the end: why, and all else as it was.
pub fn halted(
    reason: Reason,
    message: &str,
    generation: i64,
    before: &TankaPlatformStatus,
    now: Timestamp,
) -> TankaPlatformStatus {
    let halted = [(ConditionType::Ready, false), (ConditionType::Stalled, true)];
    let told = |condition: &Condition| {
        [
            ConditionType::Ready,
            ConditionType::Stalled,
            ConditionType::Reconciling,
        ]
        .iter()
        .any(|kind| condition.type_ == kind.as_str())
    };
    let conditions = halted
        .map(|(kind, ok)| condition(kind, ok, reason, message, generation, &before.conditions, now))
        .into_iter()
        .chain(
            before
                .conditions
                .iter()
                .filter(|condition| !told(condition))
                .cloned(),
        );
    TankaPlatformStatus {
        observed_generation: Some(generation),
        conditions: conditions.collect(),
        ..before.clone()
    }
}

fn conditions(
    platform: &Platform,
    assessment: &Assessment,
    before: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let Assessment {
        database,
        database_writable: _,
        cache,
        migrations,
        api,
        ingress,
        monitoring,
        end_to_end,
    } = assessment;
    let parts = [
        (ConditionType::DatabaseReady, database),
        (ConditionType::CacheReady, cache),
        (ConditionType::MigrationsApplied, migrations),
        (ConditionType::ApiReady, api),
        (ConditionType::IngressReady, ingress),
        (ConditionType::MonitoringReady, monitoring),
    ];
    let first_bad = parts
        .iter()
        .map(|(_, finding)| *finding)
        .find(|finding| !finding.ok);
    let ready = ready(end_to_end, first_bad, platform.spec.paused);
    let make = |kind, finding: &Finding| {
        condition(
            kind,
            finding.ok,
            finding.reason,
            &finding.message,
            platform.generation,
            before,
            now,
        )
    };
    let mut conditions = vec![make(ConditionType::Ready, &ready)];
    // Somebody's turn goes before patience: one part that cannot mend itself holds the whole up.
    let stalled = parts
        .iter()
        .map(|(_, finding)| *finding)
        .find(|finding| !finding.ok && needs_a_person(finding.reason));
    if let Some(bad) = stalled.or(first_bad) {
        let kind = if stalled.is_some() {
            ConditionType::Stalled
        } else {
            ConditionType::Reconciling
        };
        conditions.push(condition(
            kind,
            true,
            bad.reason,
            &bad.message,
            platform.generation,
            before,
            now,
        ));
    }
    conditions.extend(parts.iter().map(|(kind, finding)| make(*kind, finding)));
    conditions
}

/// Ready means that it works, now. Its reason and message still name the first part that is not as it should be.
fn ready(end_to_end: &Finding, first_bad: Option<&Finding>, paused: bool) -> Finding {
    match (end_to_end.ok, first_bad) {
        (true, None) if paused => Finding {
            ok: true,
            reason: Reason::Paused,
            message: "it works; changes of the spec wait until spec.paused is false".to_owned(),
        },
        (works, Some(bad)) => Finding {
            ok: works || planted::is(Bug::ReadyLie),
            ..bad.clone()
        },
        (_, None) => end_to_end.clone(),
    }
}

/// Whether conditions say that somebody has to act.
pub fn stalled(conditions: &[Condition]) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == ConditionType::Stalled.as_str())
}

/// Whether time alone will not help.
fn needs_a_person(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ImagePullFailed
            | Reason::MigrationFailed
            | Reason::InvalidSpec
            | Reason::NameConflict
            | Reason::PodsRefused
            | Reason::SecretMissing
            | Reason::ApplyFailed
            | Reason::CrashLoop
            | Reason::Unschedulable
            | Reason::Unreachable
            | Reason::RolloutStuck
            | Reason::VolumeNotExpandable
            | Reason::ReplicaBroken
            | Reason::HostConflict
            | Reason::IngressClassMissing
            | Reason::GatewayApiMissing
            | Reason::RouteNotAccepted
    )
}

fn condition(
    kind: ConditionType,
    ok: bool,
    reason: Reason,
    message: &str,
    generation: i64,
    before: &[Condition],
    now: Timestamp,
) -> Condition {
    let status = if ok { "True" } else { "False" };
    let same = before
        .iter()
        .find(|condition| condition.type_ == kind.as_str() && condition.status == status);
    Condition {
        type_: kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.chars().take(MAX_MESSAGE).collect(),
        observed_generation: Some(generation),
        last_transition_time: same.map_or(Time(whole_second(now)), |condition| {
            condition.last_transition_time.clone()
        }),
    }
}

/// Kubernetes stores times in whole seconds.
fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Where clients go: the host of the edge, or the service inside the cluster.
fn url(platform: &Platform, world: &World) -> String {
    let ingress = &platform.spec.ingress;
    if ingress.enabled {
        let encrypted = match &ingress.gateway {
            // A Gateway that cannot be seen is taken for one as most are.
            Some(_) => world.edge.gateway.as_ref().is_none_or(|gateway| gateway.tls),
            None => ingress.tls.is_some(),
        };
        let scheme = if encrypted { "https" } else { "http" };
        return format!("{scheme}://{}", ingress.host);
    }
    format!(
        "http://{}.{}.svc:{}",
        names::component(&platform.name, Component::Api),
        platform.namespace,
        names::API_PORT
    )
}

fn api(platform: &Platform, world: &World) -> ApiStatus {
    let key = Key::new(Kind::Deployment, names::component(&platform.name, Component::Api));
    let deployment = world.objects.get(&key);
    let number = |path: &str, field: &str| {
        let value = deployment
            .and_then(|object| object[path][field].as_i64())
            .unwrap_or(0);
        i32::try_from(value).unwrap_or(0)
    };
    let (replicas, ready_replicas) = (number("spec", "replicas"), number("status", "readyReplicas"));
    ApiStatus {
        replicas,
        ready_replicas,
        ready: format!("{ready_replicas}/{replicas}"),
    }
}

fn postgres(
    platform: &Platform,
    world: &World,
    failover: Option<&LastFailover>,
    before: &TankaPlatformStatus,
) -> Option<PostgresStatus> {
    let Database::Managed(managed) = &platform.database else {
        return None;
    };
    let before = before.postgres.clone().unwrap_or_default();
    let primary = world.primary();
    let ready = i32::try_from(world.streaming().count() + usize::from(primary.is_some())).unwrap_or(0);
    let lag = world.streaming().filter_map(|member| member.lag).max();
    Some(PostgresStatus {
        primary: primary.map(|member| member.name.clone()),
        instances: managed.instances,
        ready_instances: ready,
        ready: format!("{ready}/{}", managed.instances),
        timeline: primary.and_then(|member| member.timeline).or(before.timeline),
        max_replica_lag_bytes: lag.map(|bytes| (bytes + LAG_STEP - 1) / LAG_STEP * LAG_STEP),
        last_failover: failover.cloned().or(before.last_failover),
    })
}

fn redis(platform: &Platform, world: &World, before: &TankaPlatformStatus) -> Option<RedisStatus> {
    let Cache::Managed(managed) = &platform.cache else {
        return None;
    };
    let ready = world.pods_of(Component::Redis).filter(|pod| pod.ready).count();
    let seen = world.sentinel.as_ref().map(|view| view.primary.clone());
    let remembered = before.redis.as_ref().and_then(|redis| redis.primary.clone());
    Some(RedisStatus {
        primary: seen.or(remembered),
        ready: format!("{ready}/{}", managed.replicas),
    })
}

#[cfg(test)]
mod tests;
