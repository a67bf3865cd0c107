//! One channel in this process: its members and how far they were served. Pure: events come in, in any order and any number of
//! times; members get each once, in order, or the room says from where on events are missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use uuid::Uuid;

use super::queue::{Close, Queue};

/// Events that came too early and are kept until the missing ones are there. More are dropped: they are in the table.
const MOST_EARLY: usize = 256;

/// An event, ready to be sent.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Its epoch.
    pub epoch: Uuid,
    /// Its position.
    pub position: i64,
    /// What clients get.
    pub frame: Utf8Bytes,
    /// The session whose sockets it closes.
    pub revokes: Option<Uuid>,
}

/// A socket that listens.
#[derive(Debug, Clone)]
pub struct Member {
    /// Identifies the socket within the process.
    pub id: u64,
    /// Its session.
    pub session: Uuid,
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
    /// Events after this position, from the table.
    EventsAfter(i64),
}

/// A channel with local members.
#[derive(Debug, Default)]
pub struct Room {
    head: Option<Head>,
    /// Where the room was when it first knew.
    origin: Option<Head>,
    members: Vec<Member>,
    early: BTreeMap<i64, Ready>,
    filling: bool,
    delivered: u64,
}

impl Room {
    /// Adds a member; answers where the room is, if it knows.
    pub fn join(&mut self, member: Member) -> Option<Head> {
        self.members.push(member);
        self.head
    }

    /// Removes a member; answers whether the room is empty.
    pub fn leave(&mut self, id: u64) -> bool {
        self.members.retain(|member| member.id != id);
        self.members.is_empty()
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
            return Wants::Nothing;
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
                Wants::EventsAfter(own.position)
            }
            _ => Wants::Nothing,
        }
    }

    /// Frames that were handed to members since the last call.
    pub fn take_delivered(&mut self) -> u64 {
        std::mem::take(&mut self.delivered)
    }

    fn wants(&mut self) -> Wants {
        match self.head {
            Some(head) if !self.early.is_empty() && !self.filling => {
                self.filling = true;
                Wants::EventsAfter(head.position)
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
            for member in &self.members {
                self.delivered += u64::from(member.queue.push(event.frame.clone()));
                if event.revokes == Some(member.session) {
                    member.queue.close(Close::Revoked);
                }
            }
        }
    }

    fn close_all(&mut self, reason: &Close) {
        for member in self.members.drain(..) {
            member.queue.close(reason.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::queue::Next;
    use super::*;

    fn event(position: i64) -> Ready {
        Ready {
            epoch: Uuid::nil(),
            position,
            frame: position.to_string().into(),
            revokes: None,
        }
    }

    fn room(position: i64) -> (Room, Arc<Queue>) {
        let mut room = Room::default();
        let queue = Arc::new(Queue::new(1 << 20));
        room.join(Member {
            id: 1,
            session: Uuid::nil(),
            queue: queue.clone(),
        });
        room.begin(Head {
            epoch: Some(Uuid::nil()),
            position,
        });
        (room, queue)
    }

    async fn received(queue: &Queue) -> Vec<String> {
        queue.close(Close::Idle);
        let mut frames = Vec::new();
        while let Next::Frame(frame) = queue.next().await {
            frames.push(frame.to_string());
        }
        frames
    }

    #[tokio::test]
    async fn a_gap_is_fetched_and_then_closed() {
        let (mut room, queue) = room(10);
        assert_eq!(room.accept(event(11)), Wants::Nothing);
        assert_eq!(room.accept(event(14)), Wants::EventsAfter(11));
        assert_eq!(room.accept(event(15)), Wants::Nothing);
        assert_eq!(room.accept(event(12)), Wants::Nothing);
        assert_eq!(room.accept(event(13)), Wants::Nothing);
        assert_eq!(room.filled(11), Wants::Nothing);
        assert_eq!(received(&queue).await, ["11", "12", "13", "14", "15"]);
    }

    #[tokio::test]
    async fn what_comes_before_the_head_is_known_is_not_lost() {
        let mut room = Room::default();
        let queue = Arc::new(Queue::new(1 << 20));
        assert_eq!(
            room.join(Member {
                id: 1,
                session: Uuid::nil(),
                queue: queue.clone()
            }),
            None
        );
        room.accept(event(5));
        room.accept(event(4));
        let head = room.begin(Head {
            epoch: Some(Uuid::nil()),
            position: 4,
        });
        // From here on the queue has everything: history up to 5 would send the fifth event twice.
        assert_eq!(head.position, 4);
        assert_eq!(received(&queue).await, ["5"]);
    }

    #[tokio::test]
    async fn a_gap_that_stays_ends_in_an_honest_close() {
        let (mut room, queue) = room(10);
        assert_eq!(room.accept(event(14)), Wants::EventsAfter(10));
        assert_eq!(room.filled(10), Wants::Nothing);
        assert_eq!(queue.next().await, Next::Close(Close::HistoryLost));
    }

    #[tokio::test]
    async fn revoking_closes_the_sockets_of_that_session_only() {
        let (mut room, queue) = room(0);
        let other = Arc::new(Queue::new(1 << 20));
        room.join(Member {
            id: 2,
            session: Uuid::max(),
            queue: other.clone(),
        });
        room.accept(Ready {
            revokes: Some(Uuid::max()),
            ..event(1)
        });
        assert_eq!(other.next().await, Next::Frame("1".into()));
        assert_eq!(other.next().await, Next::Close(Close::Revoked));
        assert_eq!(received(&queue).await, ["1"]);
    }

    proptest! {
        #[test]
        fn any_order_with_any_repeats_is_delivered_once_in_order(
            arrivals in proptest::collection::vec(1_i64..40, 0..200)
        ) {
            let (mut room, queue) = room(0);
            for position in arrivals {
                // Whatever the room misses is in the table.
                if let Wants::EventsAfter(after) = room.accept(event(position)) {
                    for missing in after + 1..=position {
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
