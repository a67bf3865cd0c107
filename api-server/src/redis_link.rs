//! The way to Redis: finds the primary through Sentinels or by one URL, or all primaries of a Redis Cluster by the URL of one of its
//! servers, keeps one multiplexed connection to each, and notices when one no longer answers. Nobody waits for it: while Redis is away,
//! callers are told so at once.
//!
//! A connection stands for one history of the data. A failover anywhere, or a slot that moves, ends it, and the next one has another
//! [`Connected::replication_id`]; so the way follows no redirection on its own, as a client library for clusters would.

mod batch;
mod connect;
mod slots;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crds::config::Redis;
use redis::Client;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Live;
use crate::entropy;
use crate::metrics::RealtimeMetrics;

pub use batch::Batch;
pub use slots::Slots;
pub use subscription::{Ended, Message, Subscription};

use slots::Address;

/// Limit of one question to one Sentinel, and of connecting.
const CONNECT: Duration = Duration::from_secs(1);
/// Time between checks of the connection.
const CHECK: Duration = Duration::from_secs(1);
/// First and longest pause between attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A file with a password or an address cannot be read.
    #[error("failed to read {path} for Redis")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// No Sentinel knows the primary.
    #[error("no Sentinel names a primary for `{0}`")]
    NoPrimary(String),
    /// What answers is not the primary.
    #[error("the Redis that was named is not the primary (yet)")]
    NotPrimary,
    /// A cluster does not say which of its servers holds what, or not all of it is held.
    #[error("the Redis Cluster has slots that no server holds")]
    Incomplete,
    /// Another history of the data, other servers or other settings than those of the connection.
    #[error("Redis is not the same as before")]
    Changed,
    /// It did not answer in time.
    #[error("Redis did not answer in time")]
    Timeout,
    /// It refused.
    #[error("Redis failed")]
    Redis(#[from] redis::RedisError),
}

/// Connections to the primary, or to all primaries of a Redis Cluster.
#[derive(Debug, Clone)]
pub struct Connected {
    servers: Vec<Server>,
    slots: Slots,
    /// Of a cluster's primaries; none of a single one, which is always looked for anew.
    addresses: Vec<Address>,
    /// Names the history of its data: another one means that data may have been lost or have come back.
    pub replication_id: String,
    /// Ends with the connection.
    lost: CancellationToken,
}

/// A primary.
#[derive(Debug, Clone)]
struct Server {
    /// For commands.
    connection: MultiplexedConnection,
    /// For subscriptions.
    listener: Client,
}

impl Connected {
    /// The connection to the server that holds a key or a sharded channel.
    pub fn of(&self, key: &str) -> MultiplexedConnection {
        self.servers[self.slots.server(key)].connection.clone()
    }

    /// Connections to all servers.
    pub fn all(&self) -> impl Iterator<Item = MultiplexedConnection> {
        self.servers.iter().map(|server| server.connection.clone())
    }

    /// Commands that are sent together.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self)
    }
}

/// The way to Redis. Clones share the connection.
#[derive(Clone)]
pub struct RedisLink {
    current: Arc<ArcSwapOption<Connected>>,
    changed: watch::Sender<()>,
}

impl std::fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLink")
            .field("connected", &self.current.load().is_some())
            .finish_non_exhaustive()
    }
}

impl RedisLink {
    /// Starts to look for Redis, and never stops to.
    pub fn start(live: Live, metrics: RealtimeMetrics, stop: CancellationToken) -> Self {
        let link = Self {
            current: Arc::default(),
            changed: watch::Sender::new(()),
        };
        let keeper = link.clone();
        tokio::spawn(async move { stop.run_until_cancelled(keeper.keep(live, metrics)).await });
        link
    }

    /// The connection, if Redis answers.
    pub fn get(&self) -> Option<Arc<Connected>> {
        self.current.load_full()
    }

    /// Tells when the connection was made or lost.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn set(&self, connected: Option<Connected>, metrics: &RealtimeMetrics) {
        metrics.redis_up.set(i64::from(connected.is_some()));
        self.current.store(connected.map(Arc::new));
        self.changed.send_replace(());
    }

    async fn keep(&self, live: Live, metrics: RealtimeMetrics) {
        let mut pause = PAUSE.0;
        let mut silent = false;
        // A cluster is found again although the server of the URL is the one that is gone.
        let mut known = Vec::new();
        loop {
            let settings = live.get().redis.clone();
            match timeout(connect::LIMIT, connect::connect(&settings, &known))
                .await
                .unwrap_or(Err(LinkError::Timeout))
            {
                Ok(connected) => {
                    tracing::info!(servers = connected.servers.len(), "connected to Redis");
                    (pause, silent) = (PAUSE.0, false);
                    known.clone_from(&connected.addresses);
                    self.set(Some(connected.clone()), &metrics);
                    let error = check(&connected, &live, &settings).await;
                    self.set(None, &metrics);
                    connected.lost.cancel();
                    tracing::warn!(%error, "connection to Redis was lost, working without it");
                }
                Err(error) if !silent => {
                    silent = true;
                    tracing::warn!(error = ?error, "Redis is unavailable, working without it");
                }
                Err(error) => tracing::debug!(error = ?error, "Redis is still unavailable"),
            }
            tokio::time::sleep(entropy::jitter(pause)).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

/// Ends when the connection no longer works or other settings are in force.
async fn check(connected: &Connected, live: &Live, settings: &Redis) -> LinkError {
    loop {
        tokio::time::sleep(CHECK).await;
        if let Err(error) = connected.verify().await {
            return error;
        }
        if live.get().redis != *settings {
            return LinkError::Changed;
        }
    }
}
