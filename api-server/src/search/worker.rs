//! Computes the vectors of memories in the background: claims a batch, asks the endpoint, stores or tries again later. Nothing waits
//! for it; a memory without a vector is found by its words.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::approximate::Scale;
use super::endpoint::{EmbedError, Endpoint};
use crate::config::Live;
use crate::entropy;
use crate::routing::{Fleet, Scope, StoreError};
use crate::store::embeddings::{Backfill, Claim, Fail, Job, Store};

/// Texts of one question.
const BATCH: i32 = 32;
/// Limit of one question.
const QUESTION: Duration = Duration::from_secs(30);
/// How long a claim lasts; longer than a question.
const LEASE: Duration = Duration::from_mins(2);
/// Pause while there is nothing to do.
const IDLE: Duration = Duration::from_secs(1);
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));
/// Attempts of texts that are refused; an endpoint that is away costs none of them.
const ATTEMPTS: i16 = 5;
/// Limit of one step in the database.
const STEP: Duration = Duration::from_secs(5);
/// Memories that are looked at in one step of the backfill.
const FILL: i32 = 500;

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Again after a pause.
    Retry(Duration),
    /// Never again.
    GiveUp,
}

/// Decides what follows a failure at an attempt, counted from 1.
pub fn after(attempt: i16, error: &EmbedError) -> Next {
    let exponent = u32::from(attempt.unsigned_abs().saturating_sub(1)).min(12);
    let pause = PAUSE.0.saturating_mul(1 << exponent).min(PAUSE.1);
    match error {
        EmbedError::Unavailable { after, .. } => Next::Retry(after.map_or(pause, |asked| asked.max(pause))),
        EmbedError::Refused(_) if attempt < ATTEMPTS => Next::Retry(pause),
        EmbedError::Refused(_) => Next::GiveUp,
    }
}

/// Works until told to stop. Without an endpoint it only waits for one.
pub async fn run(database: Fleet, live: Live, scale: Scale, stop: CancellationToken) {
    let work = async {
        let mut changes = live.subscribe();
        loop {
            changes.borrow_and_update();
            let settings = live.get().embeddings.clone();
            match Endpoint::of(&settings) {
                Some(Ok(endpoint)) => {
                    tokio::select! {
                        () = follow(&database, &endpoint, &scale) => {}
                        _ = changes.changed() => {}
                    }
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "memories get no vectors");
                    let _ = tokio::time::timeout(PAUSE.1, changes.changed()).await;
                }
                None => {
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

async fn follow(database: &Fleet, endpoint: &Endpoint, scale: &Scale) {
    let mut filled = Some(Uuid::nil());
    loop {
        if let Some(after) = filled {
            filled = backfill(database, endpoint, after).await;
        }
        let did = step(database, endpoint, scale).await.unwrap_or_else(|error| {
            tracing::debug!(error = ?error, "no memory could be claimed");
            0
        });
        if did == 0 && filled.is_none() {
            sleep(entropy::jitter(IDLE)).await;
        }
    }
}

fn scope() -> Scope {
    Scope {
        tenant: None,
        deadline: Instant::now() + STEP,
        at_least: None,
        primary_only: true,
    }
}

/// Queues memories that were written before there was this endpoint; answers where to go on.
async fn backfill(database: &Fleet, endpoint: &Endpoint, after: Uuid) -> Option<Uuid> {
    let fill = Backfill {
        model: endpoint.space(),
        after,
        most: FILL,
    };
    match database.write(scope(), fill).await {
        Ok(done) => done.output,
        Err(error) => {
            tracing::debug!(error = ?error, "older memories could not be queued");
            sleep(entropy::jitter(IDLE)).await;
            Some(after)
        }
    }
}

/// One batch; answers how many memories it had.
async fn step(database: &Fleet, endpoint: &Endpoint, scale: &Scale) -> Result<usize, StoreError> {
    let claim = Claim {
        most: BATCH,
        lease: LEASE,
    };
    let jobs = database.write(scope(), claim).await?.output;
    if jobs.is_empty() {
        return Ok(0);
    }
    let texts: Vec<&str> = jobs.iter().map(|job| job.content.as_str()).collect();
    match endpoint.embed(&texts, Instant::now() + QUESTION).await {
        Ok(vectors) => {
            store(database, endpoint, scale, &jobs, vectors).await?;
        }
        // One text that it refuses must not hold back the others.
        Err(EmbedError::Refused(_)) if jobs.len() > 1 => {
            for job in &jobs {
                let one = std::slice::from_ref(job);
                match endpoint
                    .embed(&[job.content.as_str()], Instant::now() + QUESTION)
                    .await
                {
                    Ok(vectors) => store(database, endpoint, scale, one, vectors).await?,
                    Err(error) => fail(database, one, &error).await?,
                }
            }
        }
        Err(error) => {
            tracing::warn!(%error, memories = jobs.len(), "vectors could not be computed");
            fail(database, &jobs, &error).await?;
            if matches!(error, EmbedError::Unavailable { .. }) {
                sleep(entropy::jitter(PAUSE.0)).await;
            }
        }
    }
    Ok(jobs.len())
}

async fn store(
    database: &Fleet,
    endpoint: &Endpoint,
    scale: &Scale,
    jobs: &[Job],
    vectors: Vec<Vec<f32>>,
) -> Result<(), StoreError> {
    let store = Store {
        model: endpoint.space(),
        vectors: jobs.iter().map(|job| job.memory_id).zip(vectors).collect(),
        above: scale.above,
    };
    database.write(scope(), store).await.map(drop)
}

async fn fail(database: &Fleet, jobs: &[Job], error: &EmbedError) -> Result<(), StoreError> {
    let attempt = jobs.iter().map(|job| job.attempts).max().unwrap_or(1);
    let fail = Fail {
        ids: jobs.iter().map(|job| job.memory_id).collect(),
        pause: match after(attempt, error) {
            Next::Retry(pause) => Some(entropy::later(pause)),
            Next::GiveUp => None,
        },
        error: error.to_string(),
    };
    database.write(scope(), fail).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_the_endpoint_may_ask_for_longer_ones() {
        let away = |after| EmbedError::Unavailable {
            cause: String::new(),
            after,
        };
        assert_eq!(after(1, &away(None)), Next::Retry(Duration::from_secs(1)));
        assert_eq!(after(4, &away(None)), Next::Retry(Duration::from_secs(8)));
        assert_eq!(after(100, &away(None)), Next::Retry(PAUSE.1));
        let asked = Some(Duration::from_secs(30));
        assert_eq!(after(1, &away(asked)), Next::Retry(Duration::from_secs(30)));
    }

    #[test]
    fn only_what_is_refused_is_given_up() {
        let refused = EmbedError::Refused(String::new());
        assert_eq!(after(1, &refused), Next::Retry(Duration::from_secs(1)));
        assert_eq!(after(ATTEMPTS, &refused), Next::GiveUp);
    }
}
