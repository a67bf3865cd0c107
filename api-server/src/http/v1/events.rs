//! Server-sent events: the stream of `ws`, where WebSockets are blocked.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::sse::Sse;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ws::{admit, origin_is_allowed};
use crate::app::App;
use crate::http::error::{ApiError, Problem};
use crate::http::extract::{Unscoped, query};
use crate::realtime::cursor;
use crate::realtime::hub::Resume;
use crate::realtime::listener::{Listener, People, Wish};
use crate::realtime::protocol::Proof;
use crate::realtime::queue::Close;
use crate::realtime::stream::{Opened, serve};

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(stream))
}

/// What a client listens to.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Channels, separated by commas, beside the person's and the tenant's own: `workroom:…:updates`; at most 14.
    pub channels: Option<String>,
    /// A ticket of `auth/ws-ticket`, for browsers, which cannot send a header. It works once; a token is never taken from an address.
    pub ticket: Option<String>,
    /// The same as the header `Last-Event-ID`, for a client that opens a new stream with a new ticket.
    pub last_event_id: Option<String>,
}

/// The caller's events as `text/event-stream`: `connected` first, then one event for each frame that `ws` would send. The id of an event
/// is where the client is in all channels; sent back as `Last-Event-ID`, the stream goes on from there.
#[utoipa::path(get, path = "/events", tag = "events", security(()),
    params(EventsQuery, ("Last-Event-ID" = Option<String>, Header, description = "Id of the last event that was seen"),
        ("X-Consistency-Token" = Option<String>, Header, description = "Of the last write: events after it follow")), responses(
    (status = 200, description = "Events, until somebody ends the stream", content_type = "text/event-stream", body = String),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "The origin is not allowed", body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
    (status = 429, body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "Too many connections", body = Problem, content_type = "application/problem+json"),
))]
async fn stream(
    State(app): State<App>,
    Unscoped(scope): Unscoped,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query: EventsQuery = query(&uri)?;
    if !origin_is_allowed(&headers, &app.config().http.allowed_origins) {
        return Err(ApiError::Forbidden("This origin may not open streams."));
    }
    let shared = admit(&app)?;
    let person = app
        .authenticate(proof(&headers, query.ticket)?, scope.deadline)
        .await;
    let person = person.map_err(|close| refused(&close))?;
    let person = person.ok_or(ApiError::Unauthorized(
        "The token or ticket is not valid, or ended.",
    ))?;
    let resume = places(&headers, query.last_event_id)?;
    let channels: Vec<String> = query
        .channels
        .iter()
        .flat_map(|list| list.split(','))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    if channels.len() > cursor::MOST - 2 {
        let most = format!("must name at most {} channels", cursor::MOST - 2);
        return Err(ApiError::field("channels", most));
    }
    let wish = Wish {
        channels,
        resume,
        after: scope.at_least,
    };
    let opened = Listener::open(&shared, person, &wish, scope.deadline).await;
    let (listener, caught, refused) = opened.map_err(|close| self::refused(&close))?;
    let opened = Opened {
        listener,
        caught,
        refused,
    };
    let (body, work) = serve(opened, shared);
    app.lifecycle().tasks.spawn(work);
    let mut response = Sse::new(body).into_response();
    // Proxies that buffer answers would hold events back.
    let buffering = HeaderName::from_static("x-accel-buffering");
    response
        .headers_mut()
        .insert(buffering, HeaderValue::from_static("no"));
    Ok(response)
}

/// Where the client was, by channel; nothing for a new client.
fn places(headers: &HeaderMap, last_event_id: Option<String>) -> Result<HashMap<String, Resume>, ApiError> {
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .map(ToOwned::to_owned)
        .or(last_event_id)
        .filter(|last| !last.is_empty());
    let places = match last {
        None => Vec::new(),
        Some(last) => cursor::decode(&last).ok_or_else(|| {
            ApiError::field("Last-Event-ID", "is not an id of this stream; start without one")
        })?,
    };
    Ok(places
        .into_iter()
        .map(|(channel, place)| (channel.to_string(), place))
        .collect())
}

fn proof(headers: &HeaderMap, ticket: Option<String>) -> Result<Proof, ApiError> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match (bearer, ticket) {
        (Some((_, token)), _) => Ok(Proof::Token(token.trim().to_owned())),
        (None, Some(ticket)) => Ok(Proof::Ticket(ticket)),
        (None, None) => Err(ApiError::Unauthorized(
            "Send `Authorization: Bearer` with an access token, or `ticket` in the address.",
        )),
    }
}

fn refused(close: &Close) -> ApiError {
    match close {
        Close::TooMany => ApiError::TooMany {
            why: "You have too many connections.",
            retry_after: std::time::Duration::from_secs(10),
        },
        Close::Unauthorized | Close::Revoked => {
            ApiError::Unauthorized("The token or ticket is not valid, or ended.")
        }
        _ => ApiError::Unavailable("Events cannot be followed at the moment."),
    }
}
