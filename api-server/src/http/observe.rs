//! The outermost layer: gives every request an id, a limit of time, a span and its metrics; catches panics; writes problems;
//! sets the headers that every answer has.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
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
use crate::metrics::{LatencyLabels, RequestLabels};
use crate::tally::{self, Tally};
use crate::telemetry;

/// Carries the request id in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RESPONSE_TIME: HeaderName = HeaderName::from_static("x-response-time");
const DB_QUERIES: HeaderName = HeaderName::from_static("x-db-queries");
const CACHE_HIT_RATE: HeaderName = HeaderName::from_static("x-cache-hit-rate");

/// Headers of every answer. `X-XSS-Protection: 0` because the filter that it once controlled created leaks of its own;
/// the API serves no page, so nothing may be loaded or framed. The explorer sets its own policy.
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

/// What is known of a request before it is answered.
struct Observed {
    labels: LatencyLabels,
    id: String,
    started: Instant,
    tally: Arc<Tally>,
}

impl Observed {
    fn of(request: &Request) -> Self {
        let endpoint = request
            .extensions()
            .get::<MatchedPath>()
            .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
        Self {
            labels: LatencyLabels {
                method: method_label(request.method()),
                endpoint,
            },
            id: request_id(request.headers()),
            started: Instant::now(),
            tally: Arc::default(),
        }
    }
}

/// The layer.
pub async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let observed = Observed::of(&request);
    let limit = observed.started + app.config().http.request_timeout.get();
    request
        .extensions_mut()
        .insert(Deadline(limit.checked_sub(REST).unwrap_or(limit)));
    let span = tracing::info_span!("request", http.method = observed.labels.method,
        http.route = %observed.labels.endpoint, request.id = %observed.id, trace_id = tracing::field::Empty);
    telemetry::adopt(&span, request.headers());
    let work = tally::scope(observed.tally.clone(), timeout_at(limit, next.run(request)));
    let work = AssertUnwindSafe(work).catch_unwind();
    let mut in_flight = InFlight::new(app.clone(), observed.labels.clone());
    let response = match work.instrument(span.clone()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => ApiError::Timeout.into_response(),
        Err(_) => {
            app.metrics().http.panics.inc();
            span.in_scope(|| ApiError::Internal("a handler panicked".to_owned()).into_response())
        }
    };
    in_flight.answered = true;
    let debug = app.config().http.debug_headers || response.extensions().get::<ToOperator>().is_some();
    let response = finish(response, &observed, debug);
    span.in_scope(|| record(&app, observed, response.status().as_u16()));
    response
}

/// Counts and logs a finished request.
fn record(app: &App, observed: Observed, status: u16) {
    let http = &app.metrics().http;
    let took = observed.started.elapsed().as_secs_f64();
    let labels = observed.labels;
    http.duration.get_or_create(&labels).observe(took);
    let statements = observed.tally.statements();
    http.statements
        .get_or_create(&labels)
        .inc_by(u64::from(statements));
    http.requests
        .get_or_create(&RequestLabels {
            method: labels.method,
            endpoint: labels.endpoint,
            status,
        })
        .inc();
    tracing::info!(
        http.status = status,
        db.statements = statements,
        duration_ms = took * 1_000.0,
        "request_completed"
    );
}

/// Marks the answer to a caller who operates the platform, and who may see what it cost.
#[derive(Debug, Clone, Copy)]
pub struct ToOperator;

/// Counts requests that are being answered. One whose client leaves never gets an answer, and is counted as aborted.
struct InFlight {
    app: App,
    labels: Option<LatencyLabels>,
    answered: bool,
}

impl InFlight {
    fn new(app: App, labels: LatencyLabels) -> Self {
        app.metrics().http.in_flight.inc();
        Self {
            app,
            labels: Some(labels),
            answered: false,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let http = &self.app.metrics().http;
        http.in_flight.dec();
        if !self.answered
            && let Some(labels) = self.labels.take()
        {
            http.aborted.get_or_create_owned(&labels).inc();
        }
    }
}

fn finish(mut response: Response, observed: &Observed, debug: bool) -> Response {
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        problem.request_id = Some(observed.id.clone());
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        *response.body_mut() = Body::from(body);
    }
    let upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&observed.id) {
        headers.insert(REQUEST_ID, id);
    }
    let millis = observed.started.elapsed().as_secs_f64() * 1_000.0;
    if let Ok(time) = HeaderValue::from_str(&format!("{millis:.2}ms")) {
        headers.insert(RESPONSE_TIME, time);
    }
    if debug {
        cost(headers, &observed.tally);
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

/// F26: what this request cost, and nothing of what others cost.
fn cost(headers: &mut HeaderMap, tally: &Tally) {
    headers.insert(DB_QUERIES, HeaderValue::from(tally.statements()));
    if let Some(rate) = tally.hit_rate()
        && let Ok(rate) = HeaderValue::from_str(&format!("{rate:.1}%"))
    {
        headers.insert(CACHE_HIT_RATE, rate);
    }
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
