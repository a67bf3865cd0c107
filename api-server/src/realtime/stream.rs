//! A client on server-sent events: the same events, where WebSockets are blocked. What it listens to is fixed when it connects.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use futures::Stream;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::cursor;
use super::listener::{Caught, Listener, People, Shared};
use super::pace::Turn;
use super::patience::{GRACE, Patience};
use super::protocol::{Refusal, Reply};
use super::queue::{Close, Item, Next};
use super::socket::{draining, draw_turn, expiry};
use crate::metrics::{Counted, ReasonLabels, SourceLabels};

/// Time between comments that keep proxies from cutting an idle connection.
const COMMENT: Duration = Duration::from_secs(15);
/// Limit of finding out what a client missed.
const SETUP: Duration = Duration::from_secs(10);

/// A client whose right to listen is known.
#[derive(Debug)]
pub struct Opened<P> {
    /// The client.
    pub listener: Listener<P>,
    /// What it missed.
    pub caught: Vec<Caught>,
    /// What it may not listen to.
    pub refused: Vec<(String, Refusal)>,
}

/// The last event of a stream.
#[derive(Debug, Serialize)]
struct Ended {
    code: u16,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reconnect_after_ms: Option<u64>,
}

type Sent = Result<Event, Infallible>;

/// Starts to serve a client; the body of the answer is what this answers, and the work that fills it.
pub fn serve<P: People>(
    opened: Opened<P>,
    shared: Arc<Shared<P>>,
) -> (
    impl Stream<Item = Sent> + Send + 'static,
    impl Future<Output = ()> + Send + 'static,
) {
    // One event is on its way while the next one waits in the bounded queue of the listener.
    let (sender, mut receiver) = mpsc::channel::<Sent>(1);
    let work = async move {
        let _counted = Counted::new(&shared.metrics.sockets);
        let mut feed = Feed {
            sender,
            shared,
            expires: expiry(opened.listener.person()),
            listener: opened.listener,
            patience: Patience::default(),
        };
        let ended = feed.run(opened.caught, opened.refused).await;
        let reason = match ended {
            Ok(()) => "client",
            Err(close) => {
                feed.say_ended(&close).await;
                close.label()
            }
        };
        let labels = ReasonLabels { reason };
        feed.shared.metrics.closed.get_or_create(&labels).inc();
    };
    let body = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
    (body, work)
}

struct Feed<P> {
    sender: mpsc::Sender<Sent>,
    shared: Arc<Shared<P>>,
    listener: Listener<P>,
    expires: Instant,
    patience: Patience,
}

impl<P: People> Feed<P> {
    /// Everything between the opening and the end; `Ok` means that the client left.
    async fn run(&mut self, caught: Vec<Caught>, refused: Vec<(String, Refusal)>) -> Result<(), Close> {
        let connected = Reply::Connected {
            connection: self.listener.id(),
            expires_at: self.listener.person().expires_at,
            channels: caught.iter().map(|caught| caught.place.clone()).collect(),
        };
        self.say("connected", &connected).await?;
        for (channel, refusal) in refused {
            let error = Reply::Error {
                code: refusal.code(),
                channel: Some(channel),
                fatal: false,
            };
            self.say("error", &error).await?;
        }
        for caught in caught {
            Box::pin(self.catch_up(caught)).await?;
        }
        self.follow().await
    }

    async fn catch_up(&mut self, caught: Caught) -> Result<(), Close> {
        let Some(mut missed) = caught.missed else {
            return Ok(());
        };
        while let Some(page) = missed.next(&self.shared.hub, Instant::now() + SETUP).await? {
            for item in page {
                self.pass_on(item).await?;
                let labels = SourceLabels { source: "history" };
                self.shared.metrics.deliveries.get_or_create(&labels).inc();
            }
        }
        Ok(())
    }

    async fn follow(&mut self) -> Result<(), Close> {
        let mut comment = interval(COMMENT);
        comment.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaving: Option<(Instant, Turn)> = None;
        loop {
            let end = leaving.map_or(self.expires, |(at, _)| at.min(self.expires));
            tokio::select! {
                () = self.sender.closed() => return Ok(()),
                next = self.listener.next() => match next {
                    Next::Items(items) => {
                        for item in items {
                            self.pass_on(item).await?;
                        }
                    }
                    Next::Left(channel) => {
                        self.listener.put_out(channel);
                        self.say_left(channel.to_string()).await?;
                    }
                    Next::Recheck => Box::pin(self.recheck()).await?,
                    Next::Close(close) => return Err(close),
                },
                _ = comment.tick() => self.send(Event::default().comment(""), 0).await?,
                () = sleep_until(end) => return Err(match leaving {
                    Some((at, turn)) if at <= self.expires => draining(turn),
                    _ => Close::Unauthorized,
                }),
                () = self.shared.drain.cancelled(), if leaving.is_none() => {
                    let turn = draw_turn(&self.shared);
                    leaving = Some((Instant::now() + turn.close_after, turn));
                }
            }
        }
    }

    /// Finds out what the person may still listen to.
    async fn recheck(&mut self) -> Result<(), Close> {
        for channel in self.listener.recheck(Instant::now() + SETUP).await? {
            self.say_left(channel.to_string()).await?;
        }
        Ok(())
    }

    async fn pass_on(&mut self, item: Item) -> Result<(), Close> {
        self.listener.note(&item);
        let id = cursor::encode(self.listener.places());
        let event = Event::default().id(id).data(item.frame.as_str());
        self.send(event, item.frame.len()).await
    }

    async fn say_left(&mut self, channel: String) -> Result<(), Close> {
        let reason = "removed";
        self.say("unsubscribed", &Reply::Unsubscribed { channel, reason })
            .await
    }

    /// Sends something that is no event of a channel. It carries the cursor too, so that a client that came back at once goes on from
    /// here.
    async fn say(&mut self, name: &'static str, what: &impl Serialize) -> Result<(), Close> {
        let data = serde_json::to_string(what).map_err(|_| Close::Protocol)?;
        let id = cursor::encode(self.listener.places());
        let bytes = data.len();
        self.send(Event::default().event(name).id(id).data(data), bytes)
            .await
    }

    async fn say_ended(&self, close: &Close) {
        let reconnect_after_ms = match close {
            Close::Draining { reconnect_after_ms } => Some(*reconnect_after_ms),
            _ => None,
        };
        let ended = Ended {
            code: close.code(),
            reason: close.label(),
            reconnect_after_ms,
        };
        let Ok(data) = serde_json::to_string(&ended) else {
            return;
        };
        let mut event = Event::default().event("closed").data(data);
        if let Some(pause) = reconnect_after_ms {
            event = event.retry(Duration::from_millis(pause));
        }
        let _ = timeout(GRACE, self.sender.send(Ok(event))).await;
    }

    /// Who does not take an event is not waited for once its queue overflows, or its session ends.
    async fn send(&mut self, event: Event, bytes: usize) -> Result<(), Close> {
        let event = match self.sender.try_send(Ok(event)) {
            Err(TrySendError::Full(event)) => event,
            // When the client is gone, `follow` notices.
            Ok(()) | Err(TrySendError::Closed(_)) => {
                self.patience.note(bytes, None);
                return Ok(());
            }
        };
        let now = Instant::now();
        tokio::select! {
            biased;
            _ = self.sender.send(event) => self.patience.note(bytes, Some(now)),
            close = poll_fn(|context| self.listener.queue().poll_closed(context)) => return Err(close),
            () = sleep_until(self.patience.limit(now)) => return Err(Close::Slow),
        }
        Ok(())
    }
}
