//! One platform, kept: observe, validate, plan, apply, status.

pub mod apply;
pub mod assess;
pub mod build;
pub mod cache;
pub mod command;
pub mod deadline;
pub mod diff;
pub mod failover;
#[cfg(test)]
pub mod fixtures;
pub mod grant;
pub mod object;
pub mod observe;
pub mod pending;
pub mod plan;
pub mod report;
pub mod status;
pub mod validate;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::TankaPlatform;
use crds::conditions::Reason;
use crds::names::{self, Component};
use futures::FutureExt;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use self::apply::{Applier, Rejections};
use self::cache::{Caches, Guarded};
use self::command::Commander;
use self::failover::Tracker;
use self::grant::Grants;
use self::object::{Key, Kind};
use self::observe::World;
use self::observe::probe::Probe;
use self::observe::silence;
use self::pending::Pending;
use self::report::Reporter;
use self::status::Inputs;
use self::validate::{Database, Platform, Release, validate};
use crate::metrics::Metrics;

/// First pause after a failed look at a platform; it doubles with each further failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);

/// Everything that a look at a platform needs.
pub struct Context {
    /// Images of the release.
    pub release: Release,
    /// Watch caches.
    pub caches: Caches,
    /// Platforms that wait for a look.
    pub pending: Pending,
    /// Reads the rest of the world.
    pub probe: Probe,
    /// Gives the operator its rights in a namespace.
    pub grants: Grants,
    /// Carries plans out.
    pub applier: Applier,
    /// Carries out what is no object.
    pub commander: Commander,
    /// Writes status and events.
    pub reporter: Reporter,
    /// Counts.
    pub metrics: Metrics,
    /// What is remembered of each platform between looks, by namespace and name; all of it can be lost.
    pub memories: Mutex<HashMap<(String, String), Memory>>,
}

/// What is remembered of a platform between two looks.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    tracker: Tracker,
    rejections: Rejections,
    silence: silence::Since,
    failures: u32,
}

/// Why a look at a platform failed. Waiting is not a failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server failed or could not be reached.
    #[error("the Kubernetes API failed")]
    Kubernetes(#[from] kube::Error),
    /// A look panicked: a defect of ours, kept from the other platforms.
    #[error("a look at the platform panicked: {0}")]
    Panicked(String),
}

/// One look at one platform. A panic in it is an error of this platform and leaves the others alone.
///
/// # Errors
/// When the API server fails; the next look comes after a pause.
#[tracing::instrument(name = "look", skip_all, fields(platform.name = object.name_any(), platform.namespace = object.namespace(), otel.status_code = tracing::field::Empty))]
pub async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let outcome = caught(Box::pin(guarded(&object, &context))).await;
    let Err(error) = &outcome else { return outcome };
    tracing::Span::current().record("otel.status_code", "ERROR");
    if let Error::Kubernetes(kube::Error::Api(status)) = error
        && status.code == 403
    {
        context.grants.doubt(&object.uid().unwrap_or_default());
    }
    if let Error::Panicked(_) = error {
        context.metrics.panicked();
    }
    if let (Some((reason, message)), Ok(stored)) = (error.told(), &object.0)
        && let Err(unsaid) = context.reporter.halted(stored, reason, &message, now()).await
    {
        tracing::warn!(error = %unsaid, "a failure could not be written into the status");
    }
    outcome
}

/// Runs a look; a panic in it becomes an error.
async fn caught(look: impl Future<Output = Result<Action, Error>>) -> Result<Action, Error> {
    AssertUnwindSafe(look)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| {
            let words = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(Error::Panicked(words.unwrap_or_default()))
        })
}

impl Error {
    /// What of it belongs into the status. An API server that cannot be reached cannot be told either, and comes back by itself.
    fn told(&self) -> Option<(Reason, String)> {
        match self {
            Self::Panicked(words) => Some((
                Reason::InternalError,
                format!(
                    "the operator failed on this platform by a defect of its own and tries again: {words}"
                ),
            )),
            Self::Kubernetes(kube::Error::Api(status))
                if (400..500).contains(&status.code) && status.code != 429 =>
            {
                Some((
                    Reason::ApplyFailed,
                    format!("the Kubernetes API refused a request: {}", status.message),
                ))
            }
            Self::Kubernetes(_) => None,
        }
    }
}

async fn guarded(object: &Guarded, context: &Context) -> Result<Action, Error> {
    let stored = match &object.0 {
        Ok(stored) => stored,
        Err(invalid) => {
            context.reporter.unreadable(&invalid.metadata, now()).await?;
            return Ok(Action::await_change());
        }
    };
    let _timer = context.metrics.reconcile();
    if let Some(waited) = context
        .pending
        .begin(&object.namespace().unwrap_or_default(), &object.name_any())
    {
        context.metrics.waited(waited);
    }
    if stored.metadata.deletion_timestamp.is_some() {
        // Owner references delete what belongs to the platform; there is nothing that could hang.
        return Ok(Action::await_change());
    }
    let platform = match validate(stored, &context.release) {
        Ok(platform) => platform,
        Err(invalid) => {
            context
                .reporter
                .halted(stored, Reason::InvalidSpec, &invalid.0, now())
                .await?;
            return Ok(Action::await_change());
        }
    };
    let action = Box::pin(look(stored, &platform, context)).await?;
    context.memory(&platform.namespace, &platform.name, |memory| memory.failures = 0);
    Ok(action)
}

