//! Moves the vectors of people with very many of them into the index, and out of it when few are left, in bounded batches and in the
//! background. Until everything is there, and where the index is seen to find too little, they are searched exactly.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::approximate::{Next, Scale, Seen, next};
use crate::entropy;
use crate::routing::{Fleet, Scope, StoreError};
use crate::store::approximate::{ClaimPerson, Dismiss, LookAt, Mark, Measure, Person, Rest, Trust};

/// How long a claim lasts; each batch prolongs it. Longer than a measurement.
const LEASE: Duration = Duration::from_mins(5);
/// Limit of one step in the database.
const STEP: Duration = Duration::from_secs(20);
/// Rows of one batch: each is put into a graph, which takes milliseconds for long vectors.
const BATCH: usize = 100;
/// Pause between batches, for everybody else.
const BREATH: Duration = Duration::from_millis(20);
/// Questions of one measurement.
const QUESTIONS: i64 = 10;
/// Limit of a measurement: each question compares all vectors of the person.
const MEASURING: Duration = Duration::from_mins(3);

/// Tends people until told to stop.
pub async fn run(database: Fleet, scale: Scale, stop: CancellationToken) {
    let work = async {
        loop {
            sleep(entropy::jitter(scale.look)).await;
            loop {
                match tend_one(&database, &scale).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::debug!(error = ?error, "nobody's vectors were moved");
                        break;
                    }
                }
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

fn scope(person: Option<&Person>) -> Scope {
    Scope {
        tenant: person.map(|person| person.tenant_id),
        deadline: Instant::now() + STEP,
        at_least: None,
        primary_only: true,
    }
}

/// Tends somebody who is due, if anybody is. Somebody whose lease was lost, or whose rows are in use, comes again when the lease has ended.
async fn tend_one(database: &Fleet, scale: &Scale) -> Result<bool, StoreError> {
    let claim = ClaimPerson { lease: LEASE };
    let Some(person) = database.write(scope(None), claim).await?.output else {
        return Ok(false);
    };
    let look = LookAt {
        person: person.clone(),
        low: scale.low(),
    };
    let own = || scope(Some(&person));
    let mut recall = None;
    loop {
        let Some(found) = database.read(&own(), &look).await?.0 else {
            return Ok(true);
        };
        let seen = Seen {
            ready: found.ready,
            enough: found.enough,
            astray: !found.astray.is_empty(),
            recall,
        };
        let done = match next(seen) {
            Next::Mark(to) => {
                // Whatever was measured, it was of other rows.
                recall = None;
                move_rows(database, &person, &found.astray, to).await?
            }
            Next::Measure => {
                recall = Some(measure(database, &person, scale).await?);
                true
            }
            Next::Trust(ready) => {
                let trust = Trust {
                    person: person.clone(),
                    ready,
                };
                tracing::info!(user.id = %person.user_id, through_index = ready, recall, "searches of a person's memories change");
                database.write(own(), trust).await?.output
            }
            Next::Rest => {
                let rest = Rest {
                    person: person.clone(),
                    pause: scale.rest,
                };
                database.write(own(), rest).await?;
                false
            }
            Next::Forget => {
                database.write(own(), Dismiss(person.clone())).await?;
                false
            }
        };
        if !done {
            return Ok(true);
        }
    }
}

/// What the index finds of somebody, who has at least `low` vectors.
async fn measure(database: &Fleet, person: &Person, scale: &Scale) -> Result<f64, StoreError> {
    let measure = Measure {
        person: person.clone(),
        from: entropy::below(scale.low().saturating_sub(QUESTIONS)),
        questions: QUESTIONS,
    };
    let patient = Scope {
        deadline: Instant::now() + MEASURING,
        ..scope(Some(person))
    };
    Ok(database.read(&patient, &measure).await?.0)
}

/// Moves rows, a batch at a time; answers whether any moved.
async fn move_rows(
    database: &Fleet,
    person: &Person,
    ids: &[uuid::Uuid],
    approximate: bool,
) -> Result<bool, StoreError> {
    let mut moved = 0;
    for batch in ids.chunks(BATCH) {
        let mark = Mark {
            person: person.clone(),
            ids: batch.to_vec(),
            approximate,
            lease: LEASE,
        };
        match database.write(scope(Some(person)), mark).await?.output {
            Some(rows) => moved += rows,
            None => return Ok(false),
        }
        sleep(BREATH).await;
    }
    Ok(moved > 0)
}
