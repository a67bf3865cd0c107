//! Runs operations: reads on any instance that may serve them, writes on the primary.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument;
use uuid::Uuid;

use super::Fleet;
use super::place::Place;
use crate::cache::Target;
use crate::domain::event::Event;
use crate::entropy;
use crate::metrics::{OutcomeLabels, ReadLabels};
use crate::routing::choose::Reason;
use crate::routing::operation::{
    Idempotency, Read, ReadHandle, Scope, Served, StoreError, Write, WriteHandle, Written,
};
use crate::routing::position::Position;
use crate::routing::retry::{Fault, Next, Phase, after, classify};
use crate::routing::session::Lease;
use crate::store::idempotency::{self, Claim};
use crate::tally;

/// Attempts of one read; each goes to another instance if there is one.
const READ_ATTEMPTS: u32 = 3;
/// Attempts of one write; the deadline usually ends them earlier.
const WRITE_ATTEMPTS: u32 = 30;
/// Pause before a write is tried again.
const PAUSE: Duration = Duration::from_millis(40);

/// A write that got as far as COMMIT.
struct Attempt<T> {
    output: T,
    position: Position,
    events: Vec<Event>,
    people: Vec<Uuid>,
    invalidations: Vec<(i64, Target)>,
    replayed: bool,
}

struct Failed {
    phase: Phase,
    error: StoreError,
}

impl Failed {
    fn open(error: impl Into<StoreError>) -> Self {
        Self {
            phase: Phase::Open,
            error: error.into(),
        }
    }

    fn fault(&self) -> Fault {
        match &self.error {
            StoreError::Database(error) => classify(error),
            _ => Fault::Final,
        }
    }
}

/// What happens within the transaction of a write; answers also whether the answer is an old one.
trait Work: Sync {
    /// Doing it twice has the effect of doing it once.
    const REPEATABLE: bool;
    type Output: Send;

    fn run(
        &self,
        on: &mut WriteHandle<'_>,
    ) -> impl Future<Output = Result<(Self::Output, bool), StoreError>> + Send;
}

struct Plain<W>(W);

impl<W: Write> Work for Plain<W> {
    const REPEATABLE: bool = false;
    type Output = W::Output;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(W::Output, bool), StoreError> {
        Ok((self.0.run(on).await?, false))
    }
}

struct Once<W> {
    write: W,
    key: Idempotency,
}

impl<W: Write> Work for Once<W>
where
    W::Output: Serialize + DeserializeOwned,
{
    const REPEATABLE: bool = true;
    type Output = W::Output;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(W::Output, bool), StoreError> {
        if let Claim::Answered(answer) = idempotency::claim(on, &self.key).await? {
            return Ok((serde_json::from_str(&answer)?, true));
        }
        let output = self.write.run(on).await?;
        idempotency::keep(on, &self.key, &serde_json::to_string(&output)?).await?;
        Ok((output, false))
    }
}

impl Fleet {
    /// Reads.
    pub async fn read<R: Read>(&self, scope: &Scope, read: &R) -> Result<(R::Output, Served), StoreError> {
        let mut attempt = 1;
        loop {
            let place = self.place_read(scope).await?;
            let error = match self.read_at(&place, scope, read).await {
                Ok(output) => {
                    let labels = ReadLabels {
                        role: place.role.as_str(),
                        reason: place.reason.as_str(),
                    };
                    self.0.metrics.reads.get_or_create(&labels).inc();
                    return Ok((
                        output,
                        Served {
                            instance: place.instance.name.clone(),
                            role: place.role,
                            position: place.visible(scope.at_least),
                        },
                    ));
                }
                Err(error) => error,
            };
            let fault = match &error {
                StoreError::Database(error) => classify(error),
                _ => Fault::Final,
            };
            match fault {
                Fault::Connection | Fault::NotPrimary if attempt < READ_ATTEMPTS => {
                    self.suspect(&place.instance);
                }
                Fault::Contention if attempt < READ_ATTEMPTS => {}
                Fault::Busy => return Err(StoreError::Unavailable("no connection became free")),
                Fault::Connection => return Err(StoreError::Unavailable("connections break")),
                Fault::NotPrimary => return Err(StoreError::Unavailable("instances change their roles")),
                _ => return Err(error),
            }
            attempt += 1;
        }
    }

