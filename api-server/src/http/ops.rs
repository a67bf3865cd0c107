//! The operations port, which no ingress routes: metrics, health, and the deep check that the operator reads.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use serde::Serialize;

use super::error;
use super::service;
use crate::app::App;
use crate::metrics::CONTENT_TYPE;
use crate::routing::fleet::InstanceReport;

/// Everything on the operations port. Its answers are not counted among the API's: a 503 of a check is an answer, not an error.
pub fn router(app: &App) -> Router {
    Router::new()
        .route("/health", get(service::health))
        .route("/health/deep", get(deep))
        .route("/ready", get(service::ready))
        .route("/metrics", get(metrics))
        .route("/debug/config", get(config))
        .route("/debug/instances", get(instances))
        .fallback(error::no_route)
        .with_state(app.clone())
}

async fn metrics(State(app): State<App>) -> Response {
    app.database().measure();
    match app.metrics().encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The configuration that is in force, defaults included. Secrets are in files, of which it holds the names.
async fn config(State(app): State<App>) -> Response {
    Json(&*app.config()).into_response()
}

/// What each PostgreSQL instance is at this moment, as requests see it.
async fn instances(State(app): State<App>) -> Json<Vec<Seen>> {
    let report = app.database().report();
    Json(report.into_iter().map(Seen::from).collect())
}

/// An instance.
#[derive(Debug, Serialize)]
struct Seen {
    name: String,
    /// `primary` or `replica`; none while it does not answer.
    role: Option<&'static str>,
    /// How far it has replayed, or written.
    lsn: Option<u64>,
    /// Upper bound of the age of what it would serve.
    lag_seconds: Option<f64>,
    /// Operations of this process that it is serving.
    busy: Option<u32>,
}

impl From<InstanceReport> for Seen {
    fn from(report: InstanceReport) -> Self {
        let seen = report.candidate;
        Self {
            name: report.name,
            role: seen.map(|seen| seen.role.as_str()),
            lsn: seen.map(|seen| seen.position.lsn),
            lag_seconds: seen.and_then(|seen| seen.lag).map(|lag| lag.as_secs_f64()),
            busy: seen.map(|seen| seen.busy),
        }
    }
}

/// 200 if a write, a replica's read and a Redis round trip work now, else 503; the body tells in both cases.
async fn deep(State(app): State<App>) -> Response {
    let report = app.deep_check().await;
    let status = if report.ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report)).into_response()
}
