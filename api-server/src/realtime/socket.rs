//! A client on a WebSocket. The first frame proves who connects, because an address ends up in logs.
//!
//! What is rare is boxed: the memory of an idle connection is that of its future, which is as large as the largest thing that it ever
//! waits for.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::hub::Resume;
use super::listener::{Caught, Listener, People, Shared};
use super::pace::{Turn, turn};
use super::protocol::{Proof, Reply, Request};
use super::queue::{Close, Next};
use crate::clock;
use crate::domain::event::Channel;
use crate::domain::principal::Principal;
use crate::entropy;
use crate::metrics::{ReasonLabels, SourceLabels};

/// How long a client may take to say who it is.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// How long one frame may take to leave.
const SEND: Duration = Duration::from_secs(5);
/// Time between pings, below the idle limits of common proxies.
const PING: Duration = Duration::from_secs(20);
/// Silence after which a client is gone.
const IDLE: Duration = Duration::from_secs(40);
/// Limit of finding out who a client is and what it missed, and of answering it.
const SETUP: Duration = Duration::from_secs(10);
/// Frames of a client in a second, and at once.
const FRAMES: (NonZeroU32, NonZeroU32) = (
    NonZeroU32::new(20).expect("above zero"),
    NonZeroU32::new(200).expect("above zero"),
);

struct Connection {
    sink: SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
}

/// What the first frame says.
struct First {
    proof: Proof,
    channels: Vec<String>,
    resume: HashMap<String, Resume>,
}

