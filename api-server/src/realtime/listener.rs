//! One client, whatever it is connected by: which channels it listens to, what it missed of them, and what it may no longer hear.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::hub::{Hub, JoinError, Missed, Resume, Shares};
use super::protocol::{MOST_CHANNELS, Place, Proof, Refusal};
use super::queue::{Close, Item, Next, Queue};
use super::room::{Head, Member};
use crate::clock;
use crate::domain::event::Channel;
use crate::domain::principal::Principal;
use crate::metrics::{OutcomeLabels, RealtimeMetrics};
use crate::routing::Position;
use crate::store::workroom_members::Stands;

/// What a connection has to ask others.
pub trait People: Clone + Send + Sync + 'static {
    /// Who a proof belongs to; nobody if it is not good.
    fn authenticate(
        &self,
        proof: Proof,
        deadline: Instant,
    ) -> impl Future<Output = Result<Option<Principal>, Close>> + Send;

    /// What a person may listen to, as of now.
    fn standing(
        &self,
        person: &Principal,
        workrooms: Vec<Uuid>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Stands, Close>> + Send;
}

/// What is expected of a client.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Messages in a second.
    pub rate: NonZeroU32,
    /// Messages at once.
    pub burst: NonZeroU32,
    /// Time between pings.
    pub ping: Duration,
    /// Silence after which it is gone.
    pub idle: Duration,
}

/// What all connections share.
#[derive(Debug, Clone)]
pub struct Shared<P> {
    /// Where events come from.
    pub hub: Hub,
    /// Who people are.
    pub people: P,
    /// What is counted.
    pub metrics: RealtimeMetrics,
    /// Bytes that may wait for one connection.
    pub send_buffer: usize,
    /// Events that a client may have missed and still be caught up.
    pub history: i64,
    /// Connections of one person and one tenant.
    pub shares: Shares,
    /// What a client may do, and how long it may be silent.
    pub manners: Manners,
    /// Ends when connections have to close.
    pub drain: CancellationToken,
    /// How long that may take.
    pub drain_time: Duration,
}

/// A channel that a client listens to.
#[derive(Debug, Clone, Copy)]
struct Heard {
    channel: Channel,
    epoch: Option<Uuid>,
    /// Everything up to here was sent.
    position: i64,
}

/// From where a channel follows, and what comes before that.
#[derive(Debug)]
pub struct Caught {
    /// For the client.
    pub place: Place,
    /// What it missed; to be sent before anything else.
    pub missed: Option<Missed>,
}

/// What a client asks for when it comes.
#[derive(Debug)]
pub struct Wish {
    /// Channels beside those that every client listens to.
    pub channels: Vec<String>,
    /// Where it was, by channel.
    pub resume: HashMap<String, Resume>,
    /// Its last write: channels without a place in `resume` begin after it.
    pub after: Option<Position>,
}

/// A client.
#[derive(Debug)]
pub struct Listener<P> {
    shared: Arc<Shared<P>>,
    person: Principal,
    member: Member,
    heard: Vec<Heard>,
}

impl<P: People> Listener<P> {
    /// Listens to the person's and the tenant's channel, and to those others that the person may listen to.
    pub async fn open(
        shared: &Arc<Shared<P>>,
        person: Principal,
        wish: &Wish,
        deadline: Instant,
    ) -> Result<(Self, Vec<Caught>, Vec<(String, Refusal)>), Close> {
        let metrics = &shared.metrics;
        let queue = Queue::new(
            shared.send_buffer,
            metrics.queue_bytes.clone(),
            metrics.discarded_bytes.clone(),
        );
        let member = Member {
            id: shared.hub.next_member(),
            session: person.session_id,
            user: person.user_id,
            since: clock::now().as_millisecond(),
            seen: 0,
            queue: Arc::new(queue),
        };
        let mut listener = Self {
            shared: shared.clone(),
            person,
            member,
            heard: Vec::new(),
        };
        let permanent = [
            Channel::User(listener.person.user_id),
            Channel::Tenant(listener.person.tenant_id),
        ];
        let mut wanted = permanent
            .map(|channel| (channel, wish.resume.get(&channel.to_string()).copied()))
            .to_vec();
        let mut refused = Vec::new();
        for name in &wish.channels {
            let heard = |channel| wanted.iter().any(|(other, _)| *other == channel);
            match Channel::parse(name) {
                Some(channel) if heard(channel) => refused.push((name.clone(), Refusal::Subscribed)),
                Some(channel @ Channel::Workroom(_)) if wanted.len() < MOST_CHANNELS => {
                    wanted.push((channel, wish.resume.get(name).copied()));
                }
                Some(Channel::Workroom(_)) => refused.push((name.clone(), Refusal::TooManyChannels)),
                _ => refused.push((name.clone(), Refusal::Forbidden)),
            }
        }
        let mut caught = listener.join(&wanted, wish.after, deadline).await?;
        if wanted.len() > permanent.len() {
            // After joining, for the reason that `subscribe` gives; one question for all channels.
            for channel in listener.recheck(deadline).await? {
                let name = channel.to_string();
                caught.retain(|caught| caught.place.channel != name);
                refused.push((name, Refusal::Forbidden));
            }
        }
        Ok((listener, caught, refused))
    }

