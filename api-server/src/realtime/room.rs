//! One channel in this process: its members and how far they were served. Pure: events come in, in any order and any number of
//! times; members get each once, in order, or the room says from where on events are missing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::queue::{Close, Item, Queue};
use super::wire::Frame;
use crate::domain::event::Channel;

/// Events that came too early and are kept until the missing ones are there. More are dropped: they are in the table.
const MOST_EARLY: usize = 256;
/// Events that were handed out last and are still known. A primary that is lost takes fewer with it.
const RECENT: usize = 16;

/// An event, ready to be sent.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Identifies it.
    pub id: Uuid,
    /// Its epoch.
    pub epoch: Uuid,
    /// Its position.
    pub position: i64,
    /// What clients get.
    pub frame: Frame,
    /// What it does to those who listen.
    pub effect: Effect,
}

/// What an event does to those who listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// They get it.
    None,
    /// They get it, and connections of this session are closed.
    Revokes(Uuid),
    /// They get it, and this person gets nothing that comes after it.
    Expels(Uuid),
    /// They get it, and nobody gets anything after it.
    Ends,
}

/// A connection that listens.
#[derive(Debug, Clone)]
pub struct Member {
    /// Identifies the connection within the process.
    pub id: u64,
    /// Its session.
    pub session: Uuid,
    /// Its person.
    pub user: Uuid,
    /// When it was opened, in milliseconds since 1970.
    pub since: i64,
    /// It has seen everything up to here already, on another process that was ahead of this one.
    pub seen: i64,
    /// Its queue.
    pub queue: Arc<Queue>,
}

/// Where the channel was when it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its epoch; none before its first event.
    pub epoch: Option<Uuid>,
    /// Position of its last event.
    pub position: i64,
}

/// What the room wants after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// Nothing.
    Nothing,
    /// Events from the table.
    Events {
        /// After this position.
        after: i64,
        /// Up to here somebody told of events. What lies beyond is not asked for: a primary that dies shows, for a moment, commits that
        /// no replica has, and its successor gives their positions to other events.
        until: i64,
    },
    /// A new epoch: a position that was handed out belongs to another event now.
    NewEpoch,
}

/// A channel with local members.
#[derive(Debug)]
pub struct Room {
    channel: Channel,
    head: Option<Head>,
    /// Where the room was when it first knew.
    origin: Option<Head>,
    members: Vec<Member>,
    early: BTreeMap<i64, Ready>,
    recent: VecDeque<(i64, Uuid)>,
    filling: bool,
    delivered: u64,
    gone: Vec<Member>,
}

