//! A client on a WebSocket. The first frame proves who connects, because an address ends up in logs.
//!
//! What is rare is boxed: the memory of an idle connection is that of its future, which is as large as the largest thing that it ever
//! waits for.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::{Instant, sleep_until};

use super::connection::{Connection, Stream};
use super::gather;
use super::listener::{Caught, Listener, People, Shared, Wish};
use super::pace::{Turn, turn};
use super::patience::Patience;
use super::protocol::{Proof, Reply, Request};
use super::queue::{Close, Item, Next};
use super::wire::Frame;
use super::wire::decoder::Incoming;
use super::wire::transport::Transport;
use crate::clock;
use crate::domain::event::Channel;
use crate::domain::principal::Principal;
use crate::entropy;
use crate::metrics::{Counted, ReasonLabels, SourceLabels};
use crate::routing::Position;

/// Limit of finding out who a client is and what it missed, and of answering it.
const SETUP: Duration = Duration::from_secs(10);

/// Serves a socket until it closes.
pub async fn serve<S: Stream, P: People>(transport: Transport<S>, shared: Arc<Shared<P>>) {
    let _counted = Counted::new(&shared.metrics.sockets);
    let mut connection = Connection(transport);
    let reason = match converse(&mut connection, &shared).await {
        Ok(()) => "client",
        Err(close) => {
            Box::pin(connection.close(&close)).await;
            close.label()
        }
    };
    shared
        .metrics
        .closed
        .get_or_create(&ReasonLabels { reason })
        .inc();
}

/// The turn of one client in a drain.
pub(super) fn draw_turn<P>(shared: &Shared<P>) -> Turn {
    let clients = u32::try_from(shared.metrics.sockets.get()).unwrap_or(0);
    turn(
        clients,
        shared.drain_time,
        (entropy::uniform(), entropy::uniform()),
    )
}

pub(super) fn draining(turn: Turn) -> Close {
    Close::Draining {
        reconnect_after_ms: u64::try_from(turn.reconnect_after.as_millis()).unwrap_or(0),
    }
}

/// When what a person proved ends.
pub(super) fn expiry(person: &Principal) -> Instant {
    let left = person.expires_at.duration_since(clock::now());
    Instant::now() + Duration::try_from(left).unwrap_or(Duration::ZERO)
}

/// The position of a write that a client names; a token that is not ours is a defect of the client.
fn written<P>(shared: &Shared<P>, token: Option<String>) -> Result<Option<Position>, Close> {
    token
        .map(|token| shared.hub.position(&token).ok_or(Close::Protocol))
        .transpose()
}

/// Everything between the opening and the close; `Ok` means that the client left.
async fn converse<S: Stream, P: People>(
    connection: &mut Connection<S>,
    shared: &Arc<Shared<P>>,
) -> Result<(), Close> {
    let Some(talk) = Box::pin(introduce(connection, shared)).await? else {
        return Ok(());
    };
    talk.follow().await
}

/// Finds out who the client is, and sends what it missed; none if it left.
async fn introduce<'c, S: Stream, P: People>(
    connection: &'c mut Connection<S>,
    shared: &'c Arc<Shared<P>>,
) -> Result<Option<Talk<'c, S, P>>, Close> {
    let setup = async {
        let Some(first) = connection.first().await? else {
            return Ok::<_, Close>(None);
        };
        let deadline = Instant::now() + SETUP;
        let person = shared.people.authenticate(first.proof, deadline).await?;
        let person = person.ok_or(Close::Unauthorized)?;
        let wish = Wish {
            after: written(shared, first.consistency_token)?,
            ..first.wish
        };
        let opened = Listener::open(shared, person, &wish, deadline).await?;
        Ok(Some(opened))
    };
    let (listener, caught, refused) = tokio::select! {
        done = setup => match done? {
            Some(opened) => opened,
            None => return Ok(None),
        },
        () = shared.drain.cancelled() => return Err(draining(draw_turn(shared))),
    };
    let connected = Reply::Connected {
        connection: listener.id(),
        expires_at: listener.person().expires_at,
        channels: caught.iter().map(|caught| caught.place.clone()).collect(),
    };
    connection.reply(&connected).await?;
    for (channel, refusal) in refused {
        connection.refuse(refusal.code(), channel).await?;
    }
    let (now, manners) = (Instant::now(), shared.manners);
    let mut talk = Talk {
        connection,
        shared,
        expires: expiry(listener.person()),
        listener,
        allowance: RateLimiter::direct(Quota::per_second(manners.rate).allow_burst(manners.burst)),
        heard: now,
        ping: now + entropy::jitter(manners.ping / 2),
        gate: now,
        gather: gather::BRIEF,
        leaving: None,
        patience: Patience::default(),
    };
    for caught in caught {
        talk.catch_up(caught).await?;
    }
    Ok(Some(talk))
}

