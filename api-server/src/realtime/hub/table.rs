//! What rooms and clients need of the outbox table: where channels are, and events that were missed.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::queue::{Close, Item};
use super::super::room::{Head, Wants};
use super::{Hub, JoinError, Resume, ready};
use crate::domain::event::{Channel, Event};
use crate::entropy;
use crate::routing::{Position, Scope, StoreError};
use crate::store::outbox::{self, EventsAfter, Heads, NewEpoch};

/// Channels that one query asks for.
const CHUNK: usize = 500;
/// Events that one query fetches. One can be 32 KiB.
const FETCH: i32 = 200;
/// Bytes of history that are handed out at a time: a client that takes them slowly, but takes them, is given its time for each part.
const PART: usize = 16 << 10;
/// How often the table is looked at while Redis delivers: only against a publisher that died before it published.
const CALM: Duration = Duration::from_secs(5);
/// How often while Redis does not deliver.
const ALONE: Duration = Duration::from_millis(300);
/// How often it is tried to begin a new epoch.
const RENEWALS: usize = 10;
/// Limit of one look.
const LOOK: Duration = Duration::from_secs(3);

/// What clients asked for, with the place where they were.
pub(super) type Wanted<'a> = &'a [(Channel, Option<Resume>)];

fn scope(deadline: Instant, primary_only: bool) -> Scope {
    Scope {
        tenant: None,
        deadline,
        at_least: None,
        primary_only,
    }
}

fn place(head: &outbox::Head) -> (Channel, Head) {
    let place = Head {
        epoch: Some(head.epoch),
        position: head.position,
    };
    (head.channel, place)
}

impl Hub {
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
            self.look_at(&self.channels(), false).await;
        }
    }

    /// For clients that were on a process that was ahead of this one: that the channel has really come that far.
    pub(super) async fn confirm_ahead(
        &self,
        wanted: Wanted<'_>,
        deadline: Instant,
    ) -> Result<HashMap<Channel, Head>, JoinError> {
        let behind: Vec<(Channel, Resume)> = {
            let rooms = self.rooms();
            wanted
                .iter()
                .filter_map(|(channel, resume)| {
                    let resume = (*resume)?;
                    let head = rooms.get(channel).and_then(super::Room::head);
                    let here = head.is_some_and(|head| head.position >= resume.offset);
                    (!here && resume.offset > 0).then_some((*channel, resume))
                })
                .collect()
        };
        if behind.is_empty() {
            return Ok(HashMap::new());
        }
        let names = behind.iter().map(|(channel, _)| *channel).collect();
        let (heads, _) = self
            .0
            .fleet
            .read(&scope(deadline, true), &Heads(names))
            .await
            .map_err(JoinError::Store)?;
        let confirmed = heads.into_iter().filter_map(|head| {
            let (_, resume) = behind.iter().find(|(channel, _)| *channel == head.channel)?;
            let real = resume.epoch == Some(head.epoch) && resume.offset <= head.position;
            real.then_some((
                head.channel,
                Head {
                    epoch: Some(head.epoch),
                    position: resume.offset,
                },
            ))
        });
        Ok(confirmed.collect())
    }

    /// Where channels are whose events a client wants from its last write on: rooms and replicas may not have come that far.
    pub(super) async fn after_write(
        &self,
        wanted: Wanted<'_>,
        after: Option<Position>,
        deadline: Instant,
    ) -> Result<HashMap<Channel, Head>, StoreError> {
        let fresh = wanted.iter().filter(|(_, resume)| resume.is_none());
        let fresh: Vec<Channel> = fresh.map(|(channel, _)| *channel).collect();
        if after.is_none() || fresh.is_empty() {
            return Ok(HashMap::new());
        }
        let scope = Scope {
            at_least: after,
            ..scope(deadline, false)
        };
        let (heads, _) = self.0.fleet.read(&scope, &Heads(fresh)).await?;
        Ok(heads.iter().map(place).collect())
    }

    /// Where channels are, of which this process does not know it. A replica may be behind; for a client that was ahead, only the
    /// primary is asked.
    pub(super) async fn heads(
        &self,
        channels: &[Channel],
        primary_only: bool,
        deadline: Instant,
    ) -> Result<HashMap<Channel, Head>, StoreError> {
        if channels.is_empty() {
            return Ok(HashMap::new());
        }
        let wanted = Heads(channels.to_vec());
        let (heads, _) = self.0.fleet.read(&scope(deadline, primary_only), &wanted).await?;
        Ok(heads.iter().map(place).collect())
    }

    /// Events between two positions of a channel, all of them, or none if some are no longer kept.
    pub async fn history(
        &self,
        channel: Channel,
        epoch: Uuid,
        (after, until): (i64, i64),
        deadline: Instant,
    ) -> Result<Option<Missed>, StoreError> {
        let mut missed = Missed {
            channel,
            epoch,
            after,
            until,
            page: Vec::new(),
        };
        for primary in [false, true] {
            if missed.fetch(self, primary, deadline).await? {
                return Ok(Some(missed));
            }
        }
        Ok(None)
    }

    /// Compares rooms with the table and fetches what they miss.
    pub async fn look_at(&self, channels: &[Channel], primary_only: bool) {
        for chunk in channels.chunks(CHUNK) {
            let scope = scope(Instant::now() + LOOK, primary_only);
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
                let mut rooms = self.rooms();
                let Some(room) = rooms.get_mut(&head.channel) else {
                    continue;
                };
                let wants = room.compare(seen);
                let gone = room.take_gone();
                self.clear(rooms, head.channel, &gone);
                self.satisfy(head.channel, head.epoch, wants);
            }
        }
    }

    pub(super) fn satisfy(&self, channel: Channel, epoch: Uuid, wants: Wants) {
        let hub = self.clone();
        match wants {
            Wants::Nothing => {}
            Wants::Events { after, until } => {
                tokio::spawn(async move { hub.fill(channel, epoch, (after, until)).await });
            }
            Wants::NewEpoch => {
                tokio::spawn(async move { hub.renew(channel, epoch).await });
            }
        }
    }

    /// Begins a new epoch, and lets go of all who listen: whoever saw an event that is lost learns of it by coming back.
    async fn renew(&self, channel: Channel, epoch: Uuid) {
        tracing::warn!(%channel, "an event was lost with a primary, the channel begins anew");
        for _ in 0..RENEWALS {
            let renewed = self
                .0
                .fleet
                .write(scope(Instant::now() + LOOK, true), NewEpoch { channel, epoch })
                .await;
            match renewed {
                // Another process may have been first; the epoch is another one in any case.
                Ok(_) => return self.look_at(&[channel], true).await,
                Err(error) => tracing::warn!(%channel, error = ?error, "no new epoch could be begun"),
            }
            tokio::time::sleep(entropy::jitter(ALONE)).await;
        }
    }

    /// Fetches events after a position and up to another one, until the room misses nothing.
    async fn fill(&self, channel: Channel, epoch: Uuid, (mut after, mut until): (i64, i64)) {
        loop {
            // The last one that is here already comes once more: if it is another one now, the room will notice.
            let wanted = EventsAfter {
                channel,
                epoch,
                after: (after - 1).max(0),
                limit: FETCH,
            };
            let read = self
                .0
                .fleet
                .read(&scope(Instant::now() + LOOK, true), &wanted)
                .await;
            let Ok((events, _)) = read else {
                // A gap that could not be read is not a gap that cannot be closed.
                if let Some(room) = self.rooms().get_mut(&channel) {
                    room.not_filled();
                }
                return;
            };
            for event in events.iter().filter(|event| event.position <= until) {
                if let Some(ready) = ready(event, &self.0.keys) {
                    self.accept(channel, ready, "poll", event.at);
                }
            }
            let mut rooms = self.rooms();
            let Some(room) = rooms.get_mut(&channel) else {
                return;
            };
            let wants = room.filled(after);
            let gone = room.take_gone();
            self.clear(rooms, channel, &gone);
            match wants {
                Wants::Events {
                    after: next,
                    until: end,
                } => (after, until) = (next, end),
                Wants::Nothing | Wants::NewEpoch => return,
            }
        }
    }
}

