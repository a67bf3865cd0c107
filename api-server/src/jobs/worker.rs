//! Claims jobs and does them, a bounded number at a time. A claim is a lease: it is renewed while the work goes on, and a worker that dies
//! or is cut off leaves its job to another one. Before each effect the lease is asked for again, in the same transaction.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::{JobError, STEP, Tools, perform, scope};
use crate::domain::task::{Failure, KINDS, Next, Patience, after};
use crate::entropy;
use crate::metrics::jobs::JobOutcome;
use crate::routing::retry::{Fault, classify};
use crate::routing::{Scope, StoreError, is_busy};
use crate::store::jobs::{ClaimJobs, FailJob, FindBacklog, Job, LOST, ReleaseJob, RenewJob};

/// Pause while there is nothing to do.
const IDLE: Duration = Duration::from_secs(1);
/// A tenant has at most about so many jobs running, however many it asks for.
const EACH: i32 = 8;
/// No job runs longer at a stretch.
const LONGEST: Duration = Duration::from_mins(30);
/// How often the backlog is measured.
const MEASURE: Duration = Duration::from_secs(15);
/// Tries after a mistake of ours, or while the database is away.
const OURS: Patience = Patience {
    first: Duration::from_secs(2),
    factor: 3,
    longest: Duration::from_mins(10),
    unavailable: None,
    refused: 5,
};

/// Works until the drain begins. What runs then is finished, or given back when half of the drain's time is over.
pub async fn run(tools: Tools) {
    let draining = tools.lifecycle.draining.clone();
    draining.run_until_cancelled(follow(tools)).await;
}

/// Measures the backlog now and then.
pub async fn measure(tools: Tools) {
    let work = async {
        loop {
            let scope = all_tenants();
            match tools.database.read(&scope, &FindBacklog).await {
                Ok((backlog, _)) => {
                    tools.metrics.due.set(backlog.due);
                    tools.metrics.oldest.set(backlog.oldest);
                }
                Err(error) => tracing::debug!(error = ?error, "the backlog could not be measured"),
            }
            sleep(entropy::jitter(MEASURE)).await;
        }
    };
    tools.lifecycle.draining.run_until_cancelled(work).await;
}

/// No tenant, for one step.
pub(super) fn all_tenants() -> Scope {
    Scope {
        tenant: None,
        deadline: Instant::now() + STEP,
        at_least: None,
        primary_only: true,
    }
}

async fn follow(tools: Tools) {
    let (running, ended) = (TaskTracker::new(), Arc::new(Notify::new()));
    loop {
        let settings = tools.live.get().jobs.clone();
        let most = usize::try_from(settings.concurrency).unwrap_or(usize::MAX);
        let free = most.saturating_sub(running.len());
        let claimed = if free == 0 {
            Vec::new()
        } else {
            claim(&tools, free, settings.lease.get()).await
        };
        let idle = claimed.is_empty();
        for job in claimed {
            let (tools, ended) = (tools.clone(), ended.clone());
            let lifecycle = tools.lifecycle.clone();
            let work = running.track_future(async move {
                work(&tools, &job).await;
            });
            // A drain waits for it.
            lifecycle.tasks.spawn(async move {
                work.await;
                ended.notify_one();
            });
        }
        if idle {
            // Full or without work; a place that becomes free is filled at once.
            let _ = timeout(entropy::jitter(IDLE), ended.notified()).await;
        }
    }
}

async fn claim(tools: &Tools, free: usize, lease: Duration) -> Vec<Job> {
    let claim = ClaimJobs {
        kinds: &KINDS,
        most: i32::try_from(free).unwrap_or(i32::MAX),
        lease,
        each: EACH,
    };
    match tools.database.write(all_tenants(), claim).await {
        Ok(done) => done.output,
        Err(error) => {
            tracing::debug!(error = ?error, "no job could be claimed");
            Vec::new()
        }
    }
}

/// How an attempt ended.
#[derive(Debug)]
enum Ended {
    /// The work has settled it.
    Settled,
    /// It failed, and is not settled.
    Failed(Failure),
    /// Somebody does not want it any more.
    Cancelled,
    /// Somebody else has it.
    Lost,
    /// The process ends.
    Interrupted,
}

