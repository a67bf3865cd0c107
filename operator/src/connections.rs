//! Ways to the API server. Requests have theirs; watches, which are many and hardly ever say anything, share a few over HTTP/2.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use tower::timeout::TimeoutLayer;
use tower::{BoxError, ServiceBuilder};

/// Namespaces whose watches share a connection. The API server takes 100 streams at once in one (its default), and what is beyond
/// waits in silence: a test holds it against the number of kinds.
const NAMESPACES_OF_ONE: usize = 4;
/// How often is asked whether the other end is still there. A watch may say nothing for minutes, dead or alive.
const PING: Duration = Duration::from_secs(20);
/// How long the answer may take.
const PONG: Duration = Duration::from_secs(10);
/// How long it may take until an answer begins, the connection included. It may go on for as long as it likes.
const HEAD: Duration = Duration::from_secs(30);

/// Ways to the API server.
#[derive(Clone)]
pub struct Connections {
    /// For requests.
    pub requests: Client,
    shared: Arc<Shared>,
}

struct Shared {
    /// Where they lead; `None` when watches take the same way as requests.
    config: Option<Config>,
    open: Mutex<Vec<(Client, Arc<()>)>>,
}

/// A way for the watches of one namespace. It is free for others when this is dropped.
pub struct Seat {
    /// For watches.
    pub client: Client,
    _taken: Arc<()>,
}

impl Connections {
    /// Ways of their own for watches.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(requests: Client, config: Config) -> Result<Self, BoxError> {
        // What is wrong with it is told now.
        connect(&config)?;
        // Those who need a proxy take the one way that knows it.
        let config = config.proxy_url.is_none().then_some(config);
        Ok(Self {
            requests,
            shared: Arc::new(Shared {
                config,
                open: Mutex::default(),
            }),
        })
    }

    /// One way for all.
    pub fn single(client: Client) -> Self {
        Self {
            requests: client,
            shared: Arc::new(Shared {
                config: None,
                open: Mutex::default(),
            }),
        }
    }

    /// A way for the watches of one more namespace.
    pub fn seat(&self) -> Seat {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, taken)| Arc::strong_count(taken) > 1);
        let free = open
            .iter()
            .find(|(_, taken)| Arc::strong_count(taken) <= NAMESPACES_OF_ONE);
        if let Some((client, taken)) = free {
            return Seat {
                client: client.clone(),
                _taken: Arc::clone(taken),
            };
        }
        let made = self.shared.config.as_ref().and_then(|config| {
            let failed = |error: &BoxError| tracing::warn!(%error, "watches share the way of requests");
            connect(config).inspect_err(failed).ok()
        });
        let client = made.unwrap_or_else(|| self.requests.clone());
        let taken = Arc::new(());
        open.push((client.clone(), Arc::clone(&taken)));
        Seat {
            client,
            _taken: taken,
        }
    }
}

/// A client that speaks HTTP/2 where the other end does, over one connection. The library's own speaks HTTP/1.1 only.
fn connect(config: &Config) -> Result<Client, BoxError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(config.connect_timeout);
    let mut tls = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_or_http();
    if let Some(name) = &config.tls_server_name {
        tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name.clone().try_into()?));
    }
    let http = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PONG)
        .build::<_, Body>(tls.enable_all_versions().wrap_connector(tcp));
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(HEAD))
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::object::Kind;

    /// Streams that the API server takes at once in one connection.
    const STREAMS: usize = 100;

    #[test]
    fn all_watches_of_a_connection_find_room_in_it() {
        let kinds = Kind::WATCHED.len() + Kind::OPTIONAL.len();
        assert!(NAMESPACES_OF_ONE * kinds < STREAMS);
    }

    #[tokio::test]
    async fn a_connection_is_shared_and_let_go_of() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = Config::new("https://127.0.0.1:1".parse().unwrap());
        let requests = Client::try_from(config.clone()).unwrap();
        let connections = Connections::new(requests, config).unwrap();
        let open = || connections.shared.open.lock().unwrap().len();
        let mut seats: Vec<Seat> = (0..NAMESPACES_OF_ONE).map(|_| connections.seat()).collect();
        assert_eq!(open(), 1);
        seats.push(connections.seat());
        assert_eq!(open(), 2);
        drop(seats.remove(0));
        seats.push(connections.seat());
        assert_eq!(open(), 2);
        seats.clear();
        seats.push(connections.seat());
        assert_eq!(open(), 1);
    }
}