/// A client that is known.
struct Talk<'c, S, P> {
    connection: &'c mut Connection<S>,
    shared: &'c Arc<Shared<P>>,
    listener: Listener<P>,
    allowance: DefaultDirectRateLimiter,
    expires: Instant,
    /// When the client was heard last.
    heard: Instant,
    /// When the next ping is due.
    ping: Instant,
    /// Events wait until then for others to come. The first event after a pause leaves at once.
    gate: Instant,
    /// How long the last ones waited.
    gather: Duration,
    leaving: Option<(Instant, Turn)>,
    patience: Patience,
}

/// Why the connection woke up.
enum Woken {
    /// The client said something, or nothing more.
    Heard(Option<Incoming>),
    /// Something waits for the client.
    Waiting,
    /// A moment has come that was waited for.
    Due,
    /// The process is about to end.
    Draining,
}

impl<S: Stream, P: People> Talk<'_, S, P> {
    /// Sends what comes, until somebody closes.
    async fn follow(mut self) -> Result<(), Close> {
        let mut drain = pin!(self.shared.drain.cancelled());
        let mut clock = pin!(sleep_until(self.next_due()));
        loop {
            let woken = poll_fn(|context| {
                if let Poll::Ready(heard) = self.connection.0.poll_hear(context) {
                    return Poll::Ready(heard.map(Woken::Heard));
                }
                // Events that gather wake nobody: the clock does, once for all of them.
                if Instant::now() < self.gate {
                    if clock.deadline() > self.gate {
                        clock.as_mut().reset(self.gate);
                    }
                } else if self.listener.queue().poll_ready(context).is_ready() {
                    return Poll::Ready(Ok(Woken::Waiting));
                }
                if clock.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Ok(Woken::Due));
                }
                if self.leaving.is_none() && drain.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Ok(Woken::Draining));
                }
                Poll::Pending
            });
            match woken.await? {
                Woken::Heard(None) => return Ok(()),
                Woken::Heard(Some(incoming)) => {
                    self.heard = Instant::now();
                    if !Box::pin(self.hear(incoming)).await? {
                        return Ok(());
                    }
                }
                Woken::Waiting => self.carry_out().await?,
                Woken::Due => {
                    if Instant::now() >= self.next_due() {
                        Box::pin(self.keep_time()).await?;
                    }
                    clock.as_mut().reset(self.next_due());
                }
                Woken::Draining => {
                    let turn = draw_turn(self.shared);
                    self.leaving = Some((Instant::now() + turn.close_after, turn));
                    clock.as_mut().reset(self.next_due());
                }
            }
        }
    }

    /// The next moment that has to be looked at.
    fn next_due(&self) -> Instant {
        let leaving = self.leaving.map_or(self.expires, |(at, _)| at);
        self.ping
            .min(self.heard + self.shared.manners.idle)
            .min(self.expires)
            .min(leaving)
    }

    /// Does what is due.
    async fn keep_time(&mut self) -> Result<(), Close> {
        let now = Instant::now();
        if now >= self.expires {
            return Err(Close::Unauthorized);
        }
        if let Some((at, turn)) = self.leaving
            && now >= at
        {
            return Err(self.say_closing(turn).await);
        }
        if now >= self.heard + self.shared.manners.idle {
            return Err(Close::Idle);
        }
        if now >= self.ping {
            self.ping = now + self.shared.manners.ping;
            self.connection.send(&[Frame::ping()]).await?;
        }
        Ok(())
    }

    /// Does what the queue says next.
    async fn carry_out(&mut self) -> Result<(), Close> {
        match self.listener.queue().take() {
            None => Ok(()),
            Some(Next::Items(items)) => {
                let now = Instant::now();
                self.gather = gather::wait(self.gather, items.len(), now - self.gate);
                self.gate = now + self.gather;
                self.pass_on(items).await
            }
            Some(Next::Left(channel)) => {
                self.listener.put_out(channel);
                Box::pin(self.say_left(channel, "removed")).await
            }
            Some(Next::Recheck) => Box::pin(self.recheck()).await,
            Some(Next::Close(close)) => Err(close),
        }
    }

    /// Sends events. Who does not take them is not waited for once its queue overflows, or its session ends.
    async fn pass_on(&mut self, items: Vec<Item>) -> Result<(), Close> {
        for item in &items {
            self.listener.note(item);
        }
        let frames: Vec<Frame> = items.into_iter().map(|item| item.frame).collect();
        let bytes = frames.iter().map(Frame::len).sum();
        let (queue, patience, mut waited) = (self.listener.queue(), self.patience, None);
        let closed = || {
            let now = Instant::now();
            waited = Some(now);
            async move {
                tokio::select! {
                    close = poll_fn(|context| queue.poll_closed(context)) => close,
                    () = sleep_until(patience.limit(now)) => Close::Slow,
                }
            }
        };
        self.connection.0.send(&frames, closed).await?;
        self.patience.note(bytes, waited);
        Ok(())
    }

    /// Finds out what the person may still listen to.
    async fn recheck(&mut self) -> Result<(), Close> {
        for channel in self.listener.recheck(Instant::now() + SETUP).await? {
            self.say_left(channel, "removed").await?;
        }
        Ok(())
    }

    /// Takes a message of the client; answers whether the client is still there.
    async fn hear(&mut self, message: Incoming) -> Result<bool, Close> {
        if self.allowance.check().is_err() {
            return Err(Close::Flood);
        }
        match message {
            Incoming::Close(code) => self.connection.part(code).await.map(|()| false),
            Incoming::Ping(carried) => {
                let pong = Frame::pong(&carried);
                self.connection.send(&[pong]).await.map(|()| true)
            }
            Incoming::Pong => Ok(true),
            Incoming::Binary(_) => Err(Close::Protocol),
            Incoming::Text(text) => self.answer(&text).await.map(|()| true),
        }
    }

    async fn answer(&mut self, text: &str) -> Result<(), Close> {
        let deadline = Instant::now() + SETUP;
        match serde_json::from_str(text) {
            Ok(Request::Ping {}) => self.connection.reply(&Reply::Pong).await,
            Ok(Request::Subscribe {
                channel,
                resume,
                consistency_token,
            }) => {
                let after = written(self.shared, consistency_token)?;
                let subscribed = self.listener.subscribe(&channel, resume, after, deadline);
                match subscribed.await? {
                    Ok(caught) => {
                        let subscribed = Reply::Subscribed(caught.place.clone());
                        self.connection.reply(&subscribed).await?;
                        self.catch_up(caught).await
                    }
                    Err(refusal) => self.connection.refuse(refusal.code(), channel).await,
                }
            }
            Ok(Request::Unsubscribe { channel }) => match self.listener.unsubscribe(&channel) {
                Ok(()) => {
                    let reason = "asked";
                    let reply = Reply::Unsubscribed { channel, reason };
                    self.connection.reply(&reply).await
                }
                Err(refusal) => self.connection.refuse(refusal.code(), channel).await,
            },
            Ok(Request::Renew { token }) => {
                let proof = Proof::Token(token);
                let again = self.shared.people.authenticate(proof, deadline).await?;
                // The connection closes with the session of the first token, so a token of another session does not count.
                let session = self.listener.person().session_id;
                let again = again.filter(|again| again.session_id == session);
                let again = again.ok_or(Close::Unauthorized)?;
                self.expires = expiry(&again);
                let expires_at = again.expires_at;
                self.connection.reply(&Reply::Renewed { expires_at }).await
            }
            Ok(Request::Connect { .. }) | Err(_) => Err(Close::Protocol),
        }
    }

    /// Sends what the client missed.
    async fn catch_up(&mut self, caught: Caught) -> Result<(), Close> {
        let Some(mut missed) = caught.missed else {
            return Ok(());
        };
        while let Some(page) = missed.next(&self.shared.hub, Instant::now() + SETUP).await? {
            let labels = SourceLabels { source: "history" };
            let count = u64::try_from(page.len()).unwrap_or(0);
            self.pass_on(page).await?;
            self.shared
                .metrics
                .deliveries
                .get_or_create(&labels)
                .inc_by(count);
        }
        Ok(())
    }

    async fn say_left(&mut self, channel: Channel, reason: &'static str) -> Result<(), Close> {
        let channel = channel.to_string();
        self.connection
            .reply(&Reply::Unsubscribed { channel, reason })
            .await
    }

    /// Tells the client when and with what to come back.
    async fn say_closing(&mut self, turn: Turn) -> Close {
        let close = draining(turn);
        if let Close::Draining { reconnect_after_ms } = close {
            let places = self.listener.places();
            let closing = Reply::Closing {
                reconnect_after_ms,
                resume: places.map(|(channel, at)| (channel.to_string(), at)).collect(),
            };
            let _ = self.connection.reply(&closing).await;
        }
        close
    }
}