impl Room {
    /// A room without members, which does not know yet where its channel is.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            head: None,
            origin: None,
            members: Vec::new(),
            early: BTreeMap::new(),
            recent: VecDeque::new(),
            filling: false,
            delivered: 0,
            gone: Vec::new(),
        }
    }

    /// Adds a member; answers where the room is, if it knows.
    pub fn join(&mut self, member: Member) -> Option<Head> {
        self.members.push(member);
        self.head
    }

    /// Removes a member; answers who it was.
    pub fn leave(&mut self, id: u64) -> Option<Member> {
        let at = self.members.iter().position(|member| member.id == id)?;
        Some(self.members.swap_remove(at))
    }

    /// Who listens.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Members that events put out since the last call.
    pub fn take_gone(&mut self) -> Vec<Member> {
        std::mem::take(&mut self.gone)
    }

    /// Where the room is.
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// Sets where the channel was, unless that is known already. What came since then is delivered. The answer is where it was, and
    /// not where it is by now: the queues of all who joined before have everything from there on.
    pub fn begin(&mut self, head: Head) -> Head {
        let origin = *self.origin.get_or_insert(head);
        self.head.get_or_insert(origin);
        self.drain();
        origin
    }

    /// Takes an event.
    pub fn accept(&mut self, event: Ready) -> Wants {
        let Some(head) = self.head else {
            self.keep_early(event);
            return Wants::Nothing;
        };
        if head.epoch.is_some_and(|epoch| epoch != event.epoch) {
            self.close_all(&Close::HistoryLost);
            return Wants::Nothing;
        }
        if event.position <= head.position {
            let same = |(position, id): &(i64, Uuid)| *position != event.position || *id == event.id;
            let agrees = self.recent.iter().all(same);
            return if agrees { Wants::Nothing } else { Wants::NewEpoch };
        }
        self.keep_early(event);
        self.drain();
        self.wants()
    }

    /// Ends a fetch of events after a position; answers whether another one is needed. A fetch that closed no gap will not
    /// close it the next time either: members are told to start again.
    pub fn filled(&mut self, after: i64) -> Wants {
        self.filling = false;
        let progressed = self.head.is_some_and(|head| head.position > after);
        if !progressed && !self.early.is_empty() {
            self.early.clear();
            self.close_all(&Close::HistoryLost);
            return Wants::Nothing;
        }
        self.wants()
    }

    /// Ends a fetch that failed; a later look tries again.
    pub fn not_filled(&mut self) {
        self.filling = false;
    }

    /// Compares with the table's head; answers what is missing.
    pub fn compare(&mut self, head: Head) -> Wants {
        match self.head {
            Some(own) if own.epoch.is_some() && own.epoch != head.epoch => {
                self.close_all(&Close::HistoryLost);
                Wants::Nothing
            }
            Some(own) if own.position < head.position && !self.filling => {
                self.filling = true;
                Wants::Events {
                    after: own.position,
                    until: head.position,
                }
            }
            _ => Wants::Nothing,
        }
    }

    /// Frames that were handed to members since the last call.
    pub fn take_delivered(&mut self) -> u64 {
        std::mem::take(&mut self.delivered)
    }

    fn wants(&mut self) -> Wants {
        match (self.head, self.early.last_key_value()) {
            (Some(head), Some((last, _))) if !self.filling => {
                self.filling = true;
                Wants::Events {
                    after: head.position,
                    until: *last,
                }
            }
            _ => Wants::Nothing,
        }
    }

    fn keep_early(&mut self, event: Ready) {
        self.early.insert(event.position, event);
        if self.early.len() > MOST_EARLY {
            self.early.pop_last();
        }
    }

    fn drain(&mut self) {
        while let Some(head) = &mut self.head {
            let Some(entry) = self.early.first_entry() else {
                return;
            };
            if *entry.key() > head.position + 1 {
                return;
            }
            let event = entry.remove();
            if event.position <= head.position {
                continue;
            }
            *head = Head {
                epoch: Some(event.epoch),
                position: event.position,
            };
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back((event.position, event.id));
            for member in &self.members {
                if event.position > member.seen {
                    let item = Item {
                        channel: self.channel,
                        epoch: event.epoch,
                        position: event.position,
                        frame: event.frame.clone(),
                    };
                    self.delivered += u64::from(member.queue.push(item));
                }
            }
            self.apply(event.effect);
        }
    }

    /// What comes after the event depends on it: nothing, for those whom it puts out.
    fn apply(&mut self, effect: Effect) {
        let put_out = |member: &mut Member| match effect {
            Effect::None | Effect::Revokes(_) => false,
            Effect::Expels(user) => member.user == user,
            Effect::Ends => true,
        };
        if let Effect::Revokes(session) = effect {
            for member in self.members.iter().filter(|member| member.session == session) {
                member.queue.close(Close::Revoked);
            }
        }
        for member in self.members.extract_if(.., put_out) {
            member.queue.left(self.channel);
            self.gone.push(member);
        }
    }

    fn close_all(&mut self, reason: &Close) {
        for member in self.members.drain(..) {
            member.queue.close(reason.clone());
            self.gone.push(member);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use proptest::prelude::*;

    use super::super::queue::Next;
    use super::*;

    const ROOM: Channel = Channel::Workroom(Uuid::nil());

    fn event(position: i64) -> Ready {
        Ready {
            id: Uuid::from_u128(position.unsigned_abs().into()),
            epoch: Uuid::nil(),
            position,
            frame: position.to_string().into(),
            effect: Effect::None,
        }
    }

    fn member(id: u64) -> (Member, Arc<Queue>) {
        let queue = Arc::new(Queue::new(1 << 20, Gauge::default(), Counter::default()));
        let member = Member {
            id,
            session: Uuid::from_u128(id.into()),
            user: Uuid::from_u128(u128::from(id) + 100),
            since: 0,
            seen: 0,
            queue: queue.clone(),
        };
        (member, queue)
    }

    fn at(position: i64) -> Head {
        Head {
            epoch: Some(Uuid::nil()),
            position,
        }
    }

    fn room(position: i64) -> (Room, Arc<Queue>) {
        let mut room = Room::new(ROOM);
        let (member, queue) = member(1);
        room.join(member);
        room.begin(at(position));
        (room, queue)
    }

    async fn received(queue: &Queue) -> Vec<String> {
        queue.close(Close::Idle);
        let mut frames = Vec::new();
        loop {
            match queue.next().await {
                Next::Items(items) => {
                    frames.extend(items.iter().map(|item| item.frame.as_str().to_owned()));
                }
                Next::Left(_) => frames.push("left".to_owned()),
                Next::Recheck | Next::Close(_) => return frames,
            }
        }
    }

    fn wants(after: i64, until: i64) -> Wants {
        Wants::Events { after, until }
    }

    /// A commit that a dying primary shows although no replica has it is announced by nobody.
    #[tokio::test]
    async fn only_what_was_told_of_is_asked_for() {
        let (mut room, _) = room(10);
        assert_eq!(room.accept(event(13)), wants(10, 13));
        assert_eq!(room.accept(event(15)), Wants::Nothing);
        assert_eq!(room.accept(event(11)), Wants::Nothing);
        assert_eq!(room.filled(10), wants(11, 15), "what was told of meanwhile too");
        room.not_filled();
        assert_eq!(room.compare(at(12)), wants(11, 12));
    }

    #[tokio::test]
    async fn a_gap_is_fetched_and_then_closed() {
        let (mut room, queue) = room(10);
        assert_eq!(room.accept(event(11)), Wants::Nothing);
        assert_eq!(room.accept(event(14)), wants(11, 14));
        assert_eq!(room.accept(event(15)), Wants::Nothing);
        assert_eq!(room.accept(event(12)), Wants::Nothing);
        assert_eq!(room.accept(event(13)), Wants::Nothing);
        assert_eq!(room.filled(11), Wants::Nothing);
        assert_eq!(received(&queue).await, ["11", "12", "13", "14", "15"]);
    }

    #[tokio::test]
    async fn what_comes_before_the_head_is_known_is_not_lost() {
        let mut room = Room::new(ROOM);
        let (member, queue) = member(1);
        assert_eq!(room.join(member), None);
        room.accept(event(5));
        room.accept(event(4));
        let head = room.begin(at(4));
        // From here on the queue has everything: history up to 5 would send the fifth event twice.
        assert_eq!(head.position, 4);
        assert_eq!(received(&queue).await, ["5"]);
    }

    /// What a lost primary showed last, its successor does not know.
    #[tokio::test]
    async fn a_position_that_belongs_to_another_event_wants_a_new_epoch() {
        let (mut room, _) = room(10);
        assert_eq!(room.accept(event(11)), Wants::Nothing);
        assert_eq!(room.accept(event(11)), Wants::Nothing, "the same again");
        let other = Ready {
            id: Uuid::from_u128(99),
            ..event(11)
        };
        assert_eq!(room.accept(other), Wants::NewEpoch);
        let before = Ready {
            id: Uuid::from_u128(99),
            ..event(10)
        };
        assert_eq!(
            room.accept(before),
            Wants::Nothing,
            "it was never handed out here"
        );
    }

    #[tokio::test]
    async fn a_gap_that_stays_ends_in_an_honest_close() {
        let (mut room, queue) = room(10);
        assert_eq!(room.accept(event(14)), wants(10, 14));
        assert_eq!(room.filled(10), Wants::Nothing);
        assert_eq!(queue.next().await, Next::Close(Close::HistoryLost));
    }

    #[tokio::test]
    async fn revoking_closes_the_sockets_of_that_session_only() {
        let (mut room, queue) = room(0);
        let (second, other) = member(2);
        room.join(second);
        room.accept(Ready {
            effect: Effect::Revokes(Uuid::from_u128(2)),
            ..event(1)
        });
        assert!(matches!(other.next().await, Next::Items(_)));
        assert_eq!(other.next().await, Next::Close(Close::Revoked));
        assert_eq!(received(&queue).await, ["1"]);
    }

    #[tokio::test]
    async fn whom_an_event_puts_out_gets_it_and_nothing_after_it() {
        let (mut room, queue) = room(0);
        let (second, other) = member(2);
        room.join(second);
        room.accept(event(1));
        // The one after the removal comes first.
        room.accept(event(3));
        room.accept(Ready {
            effect: Effect::Expels(Uuid::from_u128(102)),
            ..event(2)
        });
        assert_eq!(room.take_gone().len(), 1);
        assert_eq!(received(&other).await, ["1", "2", "left"]);
        room.accept(Ready {
            effect: Effect::Ends,
            ..event(4)
        });
        assert!(room.members().is_empty());
        assert_eq!(received(&queue).await, ["1", "2", "3", "4", "left"]);
    }

    #[tokio::test]
    async fn who_was_ahead_of_this_process_gets_nothing_twice() {
        let (mut room, _) = room(3);
        let (mut second, other) = member(2);
        second.seen = 5;
        room.join(second);
        for position in 4..=7 {
            room.accept(event(position));
        }
        assert_eq!(received(&other).await, ["6", "7"]);
    }

    proptest! {
        #[test]
        fn any_order_with_any_repeats_is_delivered_once_in_order(
            arrivals in proptest::collection::vec(1_i64..40, 0..200)
        ) {
            let (mut room, queue) = room(0);
            for position in arrivals {
                // Whatever the room misses is in the table.
                if let Wants::Events { after, until } = room.accept(event(position)) {
                    for missing in after + 1..=until {
                        room.accept(event(missing));
                    }
                    room.filled(after);
                }
            }
            let frames = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(received(&queue));
            let wanted: Vec<_> = (1..=room.head().unwrap().position).map(|p| p.to_string()).collect();
            prop_assert_eq!(frames, wanted);
        }
    }
}