    async fn read_at<R: Read>(
        &self,
        place: &Place,
        scope: &Scope,
        read: &R,
    ) -> Result<R::Output, StoreError> {
        let started = Instant::now();
        let _noted = Noted {
            fleet: self,
            kind: "read",
            name: std::any::type_name::<R>(),
            started,
        };
        let work = async {
            let _turn = self.turn(place).await?;
            let mut lease = Lease::take(&place.instance, &self.0.watch).await?;
            self.0.metrics.acquire.observe(started.elapsed().as_secs_f64());
            lease.begin(scope.tenant, true).await?;
            let output = read
                .run(&mut ReadHandle {
                    connection: lease.session()?,
                })
                .await;
            match output {
                Ok(output) => {
                    lease.give_back(scope.tenant);
                    Ok(output)
                }
                Err(error) => {
                    lease.roll_back().await;
                    Err(error)
                }
            }
        };
        tokio::select! {
            outcome = timeout_at(scope.deadline, work.instrument(span::<R>("read", place))) => {
                outcome.unwrap_or(Err(StoreError::Unavailable("the read took too long")))
            }
            () = self.gone(&place.instance) => Err(broken()),
        }
    }

    /// The turn of a read that comes to the primary because no replica can serve it; others need none.
    async fn turn<'p>(&self, place: &'p Place) -> Result<Option<SemaphorePermit<'p>>, StoreError> {
        if !matches!(place.reason, Reason::NoReplica | Reason::Behind) || self.0.instances.load().len() < 2 {
            return Ok(None);
        }
        let turn = timeout(place.instance.patience(), place.instance.strays.acquire()).await;
        turn.ok().and_then(Result::ok).map(Some).ok_or_else(|| {
            self.0.metrics.strays_refused.inc();
            StoreError::Unavailable("no replica can serve the read, and the primary is busy")
        })
    }

    /// Writes. The work runs in a task of its own: a client that leaves cannot interrupt it between its commit
    /// and the publication of its events.
    pub async fn write<W: Write>(&self, scope: Scope, write: W) -> Result<Written<W::Output>, StoreError> {
        let fleet = self.clone();
        let task = self.0.tasks.spawn(tally::inherit(
            async move { fleet.write_until_done(&scope, &Plain(write)).await }.in_current_span(),
        ));
        task.await.unwrap_or(Err(StoreError::Unknown))
    }

    /// Writes once for an idempotency key: the answer of the first time is kept in the same transaction.
    pub async fn write_once<W: Write>(
        &self,
        scope: Scope,
        write: W,
        key: Option<Idempotency>,
    ) -> Result<Written<W::Output>, StoreError>
    where
        W::Output: Serialize + DeserializeOwned,
    {
        let Some(key) = key else {
            return self.write(scope, write).await;
        };
        let fleet = self.clone();
        let task = self.0.tasks.spawn(tally::inherit(
            async move { fleet.write_until_done(&scope, &Once { write, key }).await }.in_current_span(),
        ));
        task.await.unwrap_or(Err(StoreError::Unknown))
    }

    async fn write_until_done<W: Work>(
        &self,
        scope: &Scope,
        work: &W,
    ) -> Result<Written<W::Output>, StoreError> {
        let mut attempt = 1;
        let outcome = loop {
            let place = match self.place_write(scope.deadline).await {
                Ok(place) => place,
                Err(error) => break Err(error),
            };
            let failed = match self.write_at(&place, scope, work).await {
                Ok(done) => break Ok((done, place)),
                Err(failed) => failed,
            };
            let fault = failed.fault();
            if matches!(fault, Fault::Connection | Fault::NotPrimary) {
                self.suspect(&place.instance);
            }
            match after(failed.phase, fault, W::REPEATABLE) {
                Next::Retry if attempt < WRITE_ATTEMPTS && Instant::now() < scope.deadline => {
                    tracing::info!(instance.name = %place.instance.name, attempt, error = ?failed.error, "write is tried again");
                    self.0.metrics.write_retries.inc();
                    attempt += 1;
                    tokio::time::sleep(entropy::jitter(PAUSE)).await;
                }
                Next::Retry => break Err(StoreError::Unavailable("the write found no working primary")),
                Next::Unknown => break Err(StoreError::Unknown),
                Next::Fail if fault == Fault::Busy => {
                    break Err(StoreError::Unavailable("no connection became free"));
                }
                Next::Fail => break Err(failed.error),
            }
        };
        let label = match &outcome {
            Ok(_) => "committed",
            Err(StoreError::Unknown) => "unknown",
            Err(StoreError::Unavailable(_)) => "unavailable",
            Err(_) => "refused",
        };
        self.0
            .metrics
            .writes
            .get_or_create(&OutcomeLabels { outcome: label })
            .inc();
        let (done, place) = outcome?;
        if let Some(access) = self.0.access.get()
            && !done.people.is_empty()
        {
            access.rights_changed(&done.people);
        }
        self.tell(done.position, done.events, done.invalidations).await;
        let served = Served {
            instance: place.instance.name.clone(),
            role: place.role,
            position: Some(done.position),
        };
        Ok(Written {
            output: done.output,
            position: done.position,
            served,
            replayed: done.replayed,
        })
    }

    /// Tells who has to know what was committed, before the writer gets an answer.
    async fn tell(&self, position: Position, mut events: Vec<Event>, changed: Vec<(i64, Target)>) {
        if let Some(sink) = self.0.sink.get()
            && !events.is_empty()
        {
            for event in &mut events {
                event.covered_by = Some(position);
            }
            sink.publish(events);
        }
        if let Some(cache) = self.0.cache.get()
            && !changed.is_empty()
        {
            cache.invalidated(position, changed).await;
        }
    }

    async fn write_at<W: Work>(
        &self,
        place: &Place,
        scope: &Scope,
        work: &W,
    ) -> Result<Attempt<W::Output>, Failed> {
        let started = Instant::now();
        let _noted = Noted {
            fleet: self,
            kind: "write",
            name: std::any::type_name::<W>(),
            started,
        };
        let body = async {
            let mut lease = Lease::take(&place.instance, &self.0.watch).await?;
            self.0.metrics.acquire.observe(started.elapsed().as_secs_f64());
            lease.begin(scope.tenant, false).await?;
            let mut handle = WriteHandle {
                connection: lease.session()?,
                tenant: scope.tenant,
                events: Vec::new(),
                people: Vec::new(),
                invalidations: Vec::new(),
            };
            let done = work.run(&mut handle).await;
            let told = (handle.events, handle.people, handle.invalidations);
            match done {
                Ok(done) => Ok((lease, done, told)),
                Err(error) => {
                    lease.roll_back().await;
                    Err(error)
                }
            }
        };
        let (lease, (output, replayed), (events, people, invalidations)) = tokio::select! {
            outcome = timeout_at(scope.deadline, body.instrument(span::<W>("write", place))) => match outcome {
                Ok(outcome) => outcome.map_err(Failed::open)?,
                Err(_) => return Err(Failed::open(StoreError::Unavailable("the write took too long"))),
            },
            () = self.gone(&place.instance) => return Err(Failed::open(broken())),
        };
        let committing = |error| Failed {
            phase: Phase::Committing,
            error,
        };
        let position = tokio::select! {
            outcome = timeout_at(scope.deadline, lease.commit()) => match outcome {
                Ok(position) => position.map_err(|error| committing(error.into()))?,
                Err(_) => return Err(committing(StoreError::Unknown)),
            },
            () = self.gone(&place.instance) => return Err(committing(broken())),
        };
        Ok(Attempt {
            output,
            position,
            events,
            people,
            invalidations,
            replayed,
        })
    }
}

/// An attempt as traces show it.
fn span<T>(kind: &'static str, place: &Place) -> tracing::Span {
    tracing::debug_span!(
        "operation",
        operation.kind = kind,
        operation.name = std::any::type_name::<T>(),
        instance.name = %place.instance.name,
        instance.role = place.role.as_str(),
    )
}

/// Tells of an attempt that took long, also when it failed or was abandoned: waiting for a connection and for the commit included,
/// which no single statement shows.
struct Noted<'a> {
    fleet: &'a Fleet,
    kind: &'static str,
    name: &'static str,
    started: Instant,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        if took >= self.fleet.0.live.get().database.slow_query_threshold.get() {
            self.fleet.0.metrics.slow_operations.inc();
            tracing::warn!(
                operation.kind = self.kind,
                operation.name = self.name,
                duration_ms = took.as_secs_f64() * 1_000.0,
                "slow database operation"
            );
        }
    }
}

/// The instance stopped answering in the middle.
fn broken() -> StoreError {
    StoreError::Database(sqlx::Error::Io(std::io::Error::from(
        std::io::ErrorKind::ConnectionAborted,
    )))
}
