//! Sharded channels: a message goes to the server that holds the channel's slot alone, and to nobody else in a Redis Cluster (F43);
//! to a single server it makes no difference. A beat that is sent through each server shows that the whole way works: a subscription
//! at a server that is no longer asked would look alive otherwise.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{CONNECT, Connected};

/// Time between beats.
const BEAT: Duration = Duration::from_secs(1);
/// Silence after which the way counts as broken.
const SILENCE: Duration = Duration::from_secs(3);
/// Limit of subscribing.
const SUBSCRIBE: Duration = Duration::from_secs(2);
/// Channels in one pipeline.
const CHUNK: usize = 500;
/// Messages that may wait. Who is further behind loses the subscription and looks in the tables.
const WAITING: usize = 65_536;

/// What was published.
#[derive(Debug)]
pub struct Message {
    /// Where.
    pub channel: String,
    /// What.
    pub payload: Vec<u8>,
}

/// Why a subscription ended; it has to be opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended(pub &'static str);

/// A subscription to sharded channels. It ends when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    connected: Arc<Connected>,
    ways: Vec<Way>,
    messages: mpsc::Receiver<Message>,
    end: Arc<End>,
    beat: Interval,
}

/// The way through one server.
#[derive(Debug)]
struct Way {
    connection: MultiplexedConnection,
    /// A channel that it holds.
    own: String,
    heard: Instant,
}

/// Whether and why it ended, and how many channels are being left.
#[derive(Debug, Default)]
struct End {
    reason: OnceLock<&'static str>,
    token: CancellationToken,
    parting: AtomicUsize,
}

impl End {
    fn set(&self, reason: &'static str) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// What a server tells, taken where it is read.
    fn take(&self, info: PushInfo, messages: &mpsc::Sender<Message>) {
        match info.kind {
            PushKind::SMessage => {
                if let Some(message) = message(info.data)
                    && messages.try_send(message).is_err()
                {
                    self.set("too many messages wait");
                }
            }
            PushKind::SUnsubscribe => {
                let less = |count: usize| count.checked_sub(1);
                let asked = self
                    .parting
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
                if asked.is_err() {
                    self.set("a channel was moved to another server");
                }
            }
            PushKind::Disconnection => self.set("connection was closed"),
            _ => {}
        }
    }
}

fn message(data: Vec<Value>) -> Option<Message> {
    let [Value::BulkString(channel), Value::BulkString(payload)] = <[Value; 2]>::try_from(data).ok()? else {
        return None;
    };
    Some(Message {
        channel: String::from_utf8(channel).ok()?,
        payload,
    })
}

impl Subscription {
    /// Opens one without channels.
    pub async fn open(connected: Arc<Connected>) -> Result<Self, Ended> {
        let (sender, messages) = mpsc::channel(WAITING);
        let end = Arc::<End>::default();
        let name = Uuid::new_v4();
        let ways = try_join_all(connected.servers.iter().enumerate().map(async |(index, server)| {
            let (sender, end) = (sender.clone(), end.clone());
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT))
                .set_response_timeout(Some(SUBSCRIBE))
                .set_push_sender(move |info| {
                    end.take(info, &sender);
                    Ok::<_, ()>(())
                });
            let connection = server
                .listener
                .get_multiplexed_async_connection_with_config(&config);
            Ok(Way {
                connection: within(connection, "no connection").await?,
                own: own_channel(&connected, name, index),
                heard: Instant::now(),
            })
        }))
        .await?;
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut subscription = Self {
            connected,
            ways,
            messages,
            end,
            beat,
        };
        let own: Vec<String> = subscription.ways.iter().map(|way| way.own.clone()).collect();
        subscription.add(&own).await?;
        Ok(subscription)
    }

    /// Subscribes to more channels.
    pub async fn add(&mut self, channels: &[String]) -> Result<(), Ended> {
        self.send("SSUBSCRIBE", channels, "subscription failed").await?;
        self.listen_anew();
        Ok(())
    }

    /// Leaves channels that it is subscribed to.
    pub async fn remove(&mut self, channels: &[String]) -> Result<(), Ended> {
        self.end.parting.fetch_add(channels.len(), Ordering::Relaxed);
        self.send("SUNSUBSCRIBE", channels, "unsubscribing failed")
            .await?;
        self.listen_anew();
        Ok(())
    }

    /// While channels were added or left nobody listened to beats, and every server has answered.
    fn listen_anew(&mut self) {
        let now = Instant::now();
        self.ways.iter_mut().for_each(|way| way.heard = now);
    }

    /// One command for each channel, because those of one command would have to be in one slot.
    async fn send(&self, command: &str, channels: &[String], failed: &'static str) -> Result<(), Ended> {
        for chunk in channels.chunks(CHUNK) {
            let mut pipelines = vec![redis::Pipeline::new(); self.ways.len()];
            for channel in chunk {
                pipelines[self.connected.slots.server(channel)]
                    .cmd(command)
                    .arg(channel)
                    .ignore();
            }
            let all = pipelines.iter().zip(&self.ways);
            try_join_all(all.map(async |(pipeline, way)| {
                if pipeline.is_empty() {
                    return Ok(());
                }
                let mut connection = way.connection.clone();
                within(pipeline.query_async::<()>(&mut connection), failed).await
            }))
            .await?;
        }
        Ok(())
    }

    /// The next message. May be dropped and asked again.
    pub async fn next(&mut self) -> Result<Message, Ended> {
        let (end, lost) = (self.end.clone(), self.connected.lost.clone());
        loop {
            tokio::select! {
                biased;
                () = end.token.cancelled() => {
                    return Err(Ended(end.reason.get().copied().unwrap_or("unknown")));
                }
                () = lost.cancelled() => return Err(Ended("the connection to Redis was lost")),
                _ = self.beat.tick() => self.send_beats()?,
                message = self.messages.recv() => {
                    let message = message.ok_or(Ended("connection was closed"))?;
                    match self.ways.iter_mut().find(|way| way.own == message.channel) {
                        Some(way) => way.heard = Instant::now(),
                        None => return Ok(message),
                    }
                }
            }
        }
    }

    fn send_beats(&self) -> Result<(), Ended> {
        for way in &self.ways {
            let silent = way.heard.elapsed();
            // What waits to be read may be a beat.
            if silent > SILENCE && (self.messages.is_empty() || silent > SILENCE * 2) {
                return Err(Ended("silence"));
            }
            let mut command = redis::cmd("SPUBLISH");
            command.arg(&way.own).arg("");
            let mut connection = self.connected.of(&way.own);
            // Sent beside the loop: waiting for the answer would hold up messages.
            tokio::spawn(async move { command.query_async::<()>(&mut connection).await });
        }
        Ok(())
    }
}

