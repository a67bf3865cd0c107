//! Finds the servers, and what tells one history of their data from another.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crds::config::Redis;
use futures::future::{select_ok, try_join_all};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, Value,
};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::slots::{Address, Slots};
use super::{CONNECT, Connected, LinkError, Server};
use crate::trust;

/// Limit of finding all servers and connecting to them.
pub const LIMIT: Duration = Duration::from_secs(4);
/// Limit of one command.
const RESPONSE: Duration = Duration::from_secs(1);

/// What a server says about itself.
#[derive(Debug, PartialEq, Eq)]
struct About {
    /// If it is a primary.
    replication_id: Option<String>,
    /// Whether it is one of a Redis Cluster.
    in_cluster: bool,
}

impl About {
    /// Reads `INFO replication cluster`.
    fn read(info: &str) -> Self {
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
        };
        let is_primary = field("role") == Some("master");
        Self {
            replication_id: is_primary.then(|| field("master_replid").unwrap_or_default().to_owned()),
            in_cluster: field("cluster_enabled") == Some("1"),
        }
    }
}

impl Server {
    async fn open(info: ConnectionInfo) -> Result<Self, LinkError> {
        // Messages of sharded channels come as pushes, which only the newer protocol has.
        let newer = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let listener = Client::open(info.clone().set_redis_settings(newer))?;
        let connection = Client::open(info)?
            .get_multiplexed_async_connection_with_config(&limits())
            .await?;
        Ok(Self { connection, listener })
    }

    async fn about(&self) -> Result<About, LinkError> {
        let mut question = redis::cmd("INFO");
        question.arg("replication").arg("cluster");
        let text: String = question.query_async(&mut self.connection.clone()).await?;
        Ok(About::read(&text))
    }

    /// Which primaries hold what.
    async fn slots(&self) -> Result<(Vec<Address>, Slots), LinkError> {
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        let answer: Value = question.query_async(&mut self.connection.clone()).await?;
        let (ConnectionAddr::Tcp(asked, _) | ConnectionAddr::TcpTls { host: asked, .. }) =
            self.listener.get_connection_info().addr()
        else {
            return Err(LinkError::Incomplete);
        };
        Slots::read(&answer, asked).ok_or(LinkError::Incomplete)
    }
}

impl Connected {
    /// Whether all is as it was when the connection was made.
    pub(super) async fn verify(&self) -> Result<(), LinkError> {
        if histories(&self.servers).await? != self.replication_id {
            return Err(LinkError::Changed);
        }
        match self.servers.first() {
            Some(server) if !self.addresses.is_empty() => {
                let (addresses, slots) = server.slots().await?;
                let same = addresses == self.addresses && slots == self.slots;
                if same { Ok(()) } else { Err(LinkError::Changed) }
            }
            _ => Ok(()),
        }
    }
}

/// Names the histories of all servers together, which must be primaries.
async fn histories(servers: &[Server]) -> Result<String, LinkError> {
    let all = try_join_all(servers.iter().map(async |server| {
        let about = server.about().await?;
        about.replication_id.ok_or(LinkError::NotPrimary)
    }))
    .await?;
    Ok(match all.as_slice() {
        [only] => only.clone(),
        several => {
            let digest = Sha256::digest(several.join(" "));
            digest[..20].iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        }
    })
}

/// Connects to the primary or to all primaries. The `known` ones are asked when the one of the URL does not answer.
pub async fn connect(settings: &Redis, known: &[Address]) -> Result<Connected, LinkError> {
    let info = match &settings.url_file {
        Some(path) => read(path)?.trim().into_connection_info()?,
        None => find_primary(settings).await?,
    };
    let authority = settings.ca_file.as_deref().map(read).transpose()?;
    let client = trust::redis(info, authority.map(String::into_bytes))?;
    let info = client.get_connection_info();
    let outcome = join(info).await;
    if outcome.is_ok() || known.is_empty() {
        return outcome;
    }
    // All at once, so that those that are gone do not use up the time of one that answers.
    let others = known
        .iter()
        .map(|address| Box::pin(async move { join(&at(info, address)).await }));
    select_ok(others).await.map(|(connected, _)| connected)
}

/// Connects to one server, and to those that it names if it is one of a cluster.
async fn join(info: &ConnectionInfo) -> Result<Connected, LinkError> {
    let first = timeout(CONNECT, Server::open(info.clone()))
        .await
        .unwrap_or(Err(LinkError::Timeout))?;
    let (servers, addresses, slots) = if first.about().await?.in_cluster {
        let (addresses, slots) = first.slots().await?;
        let opened = addresses.iter().map(|address| Server::open(at(info, address)));
        (try_join_all(opened).await?, addresses, slots)
    } else {
        (vec![first], Vec::new(), Slots::default())
    };
    Ok(Connected {
        replication_id: histories(&servers).await?,
        servers,
        slots,
        addresses,
        lost: CancellationToken::new(),
    })
}

/// The same way to another server.
fn at(info: &ConnectionInfo, (host, port): &Address) -> ConnectionInfo {
    let address = match info.addr().clone() {
        ConnectionAddr::TcpTls {
            insecure, tls_params, ..
        } => ConnectionAddr::TcpTls {
            host: host.clone(),
            port: *port,
            insecure,
            tls_params,
        },
        _ => ConnectionAddr::Tcp(host.clone(), *port),
    };
    info.clone().set_addr(address)
}

fn limits() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(RESPONSE))
        .set_concurrency_limit(4_096)
}

fn read(path: &Path) -> Result<String, LinkError> {
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
    let mut connection: MultiplexedConnection = client
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
    fn a_primary_is_told_from_a_replica_and_a_cluster_from_a_single_server() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmaster_replid:abc123\r\nmaster_replid2:0\r\n\r\n# Cluster\r\ncluster_enabled:1\r\n";
        let about = About::read(info);
        assert_eq!(about.replication_id.as_deref(), Some("abc123"));
        assert!(about.in_cluster);
        let about = About::read(
            &info
                .replace("role:master", "role:slave")
                .replace("enabled:1", "enabled:0"),
        );
        assert_eq!((about.replication_id, about.in_cluster), (None, false));
        assert_eq!(About::read("").replication_id, None);
    }

    #[test]
    fn a_server_of_a_cluster_is_reached_as_the_first_one_was() {
        let url = "rediss://user:secret@first:7000";
        let info = at(
            &url.into_connection_info().unwrap(),
            &("second".to_owned(), 7_001),
        );
        assert!(
            matches!(info.addr(), ConnectionAddr::TcpTls { host, port: 7_001, insecure: false, .. } if host == "second")
        );
        assert_eq!(info.redis_settings().password(), Some("secret"));
    }
}