/// The pipeline.
async fn look(stored: &TankaPlatform, platform: &Platform, context: &Context) -> Result<Action, Error> {
    if stored.status.is_none() {
        // Whoever looks sees that work has begun before the first object exists.
        report(stored, platform, &World::default(), context).await?;
    }
    context.grants.ensure(platform).await?;
    let cache = context.caches.of(&platform.namespace).await?;
    let (mut world, credentials) = context.probe.observe(platform, &cache, now()).await?;
    context
        .applier
        .remember_credentials(&platform.namespace, credentials.clone());
    recall(platform, context, &mut world).await?;
    let assessment = assess::assess(platform, &world);
    let mut plan = plan::plan(platform, &world, &assessment);
    let requeue = plan.requeue;
    if !platform.spec.paused {
        let actions = std::mem::take(&mut plan.actions);
        let rejections = context.applier.apply(platform, &mut world, plan).await?;
        context
            .commander
            .carry_out(platform, &world, actions, &credentials, now())
            .await?;
        context.memory(&platform.namespace, &platform.name, |memory| {
            memory.rejections.clone_from(&rejections);
        });
        world.rejected = rejections;
    }
    report(stored, platform, &world, context).await?;
    Ok(Action::requeue(requeue))
}

/// Adds to the world what is remembered from earlier looks, and what is looked at less often.
async fn recall(platform: &Platform, context: &Context, world: &mut World) -> Result<(), Error> {
    let now = now();
    world.commands = context.commander.commands(platform, now);
    context.memory(&platform.namespace, &platform.name, |memory| {
        world.rejected = memory.rejections.clone();
        world.silent = silence::track(&mut memory.silence, world.patroni.as_ref(), now);
    });
    let set = names::component(&platform.name, Component::Postgres);
    let exists = world.objects.contains_key(&Key::new(Kind::StatefulSet, set));
    if matches!(platform.database, Database::Managed(_)) && !exists {
        world.patroni_state = Some(context.probe.left_behind(platform).await?);
    }
    Ok(())
}

/// Writes what was seen, if it differs from what is written already.
#[tracing::instrument(skip_all)]
async fn report(
    stored: &TankaPlatform,
    platform: &Platform,
    world: &World,
    context: &Context,
) -> Result<(), Error> {
    let now = now();
    let assessment = assess::assess(platform, world);
    let primary = world.primary().map(|member| member.name.clone());
    let failover = context.memory(&platform.namespace, &platform.name, |memory| {
        failover::track(&mut memory.tracker, primary.as_deref(), now)
    });
    if let Some(failover) = &failover {
        context.metrics.failover(failover.downtime_millis);
    }
    let before = context.reporter.latest(stored);
    let inputs = Inputs {
        platform,
        world,
        assessment: &assessment,
        failover,
        now,
    };
    context
        .reporter
        .write(stored, &status::status(&inputs, &before))
        .await?;
    Ok(())
}

impl Context {
    fn memory<T>(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        change(
            memories
                .entry((namespace.to_owned(), name.to_owned()))
                .or_default(),
        )
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the controller calls it with values"
)]
/// When to look again after a failure: later each time, and not at the same moment for all.
pub fn after_error(object: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let name = object.name_any();
    context.metrics.failed();
    tracing::warn!(
        platform.name = name,
        error = error as &dyn std::error::Error,
        "a look at a platform failed"
    );
    let namespace = object.namespace().unwrap_or_default();
    let failures = context.memory(&namespace, &name, |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    Action::requeue(backoff(failures, jitter()))
}

/// Exponential, with `jitter` in 0..1 taking away up to half.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(
        1_u32
            .checked_shl(failures.saturating_sub(1).min(16))
            .unwrap_or(u32::MAX),
    );
    doubled.min(LONGEST_BACKOFF).mul_f64(1.0 - jitter / 2.0)
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the rim: decisions get the time from here"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the rim: decisions get their randomness from here"
)]
fn jitter() -> f64 {
    rand::RngExt::random(&mut rand::rng())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_that_the_status_tells() {
        let error = caught(async { panic!("no such state") }).await.unwrap_err();
        let (reason, message) = error.told().unwrap();
        assert_eq!(reason, Reason::InternalError);
        assert!(message.contains("no such state"), "{message}");
    }

    #[test]
    fn pauses_grow_and_end_at_a_minute() {
        assert_eq!(backoff(1, 0.0), Duration::from_secs(1));
        assert_eq!(backoff(3, 0.0), Duration::from_secs(4));
        assert_eq!(backoff(40, 0.0), Duration::from_mins(1));
        assert_eq!(backoff(3, 1.0), Duration::from_secs(2));
    }
}
