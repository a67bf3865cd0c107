//! What stands before all routes: refusing early what would only queue, other origins, compression.

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::compression::{CompressionLayer, CompressionLevel};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::answer::{CONSISTENCY_TOKEN, REPLAYED, SERVED_BY, SERVED_ROLE};
use super::error::ApiError;
use super::observe::REQUEST_ID;
use crate::app::App;

/// Bodies that are smaller than this many bytes are not compressed: the work would save nothing.
const WORTHWHILE: u64 = 1_024;
/// How long browsers remember what an origin may do.
const REMEMBERED: Duration = Duration::from_hours(1);

/// Refuses a request at once when too many are being answered. Asking for the process' health always works.
pub async fn shed(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let vital = path.is_some_and(|path| matches!(path.as_str(), "/health" | "/ready"));
    let http = &app.metrics().http;
    // The gauge counts this request already.
    if !vital && http.in_flight.get() > i64::from(app.config().http.max_in_flight) {
        http.shed.inc();
        return ApiError::Unavailable("Too many requests are being answered at the moment.").into_response();
    }
    next.run(request).await
}

/// Lets pages of the configured origins call the API. Tokens travel in a header and never in a cookie, so no credentials are allowed.
pub fn cors(app: &App) -> CorsLayer {
    let app = app.clone();
    let allowed = AllowOrigin::predicate(move |origin: &HeaderValue, _| {
        let config = app.config();
        config
            .http
            .allowed_origins
            .iter()
            .any(|allowed| allowed.as_bytes() == origin.as_bytes())
    });
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
            header::RANGE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("x-tenant-id"),
            CONSISTENCY_TOKEN,
            REQUEST_ID,
        ])
        .expose_headers([
            header::ETAG,
            header::LOCATION,
            header::RETRY_AFTER,
            CONSISTENCY_TOKEN,
            REPLAYED,
            REQUEST_ID,
            SERVED_BY,
            SERVED_ROLE,
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
            HeaderName::from_static("x-response-time"),
        ])
        .max_age(REMEMBERED)
}

/// Compresses what is large enough and is not compressed or streamed already.
pub fn compression() -> CompressionLayer<impl Predicate> {
    let worthwhile = SizeAbove::new(WORTHWHILE)
        .and(NotForContentType::IMAGES)
        .and(NotForContentType::SSE)
        .and(NotForContentType::const_new("application/octet-stream"));
    CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(worthwhile)
}