    /// Identifies the connection.
    pub const fn id(&self) -> u64 {
        self.member.id
    }

    /// Who it is.
    pub const fn person(&self) -> &Principal {
        &self.person
    }

    /// What waits for the client.
    pub fn queue(&self) -> &Queue {
        &self.member.queue
    }

    /// What happens next. May be dropped and asked again.
    pub async fn next(&self) -> Next {
        self.member.queue.next().await
    }

    /// Takes note that an event is sent.
    pub fn note(&mut self, item: &Item) {
        if let Some(heard) = self.heard.iter_mut().find(|heard| heard.channel == item.channel) {
            heard.epoch = Some(item.epoch);
            heard.position = item.position;
        }
    }

    /// From where the client goes on elsewhere.
    pub fn places(&self) -> impl Iterator<Item = (Channel, Resume)> {
        self.heard.iter().map(|heard| {
            let resume = Resume {
                offset: heard.position,
                epoch: heard.epoch,
            };
            (heard.channel, resume)
        })
    }

    /// Listens to one more channel.
    pub async fn subscribe(
        &mut self,
        name: &str,
        resume: Option<Resume>,
        after: Option<Position>,
        deadline: Instant,
    ) -> Result<Result<Caught, Refusal>, Close> {
        let Some(channel) = Channel::parse(name) else {
            return Ok(Err(Refusal::Forbidden));
        };
        if self.hears(channel) {
            return Ok(Err(Refusal::Subscribed));
        }
        let Channel::Workroom(id) = channel else {
            return Ok(Err(Refusal::Forbidden));
        };
        if self.heard.len() >= MOST_CHANNELS {
            return Ok(Err(Refusal::TooManyChannels));
        }
        // First the membership of the channel, then the right to it: whoever loses the right in between is put out by the event, and
        // whoever lost it before has no right. Nothing is sent before it is known.
        let mut caught = match self.join(&[(channel, resume)], after, deadline).await {
            Ok(caught) => caught,
            Err(Close::Unavailable) => return Ok(Err(Refusal::Unavailable)),
            Err(close) => return Err(close),
        };
        let stands = self
            .shared
            .people
            .standing(&self.person, vec![id], deadline)
            .await;
        let refusal = match stands {
            Ok(stands) if !stands.session => return Err(Close::Revoked),
            Ok(stands) if stands.workrooms.contains(&id) => None,
            Ok(_) => Some(Refusal::Forbidden),
            Err(_) => Some(Refusal::Unavailable),
        };
        match (refusal, caught.pop()) {
            (None, Some(caught)) => Ok(Ok(caught)),
            (refusal, _) => {
                self.leave(channel);
                Ok(Err(refusal.unwrap_or(Refusal::Unavailable)))
            }
        }
    }

    /// Stops listening to a channel.
    pub fn unsubscribe(&mut self, name: &str) -> Result<(), Refusal> {
        let channel = Channel::parse(name).filter(|channel| self.hears(*channel));
        match channel {
            None => Err(Refusal::NotSubscribed),
            Some(Channel::User(_) | Channel::Tenant(_)) => Err(Refusal::Permanent),
            Some(channel) => {
                self.leave(channel);
                Ok(())
            }
        }
    }

    /// The server put the client out of a channel.
    pub fn put_out(&mut self, channel: Channel) {
        self.heard.retain(|heard| heard.channel != channel);
    }

