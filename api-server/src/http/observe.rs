//! The outermost layer: gives every request an id, a limit of time, a span and its metrics; catches panics; writes problems;
//! sets the headers that every answer has.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::error::{ApiError, PROBLEM_JSON, Problem};
use crate::app::App;
use crate::entropy;
use crate::metrics::{HttpMetrics, LatencyLabels, RequestLabels};

/// Carries the request id in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RESPONSE_TIME: HeaderName = HeaderName::from_static("x-response-time");

/// Headers of every answer. `X-XSS-Protection: 0` because the filter that it once controlled created leaks of its own;
/// the API serves no page, so nothing may be loaded or framed.
const EVERYWHERE: [(HeaderName, &str); 6] = [
    (
        header::STRICT_TRANSPORT_SECURITY,
        "max-age=31536000; includeSubDomains; preload",
    ),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_XSS_PROTECTION, "0"),
    (header::REFERRER_POLICY, "strict-origin-when-cross-origin"),
];

/// When the answer to the request is worthless. What runs for it must end a little earlier.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

/// Kept from the time of a request for writing its answer.
const REST: Duration = Duration::from_millis(300);

/// The layer.
pub async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_label(request.method());
    let endpoint = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let id = request_id(request.headers());
    let limit = started + app.config().http.request_timeout.get();
    request
        .extensions_mut()
        .insert(Deadline(limit.checked_sub(REST).unwrap_or(limit)));
    let span = tracing::info_span!("request", http.method = method, http.route = %endpoint, request.id = %id);
    let work = AssertUnwindSafe(timeout_at(limit, next.run(request))).catch_unwind();
    let _in_flight = InFlight::new(&app.metrics().http);
    let response = match work.instrument(span.clone()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => ApiError::Timeout.into_response(),
        Err(_) => span.in_scope(|| ApiError::Internal("a handler panicked".to_owned()).into_response()),
    };
    let response = finish(response, &id, started);
    let (took, status) = (started.elapsed(), response.status().as_u16());
    let http = &app.metrics().http;
    let labels = LatencyLabels {
        method,
        endpoint: endpoint.clone(),
    };
    http.duration.get_or_create(&labels).observe(took.as_secs_f64());
    http.requests
        .get_or_create(&RequestLabels {
            method,
            endpoint,
            status,
        })
        .inc();
    span.in_scope(|| {
        tracing::info!(
            http.status = status,
            duration_ms = took.as_secs_f64() * 1_000.0,
            "request_completed"
        );
    });
    response
}

/// Counts requests that are being answered, also those whose client leaves.
struct InFlight(prometheus_client::metrics::gauge::Gauge);

impl InFlight {
    fn new(http: &HttpMetrics) -> Self {
        http.in_flight.inc();
        Self(http.in_flight.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn finish(mut response: Response, id: &str, started: Instant) -> Response {
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        problem.request_id = Some(id.to_owned());
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        *response.body_mut() = Body::from(body);
    }
    let upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    let millis = started.elapsed().as_secs_f64() * 1_000.0;
    if let Ok(time) = HeaderValue::from_str(&format!("{millis:.2}ms")) {
        headers.insert(RESPONSE_TIME, time);
    }
    if !upgrade {
        for (name, value) in EVERYWHERE {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
    }
    response
}

/// The caller's id if it is harmless, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| (1..=64).contains(&id.len()))
        .filter(|id| {
            id.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        })
        .map_or_else(|| entropy::id().simple().to_string(), ToOwned::to_owned)
}

/// Methods come from clients, so they are cut to a closed set.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("abc-1", true)]
    #[case("a b", false)]
    #[case("", false)]
    #[case("x\u{7f}", false)]
    fn a_request_id_is_taken_over_only_if_harmless(#[case] id: &str, #[case] kept: bool) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(id) {
            headers.insert(REQUEST_ID, value);
        }
        assert_eq!(request_id(&headers) == id, kept);
    }
}
