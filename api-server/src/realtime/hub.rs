//! All rooms of this process, and where their events come from: own commits, Redis, and the outbox table.

mod table;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use uuid::Uuid;

pub use self::table::Missed;
use self::table::Wanted;
use super::registry::{Change, Roll};
use super::room::{Effect, Head, Member, Ready, Room};
use super::wire::Frame;
use crate::access::cache::Listeners;
use crate::clock;
use crate::domain::event::{Channel, Event, EventKind};
use crate::keys::Keys;
use crate::metrics::{RealtimeMetrics, ReasonLabels, SourceLabels};
use crate::routing::fleet::EventSink;
use crate::routing::{Fleet, Position, StoreError};
use crate::store::sessions::SessionRevoked;
use crate::store::workroom_members::Removed;

/// Events that may wait to be published; what does not fit is found in the table by the other processes.
const MOST_OUTGOING: usize = 8_192;

/// A frame on its way to the other processes.
#[derive(Debug)]
pub struct Outgoing {
    /// The channel.
    pub channel: Channel,
    /// The frame.
    pub frame: Frame,
}

/// Connections of one person and of one tenant that this process serves, at most.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// Of one person.
    pub person: usize,
    /// Of one tenant.
    pub tenant: usize,
}

/// Where a client was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// Position of the last event that it saw.
    pub offset: i64,
    /// The epoch of that; none if the channel never had an event.
    pub epoch: Option<Uuid>,
}

/// A connection could not be added to its channels.
#[derive(Debug)]
pub enum JoinError {
    /// The person or the tenant has its share of connections already.
    TooMany,
    /// It cannot be found out where the channels are.
    Store(StoreError),
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
    keys: Keys,
    metrics: RealtimeMetrics,
    roll: Roll,
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
    id: Uuid,
    epoch: Uuid,
    offset: i64,
    event: &'a str,
    at: Timestamp,
    #[serde(borrow)]
    data: &'a serde_json::value::RawValue,
}

