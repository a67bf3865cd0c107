//! The WebSocket endpoint. Who connects is proven by the first frame.

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::domain::principal::Principal;
use crate::domain::token::{Kind, Token};
use crate::http::error::{ApiError, Problem};
use crate::http::extract::find_session;
use crate::realtime::hub::Shares;
use crate::realtime::listener::{People, Shared};
use crate::realtime::protocol::Proof;
use crate::realtime::queue::Close;
use crate::realtime::socket::serve;
use crate::routing::Scope;
use crate::store::sessions::TakeTicket;
use crate::store::workroom_members::{Standing, Stands};

/// Largest frame of a client: only small requests come in.
const MOST_INCOMING: usize = 16 << 10;
/// Bytes that are read at once; each open socket keeps them.
const READ_BUFFER: usize = 1 << 10;
/// Connections of one person at one process.
const PER_PERSON: usize = 50;
/// Bytes that the library may hold back for one socket, above which sending fails.
const WRITE_BUFFER: usize = 256 << 10;

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
pub async fn connect(
    State(app): State<App>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|error| ApiError::Malformed(error.body_text()))?;
    let config = app.config();
    if !origin_is_allowed(&headers, &config.http.allowed_origins) {
        return Err(ApiError::Forbidden("This origin may not open WebSockets."));
    }
    let shared = admit(&app)?;
    let sockets = app.lifecycle().tasks.clone();
    Ok(upgrade
        .read_buffer_size(READ_BUFFER)
        .max_message_size(MOST_INCOMING)
        .max_frame_size(MOST_INCOMING)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
        .on_upgrade(move |socket| sockets.track_future(serve(socket, shared))))
}

/// What a new connection works with, unless there are too many.
pub(super) fn admit(app: &App) -> Result<Shared<App>, ApiError> {
    let config = app.config();
    let metrics = app.metrics().realtime.clone();
    let most = app.most_connections();
    if app.readiness().is_draining() || metrics.sockets.get() >= i64::from(most) {
        return Err(ApiError::Unavailable("No more connections here at the moment."));
    }
    Ok(Shared {
        hub: app.hub().clone(),
        people: app.clone(),
        metrics,
        send_buffer: usize::try_from(config.websocket.send_buffer.bytes()).unwrap_or(usize::MAX),
        history: i64::from(config.websocket.history_size),
        shares: Shares {
            person: PER_PERSON,
            // One tenant leaves a tenth of each process to the others.
            tenant: usize::try_from(most - most / 10).unwrap_or(usize::MAX),
        },
        drain: app.lifecycle().closing.clone(),
        drain_time: config.drain.timeout.get() * 5 / 6,
    })
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
