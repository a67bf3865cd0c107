//! The way to Redis: finds the primary through Sentinels (or by one URL), keeps one multiplexed connection to it, and notices
//! when it no longer answers. Nobody waits for it: while Redis is away, callers are told so at once.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crds::config::Redis;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Live;
use crate::entropy;
use crate::metrics::RealtimeMetrics;
use crate::trust;

/// Limit of one question to one Sentinel, and of connecting.
const CONNECT: Duration = Duration::from_secs(1);
/// Limit of one command.
const RESPONSE: Duration = Duration::from_secs(1);
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
    #[error("the Redis that Sentinels name is not the primary (yet)")]
    NotPrimary,
    /// It did not answer in time.
    #[error("Redis did not answer in time")]
    Timeout,
    /// It refused.
    #[error("Redis failed")]
    Redis(#[from] redis::RedisError),
}

/// A connection to the primary.
#[derive(Debug, Clone)]
pub struct Connected {
    /// For commands.
    pub connection: MultiplexedConnection,
    /// For connections of other kinds to the same server.
    pub client: Client,
    /// Names the history of its data: another one means that data may have been lost or have come back.
    pub replication_id: String,
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
        loop {
            let settings = live.get().redis.clone();
            match timeout(CONNECT * 4, connect(&settings))
                .await
                .unwrap_or(Err(LinkError::Timeout))
            {
                Ok(connected) => {
                    tracing::info!("connected to Redis");
                    (pause, silent) = (PAUSE.0, false);
                    let known = connected.clone();
                    self.set(Some(connected), &metrics);
                    let error = check(known, &live, &settings).await;
                    self.set(None, &metrics);
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
async fn check(mut known: Connected, live: &Live, settings: &Redis) -> LinkError {
    loop {
        tokio::time::sleep(CHECK).await;
        match require_primary(&mut known.connection).await {
            Ok(id) if id == known.replication_id => {}
            Ok(_) => return LinkError::NotPrimary,
            Err(error) => return error,
        }
        if live.get().redis != *settings {
            return LinkError::NotPrimary;
        }
    }
}

/// The replication id of a primary.
async fn require_primary(connection: &mut MultiplexedConnection) -> Result<String, LinkError> {
    let mut question = redis::cmd("INFO");
    question.arg("replication");
    let text: String = question.query_async(connection).await?;
    primary_id(&text).ok_or(LinkError::NotPrimary)
}

/// The replication id in `INFO replication`, if it describes a primary.
fn primary_id(info: &str) -> Option<String> {
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
    };
    (field("role")? == "master").then(|| field("master_replid").unwrap_or_default().to_owned())
}

async fn connect(settings: &Redis) -> Result<Connected, LinkError> {
    let info = match &settings.url_file {
        Some(path) => read(path)?.trim().into_connection_info()?,
        None => find_primary(settings).await?,
    };
    let authority = settings.ca_file.as_deref().map(read).transpose()?;
    let client = trust::redis(info, authority.map(String::into_bytes))?;
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&limits())
        .await?;
    let replication_id = require_primary(&mut connection).await?;
    Ok(Connected {
        connection,
        client,
        replication_id,
    })
}

fn limits() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(RESPONSE))
        .set_concurrency_limit(4_096)
}

fn read(path: &std::path::Path) -> Result<String, LinkError> {
    std::fs::read_to_string(path).map_err(|source| LinkError::Read {
        path: path.display().to_string(),
        source,
    })
}

/// Asks one Sentinel after the other; the first that knows is believed, because the answer's role is checked anyway.
async fn find_primary(settings: &Redis) -> Result<ConnectionInfo, LinkError> {
    let password = settings.password_file.as_deref().map(read).transpose()?;
    let password = password
        .as_deref()
        .map(|text| text.trim_end_matches(['\r', '\n']));
    for sentinel in &settings.sentinels {
        match timeout(CONNECT, ask_sentinel(sentinel, &settings.master_name, password)).await {
            Ok(Ok(Some((host, port)))) => return address(host, port, password),
            Ok(Ok(None)) => tracing::debug!(sentinel, "Sentinel does not know the primary"),
            Ok(Err(error)) => tracing::debug!(sentinel, error = ?error, "Sentinel failed"),
            Err(_) => tracing::debug!(sentinel, "Sentinel did not answer in time"),
        }
    }
    Err(LinkError::NoPrimary(settings.master_name.clone()))
}

async fn ask_sentinel(
    sentinel: &str,
    name: &str,
    password: Option<&str>,
) -> Result<Option<(String, u16)>, LinkError> {
    let (host, port) = sentinel.rsplit_once(':').unwrap_or((sentinel, "26379"));
    let port = port.parse().unwrap_or(26_379);
    let client = Client::open(address(host.to_owned(), port, password)?)?;
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&limits())
        .await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    Ok(question.query_async(&mut connection).await?)
}

fn address(host: String, port: u16, password: Option<&str>) -> Result<ConnectionInfo, LinkError> {
    let mut settings = RedisConnectionInfo::default();
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    Ok((host, port).into_connection_info()?.set_redis_settings(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_is_told_from_a_replica() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmaster_replid:abc123\r\nmaster_replid2:0\r\n";
        assert_eq!(primary_id(info).as_deref(), Some("abc123"));
        assert_eq!(primary_id(&info.replace("role:master", "role:slave")), None);
        assert_eq!(primary_id(""), None);
    }
}
