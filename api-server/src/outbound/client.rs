//! The client. It resolves names itself and connects only to addresses that may be reached, each time anew: a name that changes what it
//! points to is no way around, and neither is a redirect, because none is followed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
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

/// Bytes of an answer that are read although nobody looks at them, and how long that may take.
const REST: usize = 64 << 10;
const PATIENT: Duration = Duration::from_secs(1);

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
    /// Trusts the certificates of the system, and asks its name servers.
    pub fn new(live: Live) -> std::io::Result<Self> {
        Self::with(live, Arc::new(System))
    }

    fn with(live: Live, names: Arc<dyn Names>) -> std::io::Result<Self> {
        let guard = Guard {
            live: live.clone(),
            names,
        };
        let mut http = HttpConnector::new_with_resolver(guard);
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
        self.check(&request)?;
        timeout_at(deadline, self.ask(request, most))
            .await
            .unwrap_or(Err(OutboundError::Late))
    }

    /// Asks for a status and headers. The rest of the answer is thrown away; however long or broken it is, it has answered.
    pub async fn tell(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Reply, OutboundError> {
        self.check(&request)?;
        let response = timeout_at(deadline, self.client.request(request)).await;
        let response = response
            .map_err(|_| OutboundError::Late)?
            .map_err(|error| failed(&error))?;
        let (parts, body) = response.into_parts();
        // A short rest is read, so that the connection can be used again.
        let rest = Limited::new(body, REST).collect();
        let _ = timeout_at(deadline.min(Instant::now() + PATIENT), rest).await;
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            body: Bytes::new(),
        })
    }

    /// A host that is an address is not resolved, so nothing else would look at it.
    fn check<B>(&self, request: &Request<B>) -> Result<(), OutboundError> {
        address::check(request.uri(), &self.live.get().outbound.allowed_networks)
            .map_err(|problem| OutboundError::Forbidden(problem.to_string()))
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

/// Addresses of a name.
type Looked = BoxFuture<'static, std::io::Result<Vec<SocketAddr>>>;

/// Who is asked for the addresses of a name: the system, but for tests.
trait Names: fmt::Debug + Send + Sync {
    fn look(&self, name: &str) -> Looked;
}

/// The name servers of the system.
#[derive(Debug)]
struct System;

impl Names for System {
    fn look(&self, name: &str) -> Looked {
        let name = name.to_owned();
        async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok::<Vec<_>, std::io::Error>(found.collect())
        }
        .boxed()
    }
}

/// Resolves names, and refuses those that lead to addresses that may not be reached.
#[derive(Debug, Clone)]
struct Guard {
    live: Live,
    names: Arc<dyn Names>,
}

impl tower::Service<Name> for Guard {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (live, looked) = (self.live.clone(), self.names.look(name.as_str()));
        async move {
            let found = looked.await?;
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
    use std::collections::VecDeque;
    use std::net::IpAddr;
    use std::sync::Mutex;

    use tokio::net::TcpListener;
    use tower::Service;

    use super::*;

    /// In the place of the public internet: another address of loopback, which is not private here.
    const PUBLIC: &str = "127.0.0.2";
    const ALLOWED: &str = "outbound: {allowedNetworks: [127.0.0.2/32]}";
    /// Where nobody may be led, in all notations.
    const PRIVATE: [&str; 8] = [
        "127.0.0.1",
        "169.254.169.254",
        "10.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
    ];

    fn live(extra: &str) -> Live {
        let text = format!(
            "database: {{instances: [{{name: a, host: a}}]}}\nredis: {{sentinels: ['r:1']}}\n{extra}"
        );
        Live::new(crds::config::parse(&text).unwrap())
    }

    fn client(extra: &str) -> Outbound {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Outbound::new(live(extra)).unwrap()
    }

    /// A name server that changes its mind: its answers in their order, and then nothing any more.
    #[derive(Debug)]
    struct Fickle {
        answers: Mutex<VecDeque<Vec<IpAddr>>>,
        asked: Mutex<Vec<String>>,
    }

    impl Fickle {
        fn new(answers: &[&[&str]]) -> Arc<Self> {
            let read = |answer: &[&str]| -> Vec<IpAddr> {
                answer
                    .iter()
                    .map(|text| text.parse::<IpAddr>().unwrap())
                    .collect()
            };
            Arc::new(Self {
                answers: Mutex::new(answers.iter().map(|answer| read(answer)).collect()),
                asked: Mutex::default(),
            })
        }

        fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap().clone()
        }

        fn client(self: &Arc<Self>) -> Outbound {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            Outbound::with(live(ALLOWED), self.clone()).unwrap()
        }
    }

