//! The deep check: a durable write, a read by a replica, a Redis round trip, each with its age and its cause of failure.
//! One run serves everybody who asks within a second, so polling it costs nothing.

use std::time::Duration;

use futures::future::try_join_all;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::App;
use crate::clock;
use crate::routing::choose::Role;
use crate::routing::{Scope, StoreError};
use crate::store::health::{BeatAge, Touch};

/// How long a report is good.
const FRESH: Duration = Duration::from_secs(1);
/// Limit of each check.
const LIMIT: Duration = Duration::from_secs(2);

/// What the deep check found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether everything works.
    pub ok: bool,
    /// When it was found.
    pub checked_at: Timestamp,
    /// A write through the primary.
    pub write: Check,
    /// A read by a replica, or by the primary if there is no other instance.
    pub read: Check,
    /// A Redis round trip.
    pub redis: Check,
    /// Every configured instance.
    pub instances: Vec<InstanceState>,
}

/// One check.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Check {
    /// Whether it worked.
    pub ok: bool,
    /// Milliseconds that it took.
    pub latency_ms: f64,
    /// Milliseconds since the replica's data was current; for the read only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<f64>,
    /// Who answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Why it did not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An instance as its probe sees it.
#[derive(Debug, Clone, Serialize)]
pub struct InstanceState {
    /// Configured name.
    pub name: String,
    /// Whether it answers.
    pub up: bool,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Timeline and position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Upper bound of its age in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u128>,
}

/// Runs the check, at most once a second.
#[derive(Debug, Default)]
pub(super) struct DeepCheck(Mutex<Option<(Instant, Report)>>);

impl DeepCheck {
    pub(super) async fn run(&self, app: &App) -> Report {
        let mut last = self.0.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < FRESH
        {
            return report.clone();
        }
        let (write, read, redis) = tokio::join!(check_write(app), check_read(app), check_redis(app));
        let instances = app.database().report().into_iter().map(|instance| {
            let seen = instance.candidate;
            InstanceState {
                name: instance.name,
                up: seen.is_some(),
                role: seen.map(|seen| seen.role.as_str()),
                position: seen.map(|seen| seen.position.to_string()),
                lag_ms: seen.and_then(|seen| seen.lag).map(|lag| lag.as_millis()),
            }
        });
        let instances: Vec<_> = instances.collect();
        let ok = write.ok && read.ok && redis.ok;
        let report = Report {
            ok,
            checked_at: clock::now(),
            write,
            read,
            redis,
            instances,
        };
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

fn scope() -> Scope {
    Scope {
        tenant: None,
        deadline: Instant::now() + LIMIT,
        at_least: None,
        primary_only: false,
    }
}

fn failed(started: Instant, error: &StoreError) -> Check {
    let cause = match error {
        StoreError::Database(cause) => cause.to_string(),
        other => other.to_string(),
    };
    Check {
        latency_ms: millis(started.elapsed()),
        error: Some(cause),
        ..Check::default()
    }
}

async fn check_write(app: &App) -> Check {
    let started = Instant::now();
    match app.database().write(scope(), Touch).await {
        Ok(written) => Check {
            ok: true,
            latency_ms: millis(started.elapsed()),
            instance: Some(written.served.instance),
            role: Some(written.served.role.as_str()),
            ..Check::default()
        },
        Err(error) => failed(started, &error),
    }
}

/// Reads from where reads go now; it does not ask for the write beside it, because a replica that needs more than
/// `readYourWritesTimeout` for one write is not ill yet. With several instances that must be a replica: a platform whose replicas all lag is not well.
async fn check_read(app: &App) -> Check {
    let started = Instant::now();
    let (age, served) = match app.database().read(&scope(), &BeatAge).await {
        Ok(done) => done,
        Err(error) => return failed(started, &error),
    };
    let alone = app.config().database.instances.len() == 1;
    let ok = alone || served.role == Role::Replica;
    Check {
        ok,
        latency_ms: millis(started.elapsed()),
        age_ms: Some(age * 1_000.0),
        instance: Some(served.instance),
        role: Some(served.role.as_str()),
        error: (!ok).then(|| "no replica is fresh enough to serve reads".to_owned()),
    }
}

async fn check_redis(app: &App) -> Check {
    let started = Instant::now();
    let error = match app.redis().get() {
        None => Some("not connected".to_owned()),
        Some(connected) => {
            let ping = redis::cmd("PING");
            let asked = try_join_all(
                connected
                    .all()
                    .map(async |mut connection| ping.query_async::<String>(&mut connection).await),
            );
            match timeout(LIMIT, asked).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no answer in time".to_owned()),
            }
        }
    };
    Check {
        ok: error.is_none(),
        latency_ms: millis(started.elapsed()),
        error,
        ..Check::default()
    }
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}
