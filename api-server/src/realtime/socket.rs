//! One WebSocket: who it is, what it missed, what happens now. The types `Request` and `Reply` are the protocol.
//! The first frame proves who connects, because an address ends up in logs.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::hub::{Hub, ready};
use super::queue::{Close, Next, Queue};
use super::room::{Head, Member};
use crate::clock;
use crate::domain::event::Channel;
use crate::domain::principal::Principal;
use crate::entropy;
use crate::metrics::{OutcomeLabels, RealtimeMetrics, ReasonLabels, SourceLabels};

/// How long a client may take to say who it is.
const FIRST_FRAME: Duration = Duration::from_secs(10);
/// How long one frame may take to leave.
const SEND: Duration = Duration::from_secs(5);
/// Time between pings, below the idle limits of common proxies.
const PING: Duration = Duration::from_secs(25);
/// Silence after which a client is gone.
const IDLE: Duration = Duration::from_mins(1);
/// Limit of finding out who a client is and what it missed.
const SETUP: Duration = Duration::from_secs(10);
/// Clients that come back after a drain are spread over this time.
const SPREAD: Duration = Duration::from_secs(4);

/// What a client sends.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Request {
    /// The first frame.
    Connect {
        #[serde(flatten)]
        proof: Proof,
        resume: Option<Resume>,
    },
    /// Answered with `pong`, for clients that cannot send protocol pings.
    Ping {},
    /// A newer access token of the same person, so that the socket outlives the old one.
    Renew { token: String },
}

/// What proves who connects.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// An access token.
    Token(String),
    /// A ticket.
    Ticket(String),
}

/// Where a client was before.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resume {
    offset: i64,
    epoch: Option<Uuid>,
}

/// What the server sends besides events.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Reply {
    /// The client is known; events follow from here.
    Connected {
        channel: String,
        epoch: Option<Uuid>,
        offset: i64,
        recovered: bool,
    },
    /// Answers `ping`.
    Pong,
    /// Answers `renew`.
    Renewed { expires_at: jiff::Timestamp },
    /// The reason of the close that follows.
    Error { code: &'static str },
}

/// Tells who a proof belongs to.
pub trait Authenticate: Send + Sync {
    /// The person, or none if the proof is not good.
    fn authenticate(
        &self,
        proof: Proof,
        deadline: Instant,
    ) -> impl Future<Output = Result<Option<Principal>, Close>> + Send;
}

/// What all sockets share.
#[derive(Debug, Clone)]
pub struct Shared<A> {
    /// Where events come from.
    pub hub: Hub,
    /// Who people are.
    pub people: A,
    /// What is counted.
    pub metrics: RealtimeMetrics,
    /// Bytes that may wait for the socket.
    pub send_buffer: usize,
    /// Ends when sockets have to close.
    pub drain: CancellationToken,
}

struct Connection {
    sink: SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
}

/// Serves a socket until it closes.
pub async fn serve<A: Authenticate>(socket: WebSocket, shared: Shared<A>) {
    shared.metrics.sockets.inc();
    let (sink, stream) = socket.split();
    let mut connection = Connection { sink, stream };
    let reason = match converse(&mut connection, &shared).await {
        Ok(()) => "client",
        Err(close) => {
            connection.close(&close).await;
            close.label()
        }
    };
    shared
        .metrics
        .closed
        .get_or_create(&ReasonLabels { reason })
        .inc();
    shared.metrics.sockets.dec();
}

/// Everything between the opening and the close; `Ok` means that the client left.
async fn converse<A: Authenticate>(connection: &mut Connection, shared: &Shared<A>) -> Result<(), Close> {
    let setup = async {
        let Some((proof, resume)) = connection.first().await? else {
            return Ok(None);
        };
        let deadline = Instant::now() + SETUP;
        let person = shared
            .people
            .authenticate(proof, deadline)
            .await?
            .ok_or(Close::Unauthorized)?;
        Ok(Some((person, resume, deadline)))
    };
    let (person, resume, deadline) = tokio::select! {
        done = setup => match done? {
            Some(done) => done,
            None => return Ok(()),
        },
        () = shared.drain.cancelled() => return Err(draining()),
    };
    let channel = Channel::User(person.user_id);
    let queue = Arc::new(Queue::new(shared.send_buffer));
    let id = shared.hub.next_member();
    let member = Member {
        id,
        session: person.session_id,
        queue: queue.clone(),
    };
    let _membership = Membership {
        hub: shared.hub.clone(),
        channel,
        id,
    };
    let head = shared
        .hub
        .join(channel, member, deadline)
        .await
        .map_err(|_| Close::Unavailable)?;
    connection
        .catch_up(shared, channel, head, resume, deadline)
        .await?;
    connection.follow(shared, person, &queue).await
}

/// Leaves the channel when the socket ends, however it ends.
struct Membership {
    hub: Hub,
    channel: Channel,
    id: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.hub.leave(self.channel, self.id);
    }
}

fn draining() -> Close {
    let pause = entropy::jitter(SPREAD);
    Close::Draining {
        reconnect_after_ms: u64::try_from(pause.as_millis()).unwrap_or(0),
    }
}

impl Connection {
    /// The first frame; none if the client left.
    async fn first(&mut self) -> Result<Option<(Proof, Option<Resume>)>, Close> {
        let text = loop {
            match timeout(FIRST_FRAME, self.stream.next())
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
            Ok(Request::Connect { proof, resume }) => Ok(Some((proof, resume))),
            _ => Err(Close::Protocol),
        }
    }