    impl Names for Fickle {
        fn look(&self, name: &str) -> Looked {
            self.asked.lock().unwrap().push(name.to_owned());
            let answer = self.answers.lock().unwrap().pop_front().unwrap_or_default();
            let found: Vec<SocketAddr> = answer.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            futures::future::ready(Ok(found)).boxed()
        }
    }

    #[track_caller]
    fn assert_forbidden<T: fmt::Debug>(outcome: &Result<T, OutboundError>, why: &str) {
        assert!(
            matches!(outcome, Err(OutboundError::Forbidden(_))),
            "{why}: {outcome:?}"
        );
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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
        serve_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    fn serve_on(listener: TcpListener, answer: &'static str) -> SocketAddr {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
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

    /// A name is public when its address is given and looked at, and another one when it is connected to again.
    #[tokio::test]
    async fn a_name_that_moves_to_a_private_address_is_refused_from_then_on() {
        for private in PRIVATE {
            let names = Fickle::new(&[&["8.8.8.8"], &[private], &["::ffff:8.8.8.8"]]);
            let mut guard = Guard {
                live: live(""),
                names,
            };
            let name: Name = "moves.example".parse().unwrap();
            let first: Vec<_> = guard.call(name.clone()).await.unwrap().collect();
            assert_eq!(first, ["8.8.8.8:0".parse::<SocketAddr>().unwrap()]);
            let refused = guard.call(name.clone()).await.unwrap_err();
            let cause = refused.get_ref().unwrap();
            assert!(cause.is::<Private>(), "{private}: {cause}");
            assert!(guard.call(name).await.is_ok(), "each answer is looked at anew");
        }
    }

    /// The same through the client: it asks for the name at each connection, and the listener at the private address sees none.
    #[tokio::test]
    async fn a_client_does_not_follow_a_name_that_moves() {
        let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = inside.local_addr().unwrap().port();
        let accepted = tokio::spawn(async move { inside.accept().await.map(drop) });
        let outside = TcpListener::bind((PUBLIC, port)).await.unwrap();
        serve_on(
            outside,
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        );
        let address = format!("http://moves.example:{port}/");
        for private in PRIVATE {
            let names = Fickle::new(&[&[PUBLIC], &[private]]);
            let guarded = names.client();
            let reply = ask(&guarded, &address).await.unwrap();
            assert_eq!(reply.status, StatusCode::OK);
            assert_forbidden(&ask(&guarded, &address).await, private);
            assert_eq!(names.asked(), ["moves.example"; 2]);
        }
        assert!(!accepted.is_finished());
        accepted.abort();
    }

    /// One private address among public ones condemns the name, wherever it stands: not even the public ones are connected to.
    #[tokio::test]
    async fn a_name_with_a_private_address_among_public_ones_is_refused() {
        let outside = TcpListener::bind((PUBLIC, 0)).await.unwrap();
        let port = outside.local_addr().unwrap().port();
        let accepted = tokio::spawn(async move { outside.accept().await.map(drop) });
        for private in PRIVATE {
            for found in [[PUBLIC, private], [private, PUBLIC]] {
                let guarded = Fickle::new(&[&found]).client();
                let outcome = ask(&guarded, &format!("http://mixed.example:{port}/")).await;
                assert_forbidden(&outcome, private);
            }
        }
        assert!(!accepted.is_finished());
        accepted.abort();
    }

    /// A redirect is an answer: nobody even asks for the name that it leads to, and whoever goes there by hand is refused.
    #[tokio::test]
    async fn a_redirect_to_a_name_that_leads_inside_leads_nowhere() {
        let outside = TcpListener::bind((PUBLIC, 0)).await.unwrap();
        let port = outside.local_addr().unwrap().port();
        serve_on(
            outside,
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://inside.example/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        );
        let names = Fickle::new(&[&[PUBLIC], &["127.0.0.1"]]);
        let guarded = names.client();
        let reply = ask(&guarded, &format!("http://outside.example:{port}/"))
            .await
            .unwrap();
        assert_eq!(reply.status, StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(names.asked(), ["outside.example"]);
        let onward = reply.headers["location"].to_str().unwrap();
        assert_forbidden(&ask(&guarded, onward).await, onward);
        assert_eq!(names.asked(), ["outside.example", "inside.example"]);
    }
}
