//! All rooms of this process, and where their events come from: own commits, Redis, and the outbox table.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::room::{Head, Member, Ready, Room, Wants};
use crate::domain::event::{Channel, Event, EventKind};
use crate::entropy;
use crate::metrics::{RealtimeMetrics, ReasonLabels, SourceLabels};
use crate::routing::fleet::EventSink;
use crate::routing::{Fleet, Scope, StoreError};
use crate::store::outbox::{EventsAfter, Heads};
use crate::store::sessions::SessionRevoked;

/// Events that may wait to be published; what does not fit is found in the table by the other processes.
const MOST_OUTGOING: usize = 8_192;
/// Channels that one query asks for.
const CHUNK: usize = 500;
/// Events that one query fetches.
const FETCH: i32 = 500;
/// How often the table is looked at while Redis delivers: only against a publisher that died before it published.
const CALM: Duration = Duration::from_secs(5);
/// How often while Redis does not deliver.
const ALONE: Duration = Duration::from_millis(300);
/// Limit of one look.
const LOOK: Duration = Duration::from_secs(3);

/// A frame on its way to the other processes.
#[derive(Debug)]
pub struct Outgoing {
    /// The channel.
    pub channel: Channel,
    /// The frame.
    pub frame: axum::extract::ws::Utf8Bytes,
}

/// All rooms.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    rooms: Mutex<HashMap<Channel, Room>>,
    dirty: Mutex<HashSet<Channel>>,
    dirtied: Notify,
    look: Notify,
    subscribed: AtomicBool,
    outgoing: mpsc::Sender<Outgoing>,
    next_member: AtomicU64,
    fleet: Fleet,
    metrics: RealtimeMetrics,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("rooms", &self.rooms().len())
            .finish_non_exhaustive()
    }
}

/// The part of a published frame that the receiving process needs.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    epoch: Uuid,
    offset: i64,
    event: &'a str,
    #[serde(borrow)]
    data: &'a serde_json::value::RawValue,
}

impl Hub {
    /// A hub without rooms, and the end of the queue from which a publisher takes frames.
    pub fn new(fleet: Fleet, metrics: RealtimeMetrics) -> (Self, mpsc::Receiver<Outgoing>) {
        let (outgoing, published) = mpsc::channel(MOST_OUTGOING);
        let hub = Self(Arc::new(Inner {
            rooms: Mutex::default(),
            dirty: Mutex::default(),
            dirtied: Notify::new(),
            look: Notify::new(),
            subscribed: AtomicBool::new(false),
            outgoing,
            next_member: AtomicU64::new(1),
            fleet,
            metrics,
        }));
        (hub, published)
    }

    /// Looks at the table now and then: often while Redis does not deliver, rarely while it does.
    pub async fn watch(self, stop: CancellationToken) {
        loop {
            let pause = if self.0.subscribed.load(Ordering::Relaxed) {
                CALM
            } else {
                ALONE
            };
            let woken = timeout(entropy::jitter(pause), self.0.look.notified());
            if stop.run_until_cancelled(woken).await.is_none() {
                return;
            }
            let channels: Vec<Channel> = self.rooms().keys().copied().collect();
            self.look_at(&channels, false).await;
        }
    }

