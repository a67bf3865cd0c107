//! What the observed world means for each part of a platform: is it as it should be, and if not, what is the matter first.

mod external;
mod ingress;
mod monitoring;

use crds::conditions::Reason;
use crds::names::{self, Component};
use serde_json::Value;

use super::build::{migration_job, secrets};
use super::object::{Key, Kind};
use super::observe::secrets::{missing, of_api};
use super::observe::{Rejection, World};
use super::plan;
use super::plan::migration::{self, Migration};
use super::plan::tenure;
use super::validate::{Cache, Database, Platform};

/// The state of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is as it should be.
    pub ok: bool,
    /// Class of the state.
    pub reason: Reason,
    /// A sentence for people.
    pub message: String,
}

impl Finding {
    fn good(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            ok: true,
            reason,
            message: message.into(),
        }
    }

    fn bad(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            ok: false,
            reason,
            message: message.into(),
        }
    }
}

/// The state of all parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// PostgreSQL.
    pub database: Finding,
    /// Whether PostgreSQL takes writes, with or without all its replicas: enough to migrate and to serve.
    pub database_writable: bool,
    /// Redis.
    pub cache: Finding,
    /// The schema.
    pub migrations: Finding,
    /// The API.
    pub api: Finding,
    /// The way in from outside.
    pub ingress: Finding,
    /// What watches it all.
    pub monitoring: Finding,
    /// A write, a replica read, a Redis round trip and an API answer.
    pub end_to_end: Finding,
}

/// Assesses a platform.
pub fn assess(platform: &Platform, world: &World) -> Assessment {
    let (database, database_writable) = database(platform, world);
    Assessment {
        cache: cache(platform, world),
        migrations: migrations(platform, world, database_writable, &database),
        api: api(platform, world),
        ingress: ingress::ingress(platform, world),
        monitoring: monitoring::monitoring(platform, world),
        end_to_end: end_to_end(world),
        database,
        database_writable,
    }
}

/// A replica this far behind is said to lag, whatever the API tolerates.
const LEAST_LAG_MILLIS: u64 = 2_000;

/// What stands in the way of a component before its own state is looked at.
fn obstacle(platform: &Platform, world: &World, component: Component) -> Option<Finding> {
    let name = names::component(&platform.name, component);
    if let Some(key) = tenure::foreign_secrets(platform, world).find(|key| key.name == name) {
        return Some(conflict(key));
    }
    let secret = secrets::requests(platform)
        .into_iter()
        .find(|request| request.name == name);
    if let (Some(request), Some(keys)) = (&secret, world.secrets.get(&name))
        && let Some(key) = request.keys.iter().find(|key| !keys.contains(**key))
    {
        return Some(Finding::bad(
            Reason::SecretMissing,
            format!("Secret {name} has no key {key}: add it, or delete the Secret to have it made again"),
        ));
    }
    let belongs = |key: &Key| {
        let elsewhere = key.kind == Kind::Ingress || Kind::OPTIONAL.contains(&key.kind);
        !elsewhere && concerns(key, &name)
    };
    if let Some(finding) = rejected(world, belongs) {
        return Some(finding);
    }
    let problem = world.problem_of(component)?;
    Some(Finding::bad(problem.reason, problem.message))
}

/// Whether an object belongs to the component whose objects have this name or begin with it; volumes have it at their end.
fn concerns(key: &Key, name: &str) -> bool {
    key.name == name
        || key.name.starts_with(&format!("{name}-"))
        || (key.kind == Kind::PersistentVolumeClaim && key.name.contains(&format!("-{name}-")))
}

fn conflict(key: &Key) -> Finding {
    Finding::bad(
        Reason::NameConflict,
        format!("{key} exists and belongs to somebody else: rename or delete it"),
    )
}

/// A replica whose data is too old, as the API sees it.
fn lagging(platform: &Platform, world: &World) -> Option<Finding> {
    let Some(Ok(deep)) = &world.deep else { return None };
    let tolerated = platform.spec.api.database.max_replica_lag.get().as_millis() * 2;
    let bound = u64::try_from(tolerated).unwrap_or(u64::MAX).max(LEAST_LAG_MILLIS);
    let (name, lag) = deep
        .instances
        .iter()
        .filter(|instance| instance.role.as_deref() == Some("replica"))
        .filter_map(|instance| Some((&instance.name, instance.lag_ms?)))
        .find(|(_, lag)| *lag > bound)?;
    // Whole minutes and tens of seconds, so that a lag that grows does not cause a write at every look.
    let shown = if lag < 10_000 {
        "seconds"
    } else if lag < 60_000 {
        "tens of seconds"
    } else {
        "minutes"
    };
    Some(Finding::bad(
        Reason::ReplicaLagging,
        format!("replica {name} is {shown} behind and serves no reads"),
    ))
}

