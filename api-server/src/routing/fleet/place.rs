//! Finds the instance for an operation, and waits for one where that makes sense.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, timeout_at};

use super::Fleet;
use crate::routing::choose::{Choice, Need, Reason, Role, choose};
use crate::routing::instance::Instance;
use crate::routing::operation::{Scope, StoreError};
use crate::routing::position::Position;

/// Where an operation runs.
pub(super) struct Place {
    pub(super) instance: Arc<Instance>,
    pub(super) role: Role,
    pub(super) reason: Reason,
    /// Where its last probe saw it.
    pub(super) position: Position,
}

impl Place {
    /// Up to where everything is visible to a read that begins now and was placed for `at_least`.
    pub(super) fn visible(&self, at_least: Option<Position>) -> Option<Position> {
        let seen = match self.role {
            Role::Replica => self.position,
            // A commit is flushed a moment before it can be seen, while it waits for standbys, so the very last one may be missing.
            Role::Primary => Position {
                lsn: self.position.lsn.saturating_sub(1),
                ..self.position
            },
        };
        Some(seen).max(at_least)
    }
}

/// Makes probes hurry while a request waits for instances to replay something.
struct Hurry(Arc<Vec<Arc<Instance>>>);

impl Hurry {
    fn new(instances: Arc<Vec<Arc<Instance>>>) -> Self {
        for instance in instances.iter() {
            instance.waiters.fetch_add(1, Ordering::Relaxed);
            instance.wake.notify_one();
        }
        Self(instances)
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        for instance in self.0.iter() {
            instance.waiters.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Fleet {
    /// The instance for a read. Waits a moment for a replica that has the reader's own writes, and until the deadline
    /// when nobody can serve it at all.
    pub(super) async fn place_read(&self, scope: &Scope) -> Result<Place, StoreError> {
        let config = self.0.live.get();
        let patience = Instant::now() + config.database.read_your_writes_timeout.get();
        let mut need = Need {
            at_least: scope.at_least,
            max_lag: Self::max_lag(&config),
            patient: true,
            primary_only: scope.primary_only,
        };
        let mut changes = self.0.changed.subscribe();
        let mut hurry = None;
        loop {
            changes.borrow_and_update();
            let now = Instant::now();
            let instances = self.0.instances.load_full();
            let candidates = self.candidates(&instances, now);
            need.patient = now < patience;
            let wait_until = match choose(&candidates, &need, self.0.turn.fetch_add(1, Ordering::Relaxed)) {
                Choice::Use { index, reason } => {
                    let candidate = candidates[index];
                    return Ok(Place {
                        instance: instances[index].clone(),
                        role: candidate.map_or(Role::Primary, |candidate| candidate.role),
                        reason,
                        position: candidate.map_or_else(Position::default, |candidate| candidate.position),
                    });
                }
                Choice::Wait => {
                    hurry.get_or_insert_with(|| Hurry::new(instances.clone()));
                    if need.patient {
                        patience.min(scope.deadline)
                    } else {
                        scope.deadline
                    }
                }
                Choice::Nobody => scope.deadline,
            };
            let waited = timeout_at(wait_until, changes.changed()).await;
            if waited.is_err() && Instant::now() >= scope.deadline {
                return Err(StoreError::Unavailable("no instance can serve the read"));
            }
        }
    }

    /// The primary. While there is none, the write is held until the deadline; only so many at a time.
    pub(super) async fn place_write(&self, deadline: Instant) -> Result<Place, StoreError> {
        if let Some(place) = self.current_primary() {
            return Ok(place);
        }
        let _held = self
            .0
            .held
            .try_acquire()
            .map_err(|_| StoreError::Unavailable("too many writes wait for a primary"))?;
        self.0.metrics.held.inc();
        let found = timeout_at(deadline, async {
            let mut changes = self.0.changed.subscribe();
            loop {
                changes.borrow_and_update();
                if let Some(place) = self.current_primary() {
                    return place;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        })
        .await;
        self.0.metrics.held.dec();
        found.map_err(|_| StoreError::Unavailable("there is no primary"))
    }

    fn current_primary(&self) -> Option<Place> {
        let instances = self.0.instances.load_full();
        let candidates = self.candidates(&instances, Instant::now());
        let index = crate::routing::choose::primary(&candidates)?;
        Some(Place {
            instance: instances[index].clone(),
            role: Role::Primary,
            reason: Reason::Asked,
            position: candidates[index].map_or_else(Position::default, |candidate| candidate.position),
        })
    }

    /// Ends when a probe finds an instance unavailable.
    pub(super) async fn gone(&self, instance: &Instance) {
        let mut changes = self.0.changed.subscribe();
        while !instance.lost.load(Ordering::Relaxed) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes an instance out of service until its next probe says otherwise. What runs there goes on until then.
    pub(super) fn suspect(&self, instance: &Instance) {
        self.record(instance, None);
        instance.wake.notify_one();
    }
}
