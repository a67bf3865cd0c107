//! How a process learns what others have written: at once through Redis, and for certain from the table, which is asked every second,
//! and more often while Redis does not deliver. What the table shows and no message told was written by a process that ended between
//! its commit and its message; whoever finds it does what that process could not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::kind::{KINDS, Target};
use super::shared::{self, Notice};
use super::tiers::Cache;
use crate::entropy;
use crate::redis_link::{Connected, Ended, RedisLink, Subscription};
use crate::routing::{Position, Scope};
use crate::store::invalidations::{FETCH, InvalidationsSince};

/// Time between looks at the table while Redis delivers, and while it does not.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(300));
/// Limit of one look.
const LOOK: Duration = Duration::from_secs(2);
/// Without any news for so long, nothing of this process is served: it may be cut off from all others.
const DEAF: Duration = Duration::from_secs(30);
/// A message that belongs to a row comes within this time, or not at all.
const LATE: Duration = Duration::from_millis(500);
/// How long numbers of rows are remembered; rows are not looked at longer than that.
const MEMORY: Duration = Duration::from_mins(2);
/// Invalidations that may wait for Redis one by one; more are carried out kind by kind.
const MOST_LATE: usize = 5_000;
/// Pause before the subscription is made again.
const PAUSE: Duration = Duration::from_millis(200);

/// An invalidation that Redis has not been told of.
#[derive(Debug, Clone, Copy)]
struct Late {
    position: Position,
    target: Target,
    since: Instant,
}

/// Which invalidations are known.
#[derive(Debug, Default)]
pub struct Heard {
    known: Mutex<HashMap<i64, Instant>>,
    late: Mutex<HashMap<i64, Late>>,
    last: Mutex<Option<Instant>>,
    look: Notify,
}

impl Heard {
    /// Whether this process would know if something had been written.
    pub fn is_recent(&self, now: Instant) -> bool {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none_or(|last| now.saturating_duration_since(last) < DEAF)
    }

    /// These are known, here and in Redis.
    pub fn note(&self, ids: impl IntoIterator<Item = i64>, now: Instant) {
        let (mut known, mut late) = (self.known(), self.late());
        for id in ids {
            known.insert(id, now);
            late.remove(&id);
        }
    }

    /// These are known here; Redis is told later.
    pub fn postpone(&self, changed: &[(i64, Position, Target)], since: Instant) {
        let (known, mut late) = (self.known(), self.late());
        for (id, position, target) in changed {
            if !known.contains_key(id) {
                late.entry(*id).or_insert(Late {
                    position: *position,
                    target: *target,
                    since,
                });
            }
        }
    }

    /// Whether a row is new to this process.
    fn is_new(&self, id: i64) -> bool {
        !self.known().contains_key(&id) && !self.late().contains_key(&id)
    }

    /// What Redis has to be told now. Too many are answered as a few that cover all of them.
    fn overdue(&self, now: Instant) -> Vec<(i64, Position, Target)> {
        let mut late = self.late();
        let due: Vec<_> = late
            .iter()
            .filter(|(_, late)| now.saturating_duration_since(late.since) >= LATE)
            .map(|(id, late)| (*id, late.position, late.target))
            .collect();
        let Some(position) = due.iter().map(|(_, position, _)| *position).max() else {
            return due;
        };
        if due.len() <= MOST_LATE {
            return due;
        }
        let kinds: Vec<_> = KINDS
            .into_iter()
            .filter(|kind| due.iter().any(|(_, _, target)| target.kind() == *kind))
            .collect();
        late.clear();
        let newest = due.iter().map(|(id, ..)| *id).max().unwrap_or(0);
        kinds
            .into_iter()
            .map(|kind| (newest, position, Target::Kind(kind)))
            .collect()
    }