/// The first of some objects that could not be made what it should be.
fn rejected(world: &World, of: impl Fn(&Key) -> bool) -> Option<Finding> {
    let (key, rejection) = world.rejected.iter().find(|(key, _)| of(key))?;
    Some(match rejection {
        Rejection::Foreign => conflict(key),
        Rejection::Refused(words) => Finding::bad(Reason::ApplyFailed, format!("{key} was refused: {words}")),
        Rejection::CredentialsLost => Finding::bad(
            Reason::SecretMissing,
            format!(
                "{key} is gone, and what it opens is still there: put it back, or delete the pods and volumes of {} to begin anew",
                key.name
            ),
        ),
    })
}

fn database(platform: &Platform, world: &World) -> (Finding, bool) {
    let Database::Managed(managed) = &platform.database else {
        return external::database(platform, world);
    };
    let name = names::component(&platform.name, Component::Postgres);
    let primary = world.primary();
    let writable = primary.is_some();
    if let Some(finding) = obstacle(platform, world, Component::Postgres) {
        return (finding, writable);
    }
    let upkeep = plan::postgres::upkeep(platform, managed, world).finding;
    if let Some((reason, message)) = &upkeep
        && *reason == Reason::VolumeNotExpandable
    {
        return (Finding::bad(*reason, message.clone()), writable);
    }
    if world.patroni.is_none() {
        return (
            Finding::bad(Reason::Progressing, format!("no instance of {name} answers yet")),
            false,
        );
    }
    let Some(primary) = primary else {
        return (
            Finding::bad(Reason::NoPrimary, format!("no instance of {name} takes writes")),
            false,
        );
    };
    let streaming = world.streaming().count();
    let wanted = usize::try_from(managed.instances - 1).unwrap_or(0);
    let (rolling, upkeep) = match upkeep {
        Some((Reason::RollingOut, _)) => (upkeep, None),
        _ => (None, upkeep),
    };
    if let Some((reason, message)) = upkeep {
        return (Finding::bad(reason, message), true);
    }
    if streaming < wanted {
        let message = absence(managed.instances, &name, world, &primary.name);
        return (Finding::bad(Reason::ReplicaNotStreaming, message), true);
    }
    if let Some((reason, message)) = rolling {
        return (Finding::bad(reason, message), true);
    }
    let good = || {
        Finding::good(
            Reason::Available,
            format!("{} is primary, {streaming} replicas stream", primary.name),
        )
    };
    (lagging(platform, world).unwrap_or_else(good), true)
}

/// Which replicas do not stream, for people.
fn absence(instances: i32, set: &str, world: &World, primary: &str) -> String {
    let follows =
        |replica: &String| *replica == primary || world.streaming().any(|member| member.name == *replica);
    let absent: Vec<_> = (0..instances)
        .map(|i| format!("{set}-{i}"))
        .filter(|replica| !follows(replica))
        .collect();
    format!(
        "{} of {} replicas stream from {primary}; missing: {}",
        world.streaming().count(),
        instances - 1,
        absent.join(", ")
    )
}

fn cache(platform: &Platform, world: &World) -> Finding {
    let Cache::Managed(managed) = &platform.cache else {
        return external::cache(platform, world);
    };
    if let Some(finding) = obstacle(platform, world, Component::Redis) {
        return finding;
    }
    let name = names::component(&platform.name, Component::Redis);
    let Some(view) = &world.sentinel else {
        return Finding::bad(Reason::Progressing, format!("no Sentinel of {name} answers yet"));
    };
    if !view.primary_up {
        return Finding::bad(
            Reason::NoPrimary,
            format!("{} is down and no other member has taken over yet", view.primary),
        );
    }
    if let Some(problem) = &view.quorum_problem {
        return Finding::bad(
            Reason::NoQuorum,
            format!("the Sentinels of {name} could not fail over: {problem}"),
        );
    }
    let wanted = usize::try_from(managed.replicas - 1).unwrap_or(0);
    let linked = world.linked().count();
    if linked < wanted {
        return Finding::bad(
            Reason::ReplicaNotStreaming,
            format!("{linked} of {wanted} replicas of {} are in step", view.primary),
        );
    }
    if !view.blind.is_empty() {
        let blind: Vec<_> = view.blind.iter().map(String::as_str).collect();
        return Finding::bad(
            Reason::NoQuorum,
            format!(
                "the Sentinels of {} do not know all replicas of {} yet",
                blind.join(", "),
                view.primary
            ),
        );
    }
    if let Some((reason, message)) = plan::redis::upkeep(platform, managed, world).finding {
        return Finding::bad(reason, message);
    }
    Finding::good(
        Reason::Available,
        format!("{} is primary, {linked} replicas are in step", view.primary),
    )
}