impl Hub {
    /// A hub without rooms, and the end of the queue from which a publisher takes frames.
    pub fn new(
        fleet: Fleet,
        keys: Keys,
        metrics: RealtimeMetrics,
        roll: Roll,
    ) -> (Self, mpsc::Receiver<Outgoing>) {
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
            keys,
            metrics,
            roll,
        }));
        (hub, published)
    }

    /// The position that a client's consistency token names; none if it is not one of ours.
    pub fn position(&self, token: &str) -> Option<Position> {
        Position::from_token(token, &self.0.keys)
    }

    /// A number for a new connection.
    pub fn next_member(&self) -> u64 {
        self.0.next_member.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a connection to channels; answers for each from where on its queue will have everything, which is not before the write that
    /// `after` names. A connection that fails to join one channel has joined none.
    pub async fn join(
        &self,
        member: &Member,
        wanted: Wanted<'_>,
        after: Option<Position>,
        shares: Shares,
        deadline: Instant,
    ) -> Result<Vec<Head>, JoinError> {
        let confirmed = self.confirm_ahead(wanted, deadline).await?;
        let written = self.after_write(wanted, after, deadline).await;
        let written = written.map_err(JoinError::Store)?;
        let primary_only = !confirmed.is_empty();
        let ahead: HashMap<Channel, Head> = confirmed
            .into_iter()
            .chain(written.iter().map(|(channel, head)| (*channel, *head)))
            .collect();
        let known = self.enter(member, wanted, shares, &ahead)?;
        let unknown: Vec<Channel> = wanted
            .iter()
            .zip(&known)
            .filter(|((channel, _), known)| known.is_none() && !written.contains_key(channel))
            .map(|((channel, _), _)| *channel)
            .collect();
        let found = match self.heads(&unknown, primary_only, deadline).await {
            Ok(found) => found,
            Err(error) => {
                for (channel, _) in wanted {
                    self.leave(*channel, member.id);
                }
                return Err(JoinError::Store(error));
            }
        };
        let mut rooms = self.rooms();
        let heads = wanted.iter().zip(known).map(|((channel, _), known)| {
            let seen = ahead.get(channel).copied();
            let head = known.unwrap_or_else(|| {
                let head = written.get(channel).or_else(|| found.get(channel));
                let head = head.copied().unwrap_or(Head {
                    epoch: None,
                    position: 0,
                });
                rooms.get_mut(channel).map_or(head, |room| room.begin(head))
            });
            match seen {
                Some(seen) if seen.position > head.position => seen,
                _ => head,
            }
        });
        Ok(heads.collect())
    }

    /// Adds the connection to the rooms, if the shares allow it.
    fn enter(
        &self,
        member: &Member,
        wanted: Wanted<'_>,
        shares: Shares,
        ahead: &HashMap<Channel, Head>,
    ) -> Result<Vec<Option<Head>>, JoinError> {
        let mut rooms = self.rooms();
        for (channel, _) in wanted {
            let share = match channel {
                Channel::User(_) => shares.person,
                Channel::Tenant(_) => shares.tenant,
                Channel::Workroom(_) => continue,
            };
            if rooms
                .get(channel)
                .is_some_and(|room| room.members().len() >= share)
            {
                return Err(JoinError::TooMany);
            }
        }
        let mut known = Vec::with_capacity(wanted.len());
        for (channel, _) in wanted {
            let count = rooms.len();
            let room = rooms.entry(*channel).or_insert_with(|| Room::new(*channel));
            let seen = ahead.get(channel).map_or(0, |head| head.position);
            let member = Member {
                seen,
                ..member.clone()
            };
            self.0.roll.note(*channel, &member, Change::Came);
            known.push(room.join(member));
            self.0.metrics.subscriptions.inc();
            if rooms.len() > count {
                self.0.metrics.channels.inc();
                self.mark(*channel);
            }
        }
        Ok(known)
    }

    /// Removes a connection from a channel.
    pub fn leave(&self, channel: Channel, member: u64) {
        let mut rooms = self.rooms();
        let Some(room) = rooms.get_mut(&channel) else {
            return;
        };
        let gone = room.leave(member);
        self.clear(rooms, channel, gone.as_slice());
    }

    /// Takes note of those who are gone, and of a room that nobody is in any more.
    fn clear(&self, mut rooms: MutexGuard<'_, HashMap<Channel, Room>>, channel: Channel, gone: &[Member]) {
        if gone.is_empty() {
            return;
        }
        for member in gone {
            self.0.metrics.subscriptions.dec();
            self.0.roll.note(channel, member, Change::Left);
        }
        if rooms.get(&channel).is_some_and(|room| room.members().is_empty()) {
            rooms.remove(&channel);
            self.0.metrics.channels.dec();
            drop(rooms);
            self.mark(channel);
        }
    }

    /// Takes a frame that Redis delivered.
    pub fn receive(&self, channel: Channel, frame: &str) {
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(frame) else {
            self.drop_frame("malformed");
            return;
        };
        let ready = Ready {
            id: envelope.id,
            epoch: envelope.epoch,
            position: envelope.offset,
            frame: frame.into(),
            effect: effect(envelope.event, envelope.data.get()),
        };
        self.accept(channel, ready, "redis", envelope.at);
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

    /// Who listens to channels of tenants and workrooms.
    pub fn listeners(&self) -> Vec<(Channel, Member)> {
        let rooms = self.rooms();
        let shared = rooms
            .iter()
            .filter(|(channel, _)| !matches!(channel, Channel::User(_)));
        shared
            .flat_map(|(channel, room)| room.members().iter().map(|member| (*channel, member.clone())))
            .collect()
    }

    /// Who listens to one channel here.
    pub fn members(&self, channel: Channel) -> Vec<Member> {
        self.rooms()
            .get(&channel)
            .map_or_else(Vec::new, |room| room.members().to_vec())
    }

    /// Whether Redis delivers from now on. What came before that is looked up.
    pub fn set_subscribed(&self, subscribed: bool) {
        let before = self.0.subscribed.swap(subscribed, Ordering::Relaxed);
        if subscribed && !before {
            self.0.metrics.reconnects.inc();
        }
        self.0.metrics.subscribed.set(i64::from(subscribed));
        self.0.look.notify_one();
    }

    fn accept(&self, channel: Channel, event: Ready, source: &'static str, at: Timestamp) {
        let epoch = event.epoch;
        let mut rooms = self.rooms();
        let Some(room) = rooms.get_mut(&channel) else {
            return;
        };
        let wants = room.accept(event);
        let (delivered, gone) = (room.take_delivered(), room.take_gone());
        self.clear(rooms, channel, &gone);
        if delivered > 0 {
            let labels = SourceLabels { source };
            self.0.metrics.deliveries.get_or_create(&labels).inc_by(delivered);
            let late = clock::now().duration_since(at).as_secs_f64().max(0.0);
            self.0.metrics.delay.get_or_create(&labels).observe(late);
        }
        self.satisfy(channel, epoch, wants);
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

/// What the database tells of its writes. It does not keep the hub alive, which holds the database.
#[derive(Debug)]
pub struct HubSink(Weak<Inner>);

impl EventSink for HubSink {
    fn publish(&self, events: Vec<Event>) {
        if let Some(hub) = self.0.upgrade() {
            Hub(hub).publish(events);
        }
    }
}

impl Listeners for HubSink {
    fn anybody(&self) -> bool {
        self.0.upgrade().is_some_and(|hub| Hub(hub).anybody())
    }

    fn rights_changed(&self, people: &[Uuid]) {
        if let Some(hub) = self.0.upgrade() {
            Hub(hub).rights_changed(people);
        }
    }
}

impl Hub {
    /// What the database tells of its writes.
    pub fn sink(&self) -> Arc<HubSink> {
        Arc::new(HubSink(Arc::downgrade(&self.0)))
    }

    fn publish(&self, events: Vec<Event>) {
        for event in events {
            let Some(ready) = ready(&event, &self.0.keys) else {
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
            self.accept(event.channel, ready, "local", event.at);
        }
    }
}

impl Hub {
    fn anybody(&self) -> bool {
        !self.rooms().is_empty()
    }

    fn rights_changed(&self, people: &[Uuid]) {
        let rooms = self.rooms();
        for person in people {
            let own = rooms.get(&Channel::User(*person));
            for member in own.map_or(&[][..], Room::members) {
                member.queue.recheck();
            }
        }
    }
}

/// Prepares an event for sending.
pub fn ready(event: &Event, keys: &Keys) -> Option<Ready> {
    Some(Ready {
        id: event.id,
        epoch: event.epoch,
        position: event.position,
        frame: event.frame(keys).ok()?.into(),
        effect: effect(&event.kind, &event.body),
    })
}

fn effect(kind: &str, body: &str) -> Effect {
    if kind == EventKind::SessionRevoked.as_str() {
        serde_json::from_str::<SessionRevoked>(body)
            .map_or(Effect::None, |told| Effect::Revokes(told.session_id))
    } else if kind == EventKind::WorkroomMemberRemoved.as_str() {
        serde_json::from_str::<Removed>(body).map_or(Effect::None, |told| Effect::Expels(told.user_id))
    } else if kind == EventKind::WorkroomDeleted.as_str() {
        Effect::Ends
    } else {
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_put_people_out_are_known() {
        let id = Uuid::from_u128(7);
        let removed = format!(r#"{{"workroom_id":"{id}","user_id":"{id}"}}"#);
        assert_eq!(effect("workroom.member.removed", &removed), Effect::Expels(id));
        assert_eq!(effect("workroom.deleted", "{}"), Effect::Ends);
        let revoked = format!(r#"{{"session_id":"{id}"}}"#);
        assert_eq!(effect("session.revoked", &revoked), Effect::Revokes(id));
        assert_eq!(effect("message.created", &removed), Effect::None);
    }
}