    fn tidy(&self, now: Instant) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        self.known()
            .retain(|_, at| now.saturating_duration_since(*at) < MEMORY);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<i64, Instant>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn late(&self) -> MutexGuard<'_, HashMap<i64, Late>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the table until told to stop.
pub async fn watch(cache: Cache, stop: CancellationToken) {
    let mut horizon = None;
    loop {
        let pause = if cache.counts().subscribed.get() == 1 {
            LOOKS.0
        } else {
            LOOKS.1
        };
        let woken = timeout(entropy::jitter(pause), cache.heard().look.notified());
        if stop.run_until_cancelled(woken).await.is_none() {
            return;
        }
        if let Some(seen) = look(&cache, horizon.clone()).await {
            horizon = Some(seen);
        }
        cache.measure();
    }
}

/// One look; answers from which transaction on the next one has to look.
async fn look(cache: &Cache, horizon: Option<String>) -> Option<String> {
    let scope = Scope {
        tenant: None,
        deadline: Instant::now() + LOOK,
        at_least: None,
        primary_only: false,
    };
    let (seen, _) = match cache.fleet().read(&scope, &InvalidationsSince(horizon)).await {
        Ok(seen) => seen,
        Err(error) => {
            tracing::debug!(error = ?error, "invalidations cannot be read");
            return None;
        }
    };
    let now = Instant::now();
    if seen.rows.len() >= FETCH {
        // More than anybody reads one by one.
        for kind in KINDS {
            cache.forget(Target::Kind(kind), Some(seen.position));
        }
    }
    for (id, target) in seen.rows {
        if cache.heard().is_new(id) {
            cache.forget(target, Some(seen.position));
            cache.heard().postpone(&[(id, seen.position, target)], now);
        }
    }
    let overdue = cache.heard().overdue(now);
    if !overdue.is_empty() && cache.shared().replace(&overdue).await {
        let count = u64::try_from(overdue.len()).unwrap_or(u64::MAX);
        cache.counts().found_late.inc_by(count);
        cache.heard().note(overdue.iter().map(|(id, ..)| *id), now);
    }
    cache.heard().tidy(now);
    Some(seen.horizon)
}

/// Receives what other processes tell, as long as Redis is there, again and again.
pub async fn listen(cache: Cache, link: RedisLink, stop: CancellationToken) {
    let mut changes = link.subscribe();
    let follow = async {
        loop {
            changes.borrow_and_update();
            if let Some(connected) = link.get() {
                if let Err(Ended(reason)) = receive(&cache, connected).await {
                    tracing::info!(
                        reason,
                        "Redis does not deliver invalidations, the table is polled"
                    );
                }
                cache.counts().subscribed.set(0);
                cache.heard().look.notify_one();
                sleep(entropy::jitter(PAUSE)).await;
            } else if changes.changed().await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(follow).await;
}

/// Subscribes and receives until something fails; answers what.
async fn receive(cache: &Cache, connected: Arc<Connected>) -> Result<(), Ended> {
    let mut subscription = Subscription::open(connected).await?;
    subscription.add(&shared::news().collect::<Vec<_>>()).await?;
    cache.counts().subscribed.set(1);
    // What was told before the subscription is in the table.
    cache.heard().look.notify_one();
    loop {
        let message = subscription.next().await?;
        if let Some(notice) = std::str::from_utf8(&message.payload)
            .ok()
            .and_then(Notice::decode)
        {
            take(cache, &notice);
        }
    }
}

fn take(cache: &Cache, notice: &Notice) {
    if cache.heard().is_new(notice.id) || matches!(notice.target, Target::Kind(_)) {
        cache.forget(notice.target, Some(notice.position));
    }
    // Versions below another prefix than ours were replaced: ours still have to be.
    if cache
        .shared()
        .prefix()
        .is_some_and(|prefix| prefix == notice.prefix)
    {
        cache.heard().note([notice.id], Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::cache::kind::{Entity, Kind};

    fn at(lsn: u64) -> Position {
        Position { timeline: 1, lsn }
    }

    fn target(person: u128) -> Target {
        Entity::of_person(Kind::Memories, Uuid::from_u128(1), Uuid::from_u128(person)).into()
    }

    #[test]
    fn what_no_message_told_is_overdue_after_a_while() {
        let (heard, now) = (Heard::default(), Instant::now());
        heard.postpone(&[(1, at(5), target(1)), (2, at(6), target(2))], now);
        assert!(heard.overdue(now).is_empty(), "the message may be under way");
        heard.note([2], now);
        assert_eq!(heard.overdue(now + LATE), [(1, at(5), target(1))]);
        heard.note([1], now);
        assert!(heard.overdue(now + LATE).is_empty());
        heard.postpone(&[(1, at(5), target(1))], now);
        assert!(heard.overdue(now + LATE).is_empty(), "it was told already");
    }

    #[test]
    fn a_crowd_is_carried_out_kind_by_kind() {
        let (heard, now) = (Heard::default(), Instant::now());
        let crowd: Vec<_> = (0_i64..6_000)
            .map(|id| (id, at(id.unsigned_abs()), target(1)))
            .collect();
        heard.postpone(&crowd, now);
        assert_eq!(
            heard.overdue(now + LATE),
            [(5_999, at(5_999), Target::Kind(Kind::Memories))]
        );
        assert!(heard.overdue(now + LATE).is_empty());
    }

    #[test]
    fn who_hears_nothing_for_long_does_not_trust_itself() {
        let (heard, now) = (Heard::default(), Instant::now());
        heard.tidy(now);
        assert!(heard.is_recent(now + DEAF / 2) && !heard.is_recent(now + DEAF));
    }
}
