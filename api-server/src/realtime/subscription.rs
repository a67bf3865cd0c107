//! Redis pub/sub: frames go out through one connection and come in through another. Only channels with local members
//! are subscribed to.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::hub::{Hub, Outgoing};
use crate::domain::event::Channel;
use crate::entropy;
use crate::redis_link::{Connected, Ended, RedisLink, Subscription};

/// Prefix of our channels in Redis.
const PREFIX: &str = "tanka:event:";
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
        let mut sent = connected.batch();
        for Outgoing { channel, frame } in &batch {
            let name = format!("{PREFIX}{channel}");
            let mut command = redis::cmd("SPUBLISH");
            command.arg(&name).arg(frame.as_str());
            sent.add(&name, command);
        }
        if sent.run().await.is_err() {
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
                if let Err(Ended(reason)) = Receiver::open(&hub, connected).await {
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
    subscription: Subscription,
    subscribed: HashSet<Channel>,
}

impl Receiver<'_> {
    /// Subscribes and delivers until something fails; answers what.
    async fn open(hub: &Hub, connected: Arc<Connected>) -> Result<(), Ended> {
        let mut receiver = Receiver {
            hub,
            subscription: Subscription::open(connected).await?,
            subscribed: HashSet::new(),
        };
        let everything: Vec<_> = hub
            .channels()
            .into_iter()
            .map(|channel| (channel, true))
            .collect();
        receiver.adjust(everything).await?;
        hub.set_subscribed(true);
        receiver.deliver().await
    }

    async fn deliver(&mut self) -> Result<(), Ended> {
        loop {
            tokio::select! {
                message = self.subscription.next() => {
                    let message = message?;
                    if let Some(channel) = message.channel.strip_prefix(PREFIX).and_then(Channel::parse)
                        && let Ok(frame) = std::str::from_utf8(&message.payload)
                    {
                        self.hub.receive(channel, frame);
                    }
                }
                () = self.hub.dirtied() => {
                    let dirty = self.hub.take_dirty();
                    self.adjust(dirty).await?;
                }
            }
        }
    }

    /// Subscribes to channels that have members and leaves those that have none. What was written to a new channel before
    /// its subscription took effect is looked up.
    async fn adjust(&mut self, dirty: Vec<(Channel, bool)>) -> Result<(), Ended> {
        let (mut new, mut old) = (Vec::new(), Vec::new());
        for (channel, has_members) in dirty {
            if has_members && self.subscribed.insert(channel) {
                new.push(channel);
            } else if !has_members && self.subscribed.remove(&channel) {
                old.push(channel);
            }
        }
        self.subscription.add(&names(&new)).await?;
        self.subscription.remove(&names(&old)).await?;
        if !new.is_empty() {
            let hub = self.hub.clone();
            tokio::spawn(async move { hub.look_at(&new, true).await });
        }
        Ok(())
    }
}

fn names(channels: &[Channel]) -> Vec<String> {
    channels
        .iter()
        .map(|channel| format!("{PREFIX}{channel}"))
        .collect()
}
