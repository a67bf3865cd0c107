//! The client. It resolves names itself and connects only to addresses that may be reached, each time anew: a name that changes what it
//! points to is no way around, and neither is a redirect, because none is followed.

use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::address;
use crate::config::Live;

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(20);
/// Time to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// A request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// Its address may not be reached.
    #[error("the address may not be reached: it {0}")]
    Forbidden(String),
    /// No answer came.
    #[error("no answer: {0}")]
    Failed(String),
    /// Not in time.
    #[error("no answer in time")]
    Late,
    /// Longer than allowed.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// The client.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: Client<HttpsConnector<HttpConnector<Guard>>, Full<Bytes>>,
    live: Live,
}

impl Outbound {
    /// Trusts the certificates of the system.
    pub fn new(live: Live) -> std::io::Result<Self> {
        let mut http = HttpConnector::new_with_resolver(Guard(live.clone()));
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(2)
            .build(connector);
        Ok(Self { client, live })
    }

    /// Asks. The answer has at most `most` bytes.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        most: usize,
        deadline: Instant,
    ) -> Result<Reply, OutboundError> {
        // A host that is an address is not resolved, so nothing else would look at it.
        address::check(request.uri(), &self.live.get().outbound.allowed_networks)
            .map_err(|problem| OutboundError::Forbidden(problem.to_string()))?;
        timeout_at(deadline, self.ask(request, most))
            .await
            .unwrap_or(Err(OutboundError::Late))
    }

    async fn ask(&self, request: Request<Full<Bytes>>, most: usize) -> Result<Reply, OutboundError> {
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| failed(&error))?;
        let (parts, body) = response.into_parts();
        // An answer that announces too much is not waited for.
        if usize::try_from(hyper::body::Body::size_hint(&body).lower()).is_ok_and(|least| least > most) {
            return Err(OutboundError::TooLong(most));
        }
        let body = Limited::new(body, most)
            .collect()
            .await
            .map_err(|error| {
                if error.is::<LengthLimitError>() {
                    OutboundError::TooLong(most)
                } else {
                    OutboundError::Failed("the answer broke off".to_owned())
                }
            })?
            .to_bytes();
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }
}

/// The innermost cause is what a person can act on.
fn failed(error: &hyper_util::client::legacy::Error) -> OutboundError {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    loop {
        if let Some(Private) = cause.downcast_ref::<Private>() {
            return OutboundError::Forbidden("leads to a private address".to_owned());
        }
        // An error of input and output shows what is inside of it, not that it is inside.
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && let Some(inner) = io.get_ref()
        {
            cause = inner;
            continue;
        }
        match cause.source() {
            Some(source) => cause = source,
            None => return OutboundError::Failed(cause.to_string()),
        }
    }
}

/// A name leads to no address that may be reached.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to a private address")]
struct Private;

/// Resolves names, and drops addresses that may not be reached.
#[derive(Debug, Clone)]
struct Guard(Live);

impl tower::Service<Name> for Guard {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let live = self.0.clone();
        async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed = &live.get().outbound.allowed_networks;
            // One private address among public ones is a trick or a mistake, and the public ones could be tried in its place; but a
            // server whose name resolves so is none that the public can rely on.
            if found.iter().all(|at| address::is_allowed(at.ip(), allowed)) {
                Ok(found.into_iter())
            } else {
                Err(std::io::Error::other(Private))
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(extra: &str) -> Outbound {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let text = format!(
            "database: {{instances: [{{name: a, host: a}}]}}\nredis: {{sentinels: ['r:1']}}\n{extra}"
        );
        Outbound::new(Live::new(crds::config::parse(&text).unwrap())).unwrap()
    }

    async fn ask(client: &Outbound, address: &str) -> Result<Reply, OutboundError> {
        let request = Request::get(address).body(Full::default()).unwrap();
        client
            .send(request, 1_024, Instant::now() + Duration::from_secs(10))
            .await
    }

    /// Nobody is connected to: the listener sees no connection, by whatever name or notation.
    #[tokio::test]
    async fn a_private_address_is_not_connected_to_by_any_name() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = tokio::spawn(async move { listener.accept().await.map(drop) });
        let guarded = client("");
        for host in [
            "127.0.0.1",
            "localhost",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "127.1",
            "[::ffff:127.0.0.1]",
        ] {
            let outcome = ask(&guarded, &format!("http://{host}:{port}/")).await;
            assert!(
                matches!(outcome, Err(OutboundError::Forbidden(_))),
                "{host}: {outcome:?}"
            );
        }
        assert!(!accepted.is_finished());
        accepted.abort();
    }

    async fn serve(answer: &'static str) -> SocketAddr {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn redirects_are_answers_and_answers_have_a_bound() {
        let open = client("outbound: {allowedNetworks: [127.0.0.0/8]}");
        let at = serve("HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        let reply = ask(&open, &format!("http://{at}/")).await.unwrap();
        assert_eq!(reply.status, StatusCode::FOUND);
        let at = serve("HTTP/1.1 200 OK\r\ncontent-length: 5000\r\nconnection: close\r\n\r\nx").await;
        assert_eq!(
            ask(&open, &format!("http://{at}/")).await.unwrap_err(),
            OutboundError::TooLong(1_024)
        );
    }
}