    /// Asks again what the person may listen to; answers what it no longer may.
    pub async fn recheck(&mut self, deadline: Instant) -> Result<Vec<Channel>, Close> {
        let rooms: Vec<Uuid> = self
            .heard
            .iter()
            .filter_map(|heard| match heard.channel {
                Channel::Workroom(id) => Some(id),
                Channel::User(_) | Channel::Tenant(_) => None,
            })
            .collect();
        let stands = self
            .shared
            .people
            .standing(&self.person, rooms.clone(), deadline)
            .await?;
        if !stands.session {
            return Err(Close::Revoked);
        }
        let lost = rooms.into_iter().filter(|id| !stands.workrooms.contains(id));
        let lost: Vec<Channel> = lost.map(Channel::Workroom).collect();
        for channel in &lost {
            self.leave(*channel);
        }
        Ok(lost)
    }

    fn hears(&self, channel: Channel) -> bool {
        self.heard.iter().any(|heard| heard.channel == channel)
    }

    fn leave(&mut self, channel: Channel) {
        self.shared.hub.leave(channel, self.member.id);
        self.member.queue.forget(channel);
        self.heard.retain(|heard| heard.channel != channel);
    }

    /// Joins channels and finds out what the client missed of them.
    async fn join(
        &mut self,
        wanted: &[(Channel, Option<Resume>)],
        after: Option<Position>,
        deadline: Instant,
    ) -> Result<Vec<Caught>, Close> {
        // Noted first, so that a failure, or an end in the middle, leaves no room with a member that nobody serves.
        for (channel, _) in wanted {
            self.heard.push(Heard {
                channel: *channel,
                epoch: None,
                position: 0,
            });
        }
        let joined = self
            .shared
            .hub
            .join(&self.member, wanted, after, self.shared.shares, deadline)
            .await;
        let heads = joined.map_err(|error| match error {
            JoinError::TooMany => Close::TooMany,
            JoinError::Store(_) => Close::Unavailable,
        });
        let heads = match heads {
            Ok(heads) => heads,
            Err(close) => {
                for (channel, _) in wanted {
                    self.leave(*channel);
                }
                return Err(close);
            }
        };
        let mut caught = Vec::with_capacity(wanted.len());
        for ((channel, resume), head) in wanted.iter().zip(heads) {
            caught.push(self.catch_up(*channel, head, *resume, deadline).await?);
        }
        Ok(caught)
    }

    /// Whether everything since the client's place is still there.
    async fn catch_up(
        &mut self,
        channel: Channel,
        head: Head,
        resume: Option<Resume>,
        deadline: Instant,
    ) -> Result<Caught, Close> {
        let missed = match (resume, head.epoch) {
            (None, _) => None,
            (Some(resume), None) => (resume.offset == 0).then_some(None),
            (Some(resume), Some(epoch)) => {
                let same = resume.epoch == Some(epoch) || (resume.epoch.is_none() && resume.offset == 0);
                let behind = head.position - resume.offset;
                if !same || resume.offset < 0 || !(0..=self.shared.history).contains(&behind) {
                    None
                } else if behind == 0 {
                    Some(None)
                } else {
                    let between = (resume.offset, head.position);
                    let history = self.shared.hub.history(channel, epoch, between, deadline).await;
                    history.map_err(|_| Close::Unavailable)?.map(Some)
                }
            }
        };
        if resume.is_some() {
            let outcome = if missed.is_some() {
                "recovered"
            } else {
                "not_recovered"
            };
            let labels = OutcomeLabels { outcome };
            self.shared.metrics.resumes.get_or_create(&labels).inc();
        }
        let from = match (&missed, resume) {
            (Some(Some(_)), Some(resume)) => resume.offset,
            _ => head.position,
        };
        if let Some(heard) = self.heard.iter_mut().find(|heard| heard.channel == channel) {
            *heard = Heard {
                channel,
                epoch: head.epoch,
                position: from,
            };
        }
        Ok(Caught {
            place: Place {
                channel: channel.to_string(),
                epoch: head.epoch,
                offset: head.position,
                recovered: missed.is_some(),
            },
            missed: missed.flatten(),
        })
    }
}

impl<P> Drop for Listener<P> {
    /// Leaves all channels when the connection ends, however it ends.
    fn drop(&mut self) {
        for heard in &self.heard {
            self.shared.hub.leave(heard.channel, self.member.id);
        }
    }
}
