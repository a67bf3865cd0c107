//! The operations port, which no ingress routes: metrics, health, and the deep check that the operator reads.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::error;
use super::service;
use crate::app::App;
use crate::metrics::CONTENT_TYPE;

/// Everything on the operations port. Its answers are not counted among the API's: a 503 of a check is an answer, not an error.
pub fn router(app: &App) -> Router {
    Router::new()
        .route("/health", get(service::health))
        .route("/health/deep", get(deep))
        .route("/ready", get(service::ready))
        .route("/metrics", get(metrics))
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