    /// Says from where events follow, and sends what the client missed.
    async fn catch_up<A>(
        &mut self,
        shared: &Shared<A>,
        channel: Channel,
        head: Head,
        resume: Option<Resume>,
        deadline: Instant,
    ) -> Result<(), Close> {
        let missed = match (resume, head.epoch) {
            (None, _) => None,
            (Some(resume), None) => (resume.offset == 0).then(Vec::new),
            (Some(resume), Some(epoch)) => {
                let same = resume.epoch == Some(epoch) || (resume.epoch.is_none() && resume.offset == 0);
                if same && (0..=head.position).contains(&resume.offset) {
                    let history = shared
                        .hub
                        .history(channel, epoch, resume.offset, head.position, deadline)
                        .await;
                    history.map_err(|_| Close::Unavailable)?
                } else {
                    None
                }
            }
        };
        if resume.is_some() {
            let outcome = if missed.is_some() {
                "recovered"
            } else {
                "not_recovered"
            };
            shared
                .metrics
                .resumes
                .get_or_create(&OutcomeLabels { outcome })
                .inc();
        }
        let recovered = missed.is_some();
        let connected = Reply::Connected {
            channel: channel.to_string(),
            epoch: head.epoch,
            offset: head.position,
            recovered,
        };
        self.reply(&connected).await?;
        for event in missed.unwrap_or_default() {
            if let Some(ready) = ready(&event) {
                self.send(Message::Text(ready.frame)).await?;
                shared
                    .metrics
                    .deliveries
                    .get_or_create(&SourceLabels { source: "history" })
                    .inc();
            }
        }
        Ok(())
    }

    /// Sends what comes, until somebody closes.
    async fn follow<A: Authenticate>(
        &mut self,
        shared: &Shared<A>,
        person: Principal,
        queue: &Queue,
    ) -> Result<(), Close> {
        let mut expires = expiry(&person);
        let mut ping = interval_at(Instant::now() + entropy::jitter(PING), PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                next = queue.next() => match next {
                    Next::Frame(frame) => self.send(Message::Text(frame)).await?,
                    Next::Close(close) => return Err(close),
                },
                message = self.stream.next() => {
                    heard = Instant::now();
                    match message {
                        None | Some(Err(_) | Ok(Message::Close(_))) => return Ok(()),
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        Some(Ok(Message::Binary(_))) => return Err(Close::Protocol),
                        Some(Ok(Message::Text(text))) => {
                            if let Some(renewed) = self.answer(shared, &person, &text).await? {
                                expires = renewed;
                            }
                        }
                    }
                }
                _ = ping.tick() => {
                    if heard.elapsed() > IDLE {
                        return Err(Close::Idle);
                    }
                    self.send(Message::Ping(bytes::Bytes::new())).await?;
                }
                () = sleep_until(expires) => return Err(Close::Unauthorized),
                () = shared.drain.cancelled() => return Err(draining()),
            }
        }
    }

    /// Answers a frame of the client; a renewed token gives a new end.
    async fn answer<A: Authenticate>(
        &mut self,
        shared: &Shared<A>,
        person: &Principal,
        text: &str,
    ) -> Result<Option<Instant>, Close> {
        match serde_json::from_str(text) {
            Ok(Request::Ping {}) => {
                self.reply(&Reply::Pong).await?;
                Ok(None)
            }
            Ok(Request::Renew { token }) => {
                let deadline = Instant::now() + SETUP;
                let again = shared.people.authenticate(Proof::Token(token), deadline).await?;
                // The queue closes with the session of the first token, so a token of another session does not count.
                let again = again.filter(|again| again.session_id == person.session_id);
                let again = again.ok_or(Close::Unauthorized)?;
                self.reply(&Reply::Renewed {
                    expires_at: again.expires_at,
                })
                .await?;
                Ok(Some(expiry(&again)))
            }
            Ok(Request::Connect { .. }) | Err(_) => Err(Close::Protocol),
        }
    }

    async fn reply(&mut self, reply: &Reply) -> Result<(), Close> {
        let text = serde_json::to_string(reply).map_err(|_| Close::Protocol)?;
        self.send(Message::Text(text.into())).await
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
            let _ = self.reply(&Reply::Error { code: close.label() }).await;
        }
        let _ = timeout(SEND, self.sink.send(Message::Close(Some(frame)))).await;
        // The client's answer ends the connection properly; it is not waited for longer than that.
        let answered = async { while let Some(Ok(_)) = self.stream.next().await {} };
        let _ = timeout(Duration::from_secs(1), answered).await;
    }
}

fn expiry(person: &Principal) -> Instant {
    let left = person.expires_at.duration_since(clock::now());
    Instant::now() + Duration::try_from(left).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(r#"{"type":"connect","token":"tka_x"}"#, true)]
    #[case(
        r#"{"type":"connect","ticket":"tkt_x","resume":{"offset":3,"epoch":null}}"#,
        true
    )]
    #[case(r#"{"type":"connect"}"#, false)]
    #[case(r#"{"type":"ping"}"#, true)]
    #[case(r#"{"type":"renew","token":"tka_x"}"#, true)]
    #[case(r#"{"type":"else"}"#, false)]
    #[case("", false)]
    fn requests_are_read(#[case] text: &str, #[case] good: bool) {
        assert_eq!(serde_json::from_str::<Request>(text).is_ok(), good);
    }
}
