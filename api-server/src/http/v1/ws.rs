//! The WebSocket endpoint. Who connects is proven by the first frame.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use crds::config::WebSocket;
use crds::units::Size;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tungstenite::handshake::server::create_response_with_body;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::domain::principal::Principal;
use crate::domain::token::{Kind, Token};
use crate::http::error::{ApiError, Problem};
use crate::http::extract::find_session;
use crate::http::patient::Patient;
use crate::realtime::hub::Shares;
use crate::realtime::listener::{Manners, People, Shared};
use crate::realtime::protocol::Proof;
use crate::realtime::queue::Close;
use crate::realtime::socket::serve;
use crate::realtime::wire::transport::Transport;
use crate::routing::Scope;
use crate::store::sessions::TakeTicket;
use crate::store::workroom_members::{Standing, Stands};

/// Bytes that the kernel holds back for one socket (it counts its own overhead and doubles the number), so that a client that reads
/// nothing is noticed while it costs little.
const KERNEL_BUFFER: usize = 32 << 10;

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(connect))
}

/// Opens a WebSocket. The first frame is `{"type":"connect","token":"…"}` or `{"type":"connect","ticket":"…"}`, optionally with
/// `"channels":["workroom:…:updates"]` and `"resume":{"user:…":{"offset":…,"epoch":"…"}}` of the last events that were seen; the answer
/// is `connected` with `recovered` for each channel. `docs/realtime.md` describes the protocol.
#[utoipa::path(get, path = "/ws", tag = "events", security(()), responses(
    (status = 101, description = "The connection is a WebSocket now"),
    (status = 403, description = "The origin is not allowed", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "Too many connections", body = Problem, content_type = "application/problem+json"),
))]
pub async fn connect(State(app): State<App>, mut request: Request) -> Result<Response, ApiError> {
    let response = create_response_with_body(&request, Body::empty)
        .map_err(|error| ApiError::Malformed(format!("This is no request for a WebSocket: {error}.")))?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade =
        upgrade.ok_or_else(|| ApiError::Malformed("This connection cannot become a WebSocket.".into()))?;
    if !origin_is_allowed(request.headers(), &app.config().http.allowed_origins) {
        return Err(ApiError::Forbidden("This origin may not open WebSockets."));
    }
    let shared = admit(&app)?;
    let most = bytes(app.config().websocket.max_message_size);
    app.lifecycle().tasks.spawn(async move {
        let upgraded = upgrade.await.ok();
        if let Some(transport) = upgraded.and_then(|upgraded| transport(upgraded, most)) {
            serve(transport, shared).await;
        }
    });
    Ok(response)
}

/// The connection itself, without what HTTP had around it, for messages of so many bytes at most.
fn transport(upgraded: Upgraded, most: usize) -> Option<Transport<TcpStream>> {
    let parts = downcast::<TokioIo<Patient>>(upgraded).ok()?;
    let stream = parts.io.into_inner().into_inner();
    let _ = SockRef::from(&stream).set_send_buffer_size(KERNEL_BUFFER);
    Some(Transport::new(stream, &parts.read_buf, most))
}

/// What a new connection works with, unless there are too many.
pub(super) fn admit(app: &App) -> Result<Arc<Shared<App>>, ApiError> {
    let config = app.config();
    let websocket = &config.websocket;
    let metrics = app.metrics().realtime.clone();
    let most = app.most_connections();
    if app.readiness().is_draining() || metrics.sockets.get() >= i64::from(most) {
        return Err(ApiError::Unavailable("No more connections here at the moment."));
    }
    Ok(Arc::new(Shared {
        hub: app.hub().clone(),
        people: app.clone(),
        metrics,
        send_buffer: bytes(websocket.send_buffer),
        history: i64::from(websocket.history_size),
        shares: Shares {
            person: usize::try_from(websocket.max_connections_per_user).unwrap_or(usize::MAX),
            // One tenant leaves a tenth of each process to the others.
            tenant: usize::try_from(most - most / 10).unwrap_or(usize::MAX),
        },
        manners: manners(websocket),
        drain: app.lifecycle().closing.clone(),
        drain_time: config.drain.timeout.get() * 5 / 6,
    }))
}

/// What is expected of a client. It is asked twice in the time after which its silence means that it is gone.
fn manners(config: &WebSocket) -> Manners {
    let least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    let idle = config.idle_timeout.get();
    Manners {
        rate: least_one(config.messages_per_second),
        burst: least_one(config.message_burst),
        ping: idle / 2,
        idle,
    }
}

fn bytes(size: Size) -> usize {
    usize::try_from(size.bytes()).unwrap_or(usize::MAX)
}

impl People for App {
    async fn authenticate(&self, proof: Proof, deadline: Instant) -> Result<Option<Principal>, Close> {
        let scope = Scope {
            tenant: None,
            deadline,
            at_least: None,
            primary_only: false,
        };
        match proof {
            Proof::Token(text) => {
                let Some(token) = Token::parse(Kind::Access, &text) else {
                    return Ok(None);
                };
                find_session(self, &token, scope)
                    .await
                    .map_err(|_| Close::Unavailable)
            }
            Proof::Ticket(text) => {
                let Some(ticket) = Token::parse(Kind::Ticket, &text) else {
                    return Ok(None);
                };
                let taken = self
                    .database()
                    .write(scope, TakeTicket(ticket.hash(self.keys())))
                    .await;
                taken
                    .map(|written| written.output)
                    .map_err(|_| Close::Unavailable)
            }
        }
    }

    async fn standing(
        &self,
        person: &Principal,
        workrooms: Vec<Uuid>,
        deadline: Instant,
    ) -> Result<Stands, Close> {
        let scope = Scope {
            tenant: Some(person.tenant_id),
            deadline,
            at_least: None,
            primary_only: true,
        };
        let standing = Standing {
            session_id: person.session_id,
            user_id: person.user_id,
            workrooms,
        };
        let read = self.database().read(&scope, &standing).await;
        read.map(|(stands, _)| stands).map_err(|_| Close::Unavailable)
    }
}

/// Browsers send the origin of the page; other clients send none. Without a list, the page must come from this host.
pub(super) fn origin_is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else {
        return true;
    };
    if allowed.iter().any(|allowed| allowed == origin) {
        return true;
    }
    allowed.is_empty()
        && origin
            .split_once("://")
            .map(|(_, host)| host)
            .is_some_and(|host| Some(host) == text(header::HOST))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(None, &[], true)]
    #[case(Some("https://api.example.com"), &[], true)]
    #[case(Some("https://evil.example"), &[], false)]
    #[case(Some("https://app.example"), &["https://app.example"], true)]
    #[case(Some("https://api.example.com"), &["https://app.example"], false)]
    fn origins_are_checked(#[case] origin: Option<&str>, #[case] allowed: &[&str], #[case] good: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("api.example.com"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        assert_eq!(origin_is_allowed(&headers, &allowed), good);
    }
}
