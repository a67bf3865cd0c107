//! The operator's way to the API server, with a plan of what goes wrong on it, above the journal, which takes down what was really
//! carried out. As in the operator itself no layer sends a request a second time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};

use crate::call::Call;
use crate::fault::{Fault, WatchFault};
use crate::injector::Injector;
use crate::journal::{Entry, Journal};
use crate::referee::Referee;

/// How late a delayed answer is.
const DELAY: Duration = Duration::from_millis(700);

type Answer = UnsyncBoxBody<Bytes, BoxError>;
type Network = BoxCloneSyncService<Request<Full<Bytes>>, Response<Incoming>, BoxError>;

/// Connections to the API server, shared by all runs.
pub struct Exchange {
    config: Config,
    network: Network,
}

impl Exchange {
    /// Nothing is connected yet.
    pub fn new(config: Config) -> Self {
        let https = config.rustls_https_connector().unwrap();
        let network = HttpClient::builder(TokioExecutor::new()).build(https);
        Self {
            config,
            network: BoxCloneSyncService::new(network.map_err(BoxError::from)),
        }
    }

    /// The client of one life of the operator, with the wire at its end.
    pub fn client(&self, line: Line, pulse: Arc<Life>) -> Client {
        let wire = Wire {
            network: self.network.clone(),
            line,
            life: pulse,
        };
        let service = ServiceBuilder::new()
            .layer(self.config.base_uri_layer())
            .service(wire);
        Client::new(service, "default")
    }
}

/// Whether one process of the operator lives.
#[derive(Debug, Default)]
pub struct Life {
    dead: AtomicBool,
    died: Notify,
}

impl Life {
    /// Ends it: no request is sent from now on, and none returns.
    async fn end(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
        std::future::pending::<()>().await;
    }

    async fn go_on(&self) {
        if self.dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    /// Returns when it has ended.
    pub async fn ended(&self) {
        self.died.notified().await;
    }
}

/// What listens on the line of one run.
#[derive(Clone)]
pub struct Line {
    /// Makes faults.
    pub injector: Arc<Injector>,
    /// Takes down.
    pub journal: Arc<Journal>,
    /// Judges.
    pub referee: Arc<Referee>,
}

#[derive(Clone)]
struct Wire {
    network: Network,
    line: Line,
    life: Arc<Life>,
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().exchange(request))
    }
}

impl Wire {
    async fn exchange(self, request: Request<Body>) -> Result<Response<Answer>, BoxError> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await?;
        let call = Call::read(
            &parts.method,
            &parts.uri,
            &serde_json::from_slice(&bytes).unwrap_or_default(),
        );
        self.life.go_on().await;
        let fault = self.line.injector.strike(&call);
        if self.line.injector.is_out() {
            return Err("connection refused".into());
        }
        if let Some(answer) = self.instead(&call, &parts, fault).await? {
            return Ok(answer);
        }
        if call.identity.verb == "watch" {
            return self.watch(parts, &call).await;
        }
        // With its query: the same path is listed by several selectors.
        let question = parts.uri.to_string();
        let (status, bytes) = self.carry_out(parts, bytes, call.clone()).await?;
        self.life.go_on().await;
        self.line.injector.remember(&call, &question, status, &bytes);
        match fault {
            Some(Fault::CrashAfter | Fault::TimeTravel) => {
                self.life.end().await;
                Err("unreachable".into())
            }
            Some(Fault::ErrorAfter(code)) => Ok(refusal(code)),
            Some(Fault::ResetAfter) => Err("connection reset".into()),
            Some(Fault::Truncate) => Ok(whole(status, bytes.slice(..bytes.len() / 2))),
            Some(Fault::Delay) => {
                sleep(DELAY).await;
                Ok(whole(status, bytes))
            }
            _ => Ok(whole(status, bytes)),
        }
    }

    /// What is answered without the API server being asked, if anything.
    async fn instead(
        &self,
        call: &Call,
        parts: &Parts,
        fault: Option<Fault>,
    ) -> Result<Option<Response<Answer>>, BoxError> {
        if call.identity.verb == "list"
            && let Some(old) = self.line.injector.list_from_before(&parts.uri.to_string())
        {
            return Ok(Some(whole(200, old)));
        }
        match fault {
            Some(Fault::CrashBefore) => self.life.end().await,
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::ErrorBefore(code)) => return Ok(Some(refusal(code))),
            Some(Fault::ResetBefore) => return Err("connection reset".into()),
            Some(Fault::StaleRead) => {
                let old = self.line.injector.older(&parts.uri.to_string());
                return Ok(old.map(|(status, body)| whole(status, body)));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Sends a request to the end and takes it down, even if nobody waits for the answer any more.
    async fn carry_out(&self, parts: Parts, body: Bytes, call: Call) -> Result<(u16, Bytes), BoxError> {
        let (network, Line { journal, referee, .. }) = (self.network.clone(), self.line.clone());
        let sent = tokio::spawn(async move {
            let json = serde_json::from_slice(&body).unwrap_or_default();
            referee.judge(&call, &json);
            let response = network
                .oneshot(Request::from_parts(parts, Full::new(body)))
                .await?;
            let status = response.status().as_u16();
            let bytes = response.into_body().collect().await?.to_bytes();
            journal.record(Entry {
                call,
                status,
                answer: digest(&bytes),
            });
            Ok::<_, BoxError>((status, bytes))
        });
        sent.await?
    }

    async fn watch(self, parts: Parts, call: &Call) -> Result<Response<Answer>, BoxError> {
        self.line.injector.late_watch().await;
        let request = Request::from_parts(parts, Full::new(Bytes::new()));
        let response = self.network.oneshot(request).await?;
        let gate = self.line.injector.gate(&call.identity.resource);
        Ok(response.map(|body| events(body, gate)))
    }
}

/// The events of a watch, as the gate lets them through.
fn events(body: Incoming, gate: watch::Receiver<Option<WatchFault>>) -> Answer {
    let stream = futures::stream::unfold((body, gate, false), |(mut body, mut gate, ended)| async move {
        if ended {
            return None;
        }
        loop {
            let fault = *gate.borrow_and_update();
            match fault {
                Some(WatchFault::Cut) => return None,
                Some(WatchFault::Gone) => {
                    let status = status(410, "Expired", "the version has expired");
                    let event = json!({"type": "ERROR", "object": status});
                    return Some((Ok(data(format!("{event}\n"))), (body, gate, true)));
                }
                Some(WatchFault::Garbage) => {
                    return Some((Ok(data("}{ no json\n".to_owned())), (body, gate, true)));
                }
                Some(WatchFault::Stall) => {
                    if gate.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                None => tokio::select! {
                    frame = body.frame() => {
                        return frame.map(|frame| (frame.map_err(BoxError::from), (body, gate, false)));
                    }
                    changed = gate.changed() => if changed.is_err() { return None },
                },
            }
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(stream))
}

fn data(text: String) -> Frame<Bytes> {
    Frame::data(Bytes::from(text))
}

fn whole(status: u16, body: Bytes) -> Response<Answer> {
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn refusal(code: u16) -> Response<Answer> {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        504 => "Timeout",
        _ => "InternalError",
    };
    whole(
        code,
        Bytes::from(status(code, reason, "made up by the sweep").to_string()),
    )
}

fn status(code: u16, reason: &str, message: &str) -> serde_json::Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code,
    })
}

fn digest(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