/// A channel of this subscription alone that a certain server holds.
fn own_channel(connected: &Connected, name: Uuid, server: usize) -> String {
    // Each try hits with the server's share of all slots.
    (0..u32::MAX)
        .map(|number| format!("tanka:beat:{name}:{number}"))
        .find(|channel| connected.slots.server(channel) == server)
        .unwrap_or_default()
}

async fn within<T>(
    asked: impl Future<Output = redis::RedisResult<T>>,
    failed: &'static str,
) -> Result<T, Ended> {
    match timeout(SUBSCRIBE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            tracing::debug!(%error, failed);
            Err(Ended(failed))
        }
        Err(_) => Err(Ended("no answer in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: PushKind, data: &[&str]) -> PushInfo {
        let data = data
            .iter()
            .map(|text| Value::BulkString((*text).into()))
            .collect();
        PushInfo { kind, data }
    }

    #[test]
    fn a_subscription_ends_when_what_it_would_miss_is_not_known() {
        let (sender, mut messages) = mpsc::channel(1);
        let end = End::default();
        end.take(told(PushKind::SMessage, &["a", "1"]), &sender);
        assert_eq!(end.reason.get(), None);
        end.take(told(PushKind::SMessage, &["a", "2"]), &sender);
        assert_eq!(end.reason.get(), Some(&"too many messages wait"));
        assert_eq!(messages.try_recv().unwrap().payload, b"1");

        let end = End::default();
        end.parting.fetch_add(1, Ordering::Relaxed);
        end.take(told(PushKind::SUnsubscribe, &["a"]), &sender);
        assert_eq!(end.reason.get(), None, "this was asked for");
        end.take(told(PushKind::SUnsubscribe, &["b"]), &sender);
        assert_eq!(end.reason.get(), Some(&"a channel was moved to another server"));

        let end = End::default();
        end.take(told(PushKind::Disconnection, &[]), &sender);
        assert!(end.token.is_cancelled());
    }
}