impl Ended {
    const fn outcome(&self) -> JobOutcome {
        match self {
            Self::Settled => JobOutcome::Settled,
            Self::Failed(_) => JobOutcome::Failed,
            Self::Cancelled => JobOutcome::Cancelled,
            Self::Lost => JobOutcome::Lost,
            Self::Interrupted => JobOutcome::Interrupted,
        }
    }
}

async fn work(tools: &Tools, job: &Job) {
    let started = Instant::now();
    tools.metrics.running.inc();
    let ended = attend(tools, job).await;
    tools.metrics.running.dec();
    tools
        .metrics
        .count(job.kind.as_str(), ended.outcome(), started.elapsed());
    let (id, kind, attempt) = (job.hold.id, job.kind.as_str(), job.attempt);
    tracing::info!(job.id = %id, job.kind = kind, job.attempt = attempt, outcome = ?ended, "job attempt ended");
    let settled = match ended {
        Ended::Settled | Ended::Lost => return,
        Ended::Cancelled | Ended::Interrupted => tools
            .database
            .write(scope(job), ReleaseJob(job.hold))
            .await
            .map(drop),
        Ended::Failed(failure) => {
            let fail = FailJob {
                hold: job.hold,
                pause: match after(OURS, attempt, &failure) {
                    Next::Retry(pause) => Some(entropy::later(pause)),
                    Next::GiveUp => None,
                },
                error: failure.to_string(),
            };
            tools.database.write(scope(job), fail).await.map(drop)
        }
    };
    if let Err(error) = settled {
        // The lease ends by itself.
        tracing::warn!(job.id = %id, error = ?error, "job could not be settled, it is tried again when its lease ends");
    }
}

/// Does the work while it renews the lease.
async fn attend(tools: &Tools, job: &Job) -> Ended {
    let leave = async {
        tools.lifecycle.draining.cancelled().await;
        sleep(tools.live.get().drain.timeout.get() / 2).await;
    };
    let work = AssertUnwindSafe(timeout(LONGEST, perform(tools, job))).catch_unwind();
    tokio::select! {
        done = work => match done {
            Ok(Ok(Ok(()))) => Ended::Settled,
            Ok(Ok(Err(JobError::Store(StoreError::Conflict(LOST))))) => Ended::Lost,
            Ok(Ok(Err(JobError::Store(error)))) => {
                tracing::warn!(job.id = %job.hold.id, error = ?error, "job met a failure of the database");
                Ended::Failed(met(&error))
            }
            Ok(Ok(Err(JobError::Failed(failure)))) => Ended::Failed(failure),
            Ok(Err(_)) => Ended::Failed(Failure::Refused("it took too long".to_owned())),
            Err(_) => Ended::Failed(mistake()),
        },
        ended = renew(tools, job) => ended,
        () = leave => Ended::Interrupted,
    }
}

/// What a failure of the database means for a job: what is gone stays gone, a mistake is tried a few times, everything else until it works.
fn met(error: &StoreError) -> Failure {
    match error {
        StoreError::Missing | StoreError::Denied(_) => Failure::Hopeless(
            "what the task writes to is gone, or the person may not write there any more".to_owned(),
        ),
        StoreError::Taken(_)
        | StoreError::KeyReused
        | StoreError::Conflict(_)
        | StoreError::Encoding(_)
        | StoreError::Corrupt(_) => mistake(),
        StoreError::Database(error) if classify(error) == Fault::Final && !is_busy(error) => mistake(),
        StoreError::Unavailable(_) | StoreError::Unknown | StoreError::Database(_) => {
            Failure::unavailable("the database was not available")
        }
    }
}

fn mistake() -> Failure {
    Failure::Refused("a mistake of the server; quote the task's id".to_owned())
}

/// Renews the lease until there is a reason to stop working.
async fn renew(tools: &Tools, job: &Job) -> Ended {
    let mut good_until = Instant::now() + tools.live.get().jobs.lease.get();
    loop {
        let lease = tools.live.get().jobs.lease.get();
        sleep(lease / 4).await;
        let asked = Instant::now();
        let renew = RenewJob {
            hold: job.hold,
            lease,
        };
        match tools.database.write(scope(job), renew).await {
            Ok(done) if done.output => return Ended::Cancelled,
            Ok(_) => good_until = asked + lease,
            Err(StoreError::Conflict(_)) => return Ended::Lost,
            Err(error) => tracing::debug!(error = ?error, "lease could not be renewed"),
        }
        if Instant::now() >= good_until {
            return Ended::Lost;
        }
    }
}