fn migrations(platform: &Platform, world: &World, database_writable: bool, database: &Finding) -> Finding {
    let name = migration_job::name(platform, world);
    let job = world.objects.get(&Key::new(Kind::Job, &name));
    let words = || {
        world
            .pods
            .iter()
            .filter(|pod| pod.name.starts_with(&name))
            .find_map(|pod| pod.last_words.clone())
    };
    match migration::state(job) {
        Migration::Done => Finding::good(
            Reason::Available,
            format!("the schema fits release {}", platform.version),
        ),
        Migration::Failed { message, .. } => {
            let cause = words().unwrap_or(message);
            Finding::bad(
                Reason::MigrationFailed,
                format!(
                    "Job {name} failed: {cause}. It is tried again every few minutes, or at once when the Job is deleted"
                ),
            )
        }
        Migration::Absent if !database_writable => Finding::bad(
            Reason::WaitingForDependency,
            format!("waits for the database: {}", database.message),
        ),
        state => obstacle(platform, world, Component::Migration).unwrap_or_else(|| {
            let failed = matches!(state, Migration::Running { failures } if failures > 0);
            let last = if failed {
                words().map(|words| format!("; the last try said: {words}"))
            } else {
                None
            };
            Finding::bad(
                Reason::Migrating,
                format!(
                    "Job {name} brings the schema to release {}{}",
                    platform.version,
                    last.unwrap_or_default()
                ),
            )
        }),
    }
}

fn api(platform: &Platform, world: &World) -> Finding {
    let name = names::component(&platform.name, Component::Api);
    if let Some(finding) = obstacle(platform, world, Component::Api) {
        return finding;
    }
    if let Some((reason, words)) = missing(&world.references, &of_api(platform)) {
        return Finding::bad(reason, words);
    }
    let Some(deployment) = world.objects.get(&Key::new(Kind::Deployment, &name)) else {
        return Finding::bad(Reason::WaitingForDependency, "waits for the migration");
    };
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let status = &deployment["status"];
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    let ready = number(&status["readyReplicas"]).min(number(&status["updatedReplicas"]));
    let current = number(&status["observedGeneration"]) >= number(&deployment["metadata"]["generation"]);
    let surplus = number(&status["replicas"]) > number(&status["updatedReplicas"]);
    if let Some(finding) = stuck(platform, world, deployment) {
        return finding;
    }
    if !current || ready < wanted || surplus {
        return Finding::bad(
            Reason::PodsNotReady,
            format!(
                "{ready} of {wanted} pods of {name} serve release {}",
                platform.version
            ),
        );
    }
    let asked = i64::from(platform.spec.api.replicas);
    let autoscaler = Key::new(Kind::HorizontalPodAutoscaler, &name);
    let decides = world.objects.contains_key(&autoscaler);
    if !platform.spec.api.autoscaling.enabled && (decides || wanted != asked) {
        // The autoscaler goes first, so that nobody else decides on the number when it is sent.
        return Finding::bad(
            Reason::RollingOut,
            format!("{name} goes from {wanted} to {asked} pods"),
        );
    }
    Finding::good(Reason::Available, format!("{ready} of {wanted} pods serve"))
}

/// A rollout whose next pod does not become ready. Those that serve are left alone until the spec changes.
fn stuck(platform: &Platform, world: &World, deployment: &Value) -> Option<Finding> {
    let conditions = deployment["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded")?;
    let pod = world.pods_of(Component::Api).find(|pod| !pod.ready)?;
    Some(Finding::bad(
        Reason::RolloutStuck,
        format!(
            "pod {} of release {} does not become ready; pods that serve are left alone until the spec changes",
            pod.name, platform.version
        ),
    ))
}

fn end_to_end(world: &World) -> Finding {
    match &world.deep {
        Some(Ok(deep)) => match deep.failure() {
            None => Finding::good(
                Reason::AllReady,
                "a write, a replica read, a Redis round trip and an API answer work",
            ),
            Some(failure) => Finding::bad(Reason::ProbeFailed, failure),
        },
        Some(Err(error)) => Finding::bad(Reason::ProbeFailed, error.clone()),
        None => Finding::bad(Reason::PodsNotReady, "no API pod serves yet"),
    }
}