/// What a client missed of a channel, page by page, so that a long history does not take memory.
#[derive(Debug)]
pub struct Missed {
    channel: Channel,
    epoch: Uuid,
    /// Everything up to here was handed out.
    after: i64,
    until: i64,
    page: Vec<Event>,
}

impl Missed {
    /// The next events, in their order; none at the end. Events that are gone meanwhile end the connection.
    pub async fn next(&mut self, hub: &Hub, deadline: Instant) -> Result<Option<Vec<Item>>, Close> {
        if self.after >= self.until {
            return Ok(None);
        }
        if self.page.is_empty() {
            let fetched = self.fetch(hub, true, deadline).await;
            if !fetched.map_err(|_| Close::Unavailable)? {
                return Err(Close::HistoryLost);
            }
        }
        let (mut items, mut bytes, mut count) = (Vec::new(), 0, 0);
        for event in &self.page {
            if bytes >= PART {
                break;
            }
            count += 1;
            self.after = event.position;
            let Ok(frame) = event.frame(&hub.0.keys) else {
                continue;
            };
            bytes += frame.len();
            items.push(Item {
                channel: self.channel,
                epoch: self.epoch,
                position: event.position,
                frame: frame.into(),
            });
        }
        self.page.drain(..count);
        Ok(Some(items))
    }

    /// Fetches the next page; answers whether it is there without a gap.
    async fn fetch(&mut self, hub: &Hub, primary: bool, deadline: Instant) -> Result<bool, StoreError> {
        if self.after >= self.until {
            return Ok(true);
        }
        let wanted = EventsAfter {
            channel: self.channel,
            epoch: self.epoch,
            after: self.after,
            limit: FETCH,
        };
        let (mut events, _) = hub.0.fleet.read(&scope(deadline, primary), &wanted).await?;
        events.retain(|event| event.position <= self.until);
        let end = self.until.min(self.after + i64::from(FETCH));
        let whole = (self.after + 1..=end).eq(events.iter().map(|event| event.position));
        self.page = if whole { events } else { Vec::new() };
        Ok(whole)
    }
}