/// Serves a socket until it closes.
pub async fn serve<P: People>(socket: WebSocket, shared: Shared<P>) {
    let _counted = Counted::new(&shared);
    let (sink, stream) = socket.split();
    let mut connection = Connection { sink, stream };
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

/// A connection that is counted until it is dropped.
pub(super) struct Counted(prometheus_client::metrics::gauge::Gauge);

impl Counted {
    pub(super) fn new<P>(shared: &Shared<P>) -> Self {
        shared.metrics.sockets.inc();
        Self(shared.metrics.sockets.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
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

/// Everything between the opening and the close; `Ok` means that the client left.
async fn converse<P: People>(connection: &mut Connection, shared: &Shared<P>) -> Result<(), Close> {
    let setup = Box::pin(async {
        let Some(first) = connection.first().await? else {
            return Ok(None);
        };
        let deadline = Instant::now() + SETUP;
        let person = shared.people.authenticate(first.proof, deadline).await?;
        let person = person.ok_or(Close::Unauthorized)?;
        let opened = Listener::open(shared, person, &first.channels, &first.resume, deadline).await?;
        Ok(Some(opened))
    });
    let (listener, caught, refused) = tokio::select! {
        done = setup => match done? {
            Some(opened) => opened,
            None => return Ok(()),
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
    let mut talk = Talk {
        connection,
        shared,
        expires: expiry(listener.person()),
        listener,
        allowance: RateLimiter::direct(Quota::per_second(FRAMES.0).allow_burst(FRAMES.1)),
    };
    for caught in caught {
        Box::pin(talk.catch_up(caught)).await?;
    }
    talk.follow().await
}

impl Connection {
    /// The first frame; none if the client left.
    async fn first(&mut self) -> Result<Option<First>, Close> {
        let end = Instant::now() + FIRST_FRAME;
        let text = loop {
            match tokio::time::timeout_at(end, self.stream.next())
                .await
                .map_err(|_| Close::Unauthorized)?
            {
                Some(Ok(Message::Text(text))) => break text,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_))) => return Err(Close::Protocol),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
            }
        };
        match serde_json::from_str(&text) {
            Ok(Request::Connect {
                proof,
                channels,
                resume,
            }) => Ok(Some(First {
                proof,
                channels,
                resume,
            })),
            _ => Err(Close::Protocol),
        }
    }

    async fn reply(&mut self, reply: &Reply) -> Result<(), Close> {
        let text = serde_json::to_string(reply).map_err(|_| Close::Protocol)?;
        self.send(Message::Text(text.into())).await
    }

    async fn refuse(&mut self, code: &'static str, channel: String) -> Result<(), Close> {
        self.reply(&Reply::Error {
            code,
            channel: Some(channel),
            fatal: false,
        })
        .await
    }

    async fn send(&mut self, message: Message) -> Result<(), Close> {
        match timeout(SEND, self.sink.send(message)).await {
            // When the client is gone, that comes from the stream too.
            Ok(Ok(()) | Err(_)) => Ok(()),
            Err(_) => Err(Close::Slow),
        }
    }

    async fn close(&mut self, close: &Close) {
        let frame = CloseFrame {
            code: close.code(),
            reason: Utf8Bytes::from(close.text()),
        };
        if !matches!(close, Close::Draining { .. }) {
            let error = Reply::Error {
                code: close.label(),
                channel: None,
                fatal: true,
            };
            let _ = self.reply(&error).await;
        }
        let _ = timeout(SEND, self.sink.send(Message::Close(Some(frame)))).await;
        // The client's answer ends the connection properly; it is not waited for longer than that.
        let answered = async { while let Some(Ok(_)) = self.stream.next().await {} };
        let _ = timeout(Duration::from_secs(1), answered).await;
    }
}

/// A client that is known.
struct Talk<'c, P> {
    connection: &'c mut Connection,
    shared: &'c Shared<P>,
    listener: Listener<P>,
    expires: Instant,
    allowance: DefaultDirectRateLimiter,
}

impl<P: People> Talk<'_, P> {
    /// Sends what comes, until somebody closes.
    async fn follow(mut self) -> Result<(), Close> {
        let mut ping = interval_at(Instant::now() + entropy::jitter(PING / 2), PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut leaving: Option<(Instant, Turn)> = None;
        loop {
            let end = leaving.map_or(self.expires, |(at, _)| at.min(self.expires));
            tokio::select! {
                next = self.listener.next() => self.carry_out(next).await?,
                message = self.connection.stream.next() => {
                    heard = Instant::now();
                    let Some(Ok(message)) = message else { return Ok(()) };
                    if !Box::pin(self.hear(message)).await? {
                        return Ok(());
                    }
                }
                _ = ping.tick() => self.connection.send(Message::Ping(bytes::Bytes::new())).await?,
                () = sleep_until(heard + IDLE) => return Err(Close::Idle),
                () = sleep_until(end) => match leaving {
                    Some((at, turn)) if at <= self.expires => return Err(Box::pin(self.say_closing(turn)).await),
                    _ => return Err(Close::Unauthorized),
                },
                () = self.shared.drain.cancelled(), if leaving.is_none() => {
                    let turn = draw_turn(self.shared);
                    leaving = Some((Instant::now() + turn.close_after, turn));
                }
            }
        }
    }

    async fn carry_out(&mut self, next: Next) -> Result<(), Close> {
        match next {
            Next::Item(item) => {
                self.listener.note(&item);
                self.connection.send(Message::Text(item.frame)).await
            }
            Next::Left(channel) => {
                self.listener.put_out(channel);
                Box::pin(self.say_left(channel, "removed")).await
            }
            Next::Recheck => Box::pin(self.recheck()).await,
            Next::Close(close) => Err(close),
        }
    }

    /// Finds out what the person may still listen to.
    async fn recheck(&mut self) -> Result<(), Close> {
        for channel in self.listener.recheck(Instant::now() + SETUP).await? {
            self.say_left(channel, "removed").await?;
        }
        Ok(())
    }

    /// Takes a message of the client; answers whether the client is still there.
    async fn hear(&mut self, message: Message) -> Result<bool, Close> {
        if self.allowance.check().is_err() {
            return Err(Close::Flood);
        }
        match message {
            Message::Close(_) => Ok(false),
            Message::Ping(_) | Message::Pong(_) => Ok(true),
            Message::Binary(_) => Err(Close::Protocol),
            Message::Text(text) => self.answer(&text).await.map(|()| true),
        }
    }

    async fn answer(&mut self, text: &str) -> Result<(), Close> {
        let deadline = Instant::now() + SETUP;
        match serde_json::from_str(text) {
            Ok(Request::Ping {}) => self.connection.reply(&Reply::Pong).await,
            Ok(Request::Subscribe { channel, resume }) => {
                match self.listener.subscribe(&channel, resume, deadline).await? {
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
            for item in page {
                self.listener.note(&item);
                self.connection.send(Message::Text(item.frame)).await?;
                let labels = SourceLabels { source: "history" };
                self.shared.metrics.deliveries.get_or_create(&labels).inc();
            }
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