    /// A number for a new member.
    pub fn next_member(&self) -> u64 {
        self.0.next_member.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a socket to a channel; answers from where on its queue will have everything.
    pub async fn join(
        &self,
        channel: Channel,
        member: Member,
        deadline: Instant,
    ) -> Result<Head, StoreError> {
        let known = {
            let mut rooms = self.rooms();
            let count = rooms.len();
            let room = rooms.entry(channel).or_default();
            let known = room.join(member);
            if rooms.len() > count {
                self.0.metrics.channels.inc();
                self.mark(channel);
            }
            known
        };
        if let Some(head) = known {
            return Ok(head);
        }
        let scope = Scope {
            tenant: None,
            deadline,
            at_least: None,
            primary_only: false,
        };
        let (heads, _) = self.0.fleet.read(&scope, &Heads(vec![channel])).await?;
        let head = heads.first().map_or(
            Head {
                epoch: None,
                position: 0,
            },
            |head| Head {
                epoch: Some(head.epoch),
                position: head.position,
            },
        );
        Ok(self
            .rooms()
            .get_mut(&channel)
            .map_or(head, |room| room.begin(head)))
    }

    /// Removes a socket.
    pub fn leave(&self, channel: Channel, member: u64) {
        let mut rooms = self.rooms();
        if rooms.get_mut(&channel).is_some_and(|room| room.leave(member)) {
            rooms.remove(&channel);
            self.0.metrics.channels.dec();
            drop(rooms);
            self.mark(channel);
        }
    }

    /// Events between two positions of a channel, all of them, or none if some are no longer kept.
    pub async fn history(
        &self,
        channel: Channel,
        epoch: Uuid,
        after: i64,
        until: i64,
        deadline: Instant,
    ) -> Result<Option<Vec<Event>>, StoreError> {
        if until - after > i64::from(FETCH) {
            return Ok(None);
        }
        for primary_only in [false, true] {
            let scope = Scope {
                tenant: None,
                deadline,
                at_least: None,
                primary_only,
            };
            let wanted = EventsAfter {
                channel,
                epoch,
                after,
                limit: FETCH,
            };
            let (mut events, _) = self.0.fleet.read(&scope, &wanted).await?;
            events.retain(|event| event.position <= until);
            if (after + 1..=until).eq(events.iter().map(|event| event.position)) {
                return Ok(Some(events));
            }
        }
        Ok(None)
    }

    /// Takes a frame that Redis delivered.
    pub fn receive(&self, channel: Channel, frame: &str) {
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(frame) else {
            self.drop_frame("malformed");
            return;
        };
        let ready = Ready {
            epoch: envelope.epoch,
            position: envelope.offset,
            frame: frame.into(),
            revokes: revoked(envelope.event, envelope.data.get()),
        };
        self.accept(channel, ready, "redis");
    }

    /// Channels that a subscriber has to look at again, because members came or went.
    pub fn take_dirty(&self) -> Vec<(Channel, bool)> {
        let dirty = std::mem::take(&mut *self.0.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        let rooms = self.rooms();
        dirty
            .into_iter()
            .map(|channel| (channel, rooms.contains_key(&channel)))
            .collect()
    }

    /// Waits for members to come or go.
    pub async fn dirtied(&self) {
        self.0.dirtied.notified().await;
    }

    /// All channels with members.
    pub fn channels(&self) -> Vec<Channel> {
        self.rooms().keys().copied().collect()
    }

    /// Whether Redis delivers from now on. What came before that is looked up.
    pub fn set_subscribed(&self, subscribed: bool) {
        self.0.subscribed.store(subscribed, Ordering::Relaxed);
        self.0.metrics.subscribed.set(i64::from(subscribed));
        self.0.look.notify_one();
    }

    /// Compares rooms with the table and fetches what they miss.
    pub async fn look_at(&self, channels: &[Channel], primary_only: bool) {
        for chunk in channels.chunks(CHUNK) {
            let deadline = Instant::now() + LOOK;
            let scope = Scope {
                tenant: None,
                deadline,
                at_least: None,
                primary_only,
            };
            let heads = match self.0.fleet.read(&scope, &Heads(chunk.to_vec())).await {
                Ok((heads, _)) => heads,
                Err(error) => {
                    tracing::debug!(error = ?error, "event heads cannot be read");
                    return;
                }
            };
            for head in heads {
                let seen = Head {
                    epoch: Some(head.epoch),
                    position: head.position,
                };
                let wants = self
                    .rooms()
                    .get_mut(&head.channel)
                    .map_or(Wants::Nothing, |room| room.compare(seen));
                self.satisfy(head.channel, head.epoch, wants);
            }
        }
    }

    fn accept(&self, channel: Channel, event: Ready, source: &'static str) {
        let epoch = event.epoch;
        let (wants, delivered) = {
            let mut rooms = self.rooms();
            let Some(room) = rooms.get_mut(&channel) else {
                return;
            };
            (room.accept(event), room.take_delivered())
        };
        if delivered > 0 {
            self.0
                .metrics
                .deliveries
                .get_or_create(&SourceLabels { source })
                .inc_by(delivered);
        }
        self.satisfy(channel, epoch, wants);
    }

    fn satisfy(&self, channel: Channel, epoch: Uuid, wants: Wants) {
        if let Wants::EventsAfter(after) = wants {
            let hub = self.clone();
            tokio::spawn(async move { hub.fill(channel, epoch, after).await });
        }
    }

    /// Fetches events until the room misses nothing.
    async fn fill(&self, channel: Channel, epoch: Uuid, mut after: i64) {
        loop {
            let scope = Scope {
                tenant: None,
                deadline: Instant::now() + LOOK,
                at_least: None,
                primary_only: true,
            };
            let read = self
                .0
                .fleet
                .read(
                    &scope,
                    &EventsAfter {
                        channel,
                        epoch,
                        after,
                        limit: FETCH,
                    },
                )
                .await;
            let Ok((events, _)) = read else {
                // A gap that could not be read is not a gap that cannot be closed.
                if let Some(room) = self.rooms().get_mut(&channel) {
                    room.not_filled();
                }
                return;
            };
            for event in events {
                if let Some(ready) = ready(&event) {
                    self.accept(channel, ready, "poll");
                }
            }
            let wants = self
                .rooms()
                .get_mut(&channel)
                .map_or(Wants::Nothing, |room| room.filled(after));
            match wants {
                Wants::EventsAfter(next) => after = next,
                Wants::Nothing => return,
            }
        }
    }

    fn mark(&self, channel: Channel) {
        self.0
            .dirty
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(channel);
        self.0.dirtied.notify_one();
    }

    /// Counts a frame that was not published or not understood.
    pub fn drop_frame(&self, reason: &'static str) {
        self.0
            .metrics
            .dropped
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<Channel, Room>> {
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for Hub {
    fn publish(&self, events: Vec<Event>) {
        for event in events {
            let Some(ready) = ready(&event) else {
                self.drop_frame("malformed");
                continue;
            };
            let outgoing = Outgoing {
                channel: event.channel,
                frame: ready.frame.clone(),
            };
            if self.0.outgoing.try_send(outgoing).is_err() {
                self.drop_frame("publisher_busy");
            }
            self.accept(event.channel, ready, "local");
        }
    }
}

/// Prepares an event for sending.
pub fn ready(event: &Event) -> Option<Ready> {
    Some(Ready {
        epoch: event.epoch,
        position: event.position,
        frame: event.frame().ok()?.into(),
        revokes: revoked(&event.kind, &event.body),
    })
}

fn revoked(kind: &str, body: &str) -> Option<Uuid> {
    if kind != EventKind::SessionRevoked.as_str() {
        return None;
    }
    serde_json::from_str::<SessionRevoked>(body)
        .ok()
        .map(|revoked| revoked.session_id)
}
