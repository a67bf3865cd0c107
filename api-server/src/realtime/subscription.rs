//! Redis pub/sub: frames go out through one connection and come in through another. Only channels with local members
//! are subscribed to. A beat that this process sends to itself shows that the whole way works; a subscription that is
//! still open on a server that is no longer the primary would look alive otherwise.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::hub::{Hub, Outgoing};
use crate::domain::event::Channel;
use crate::entropy;
use crate::redis_link::{Connected, RedisLink};

/// Prefix of our channels in Redis.
const PREFIX: &str = "tanka:event:";
/// Time between beats.
const BEAT: Duration = Duration::from_secs(1);
/// Silence after which the subscription counts as dead.
const SILENCE: Duration = Duration::from_secs(3);
/// Limit of subscribing.
const SUBSCRIBE: Duration = Duration::from_secs(2);
/// Channels in one command.
const CHUNK: usize = 500;
/// Frames in one pipeline.
const BATCH: usize = 256;
/// Pause before the subscription is made again.
const PAUSE: Duration = Duration::from_millis(200);

/// Sends frames to the other processes.
pub async fn publish(
    hub: Hub,
    link: RedisLink,
    mut outgoing: mpsc::Receiver<Outgoing>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(count) = stop
        .run_until_cancelled(outgoing.recv_many(&mut batch, BATCH))
        .await
    {
        if count == 0 {
            return;
        }
        let Some(connected) = link.get() else {
            for _ in batch.drain(..) {
                hub.drop_frame("redis_away");
            }
            continue;
        };
        let mut pipeline = redis::pipe();
        for Outgoing { channel, frame } in &batch {
            pipeline
                .cmd("PUBLISH")
                .arg(format!("{PREFIX}{channel}"))
                .arg(frame.as_str())
                .ignore();
        }
        if pipeline
            .query_async::<()>(&mut connected.connection.clone())
            .await
            .is_err()
        {
            for _ in &batch {
                hub.drop_frame("redis_failed");
            }
        }
        batch.clear();
    }
}

/// Receives frames of the other processes, as long as Redis is there, again and again.
pub async fn receive(hub: Hub, link: RedisLink, stop: CancellationToken) {
    let mut changes = link.subscribe();
    let follow = async {
        loop {
            changes.borrow_and_update();
            if let Some(connected) = link.get() {
                if let Err(reason) = Receiver::open(&hub, &connected).await {
                    tracing::info!(
                        reason,
                        "Redis does not deliver events, the outbox table is polled"
                    );
                }
                hub.set_subscribed(false);
                tokio::time::sleep(entropy::jitter(PAUSE)).await;
            } else if changes.changed().await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(follow).await;
}

struct Receiver<'a> {
    hub: &'a Hub,
    sink: PubSubSink,
    subscribed: HashSet<Channel>,
}

impl Receiver<'_> {
    /// Subscribes and delivers until something fails; answers what.
    async fn open(hub: &Hub, connected: &Connected) -> Result<(), &'static str> {
        let opened = timeout(SUBSCRIBE, connected.client.get_async_pubsub()).await;
        let pubsub = opened
            .map_err(|_| "no connection in time")?
            .map_err(|_| "no connection")?;
        let (sink, stream) = pubsub.split();
        let mut receiver = Receiver {
            hub,
            sink,
            subscribed: HashSet::new(),
        };
        let own = format!("tanka:beat:{}", Uuid::new_v4());
        timeout(SUBSCRIBE, receiver.sink.subscribe(&own))
            .await
            .map_err(|_| "no subscription in time")?
            .map_err(|_| "no subscription")?;
        let everything: Vec<_> = hub
            .channels()
            .into_iter()
            .map(|channel| (channel, true))
            .collect();
        receiver.adjust(everything).await?;
        hub.set_subscribed(true);
        receiver.deliver(stream, connected, &own).await
    }

    async fn deliver(
        &mut self,
        mut stream: PubSubStream,
        connected: &Connected,
        own: &str,
    ) -> Result<(), &'static str> {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                message = stream.next() => {
                    let message = message.ok_or("connection was closed")?;
                    let name = message.get_channel_name();
                    if name == own {
                        heard = Instant::now();
                    } else if let Some(channel) = name.strip_prefix(PREFIX).and_then(Channel::parse)
                        && let Ok(frame) = std::str::from_utf8(message.get_payload_bytes())
                    {
                        self.hub.receive(channel, frame);
                    }
                }
                () = self.hub.dirtied() => {
                    let dirty = self.hub.take_dirty();
                    self.adjust(dirty).await?;
                }
                _ = beat.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err("silence");
                    }
                    let mut command = redis::cmd("PUBLISH");
                    command.arg(own).arg("");
                    let mut connection = connected.connection.clone();
                    // Sent beside the loop: waiting for the answer would hold up deliveries.
                    tokio::spawn(async move { command.query_async::<()>(&mut connection).await });
                }
            }
        }
    }

    /// Subscribes to channels that have members and leaves those that have none. What was written to a new channel before
    /// its subscription took effect is looked up.
    async fn adjust(&mut self, dirty: Vec<(Channel, bool)>) -> Result<(), &'static str> {
        let (wanted, unwanted): (Vec<_>, Vec<_>) = dirty.into_iter().partition(|(_, members)| *members);
        let names = |channels: &[Channel]| {
            channels
                .iter()
                .map(|c| format!("{PREFIX}{c}"))
                .collect::<Vec<_>>()
        };
        let new: Vec<Channel> = wanted
            .into_iter()
            .map(|(channel, _)| channel)
            .filter(|c| self.subscribed.insert(*c))
            .collect();
        for chunk in new.chunks(CHUNK) {
            timeout(SUBSCRIBE, self.sink.subscribe(names(chunk)))
                .await
                .map_err(|_| "no subscription in time")?
                .map_err(|_| "subscription failed")?;
        }
        let old: Vec<Channel> = unwanted
            .into_iter()
            .map(|(channel, _)| channel)
            .filter(|c| self.subscribed.remove(c))
            .collect();
        for chunk in old.chunks(CHUNK) {
            timeout(SUBSCRIBE, self.sink.unsubscribe(names(chunk)))
                .await
                .map_err(|_| "no answer in time")?
                .map_err(|_| "unsubscribing failed")?;
        }
        if !new.is_empty() {
            let hub = self.hub.clone();
            tokio::spawn(async move { hub.look_at(&new, true).await });
        }
        Ok(())
    }
}
