//! What the platform asks the API's port: is it alive, is it ready, what can it do.

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::error::ApiError;
use super::openapi;
use crate::app::App;
use crate::app::ready::Readiness;

/// Routes outside of `/api`.
pub fn router() -> Router<App> {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/openapi.json", get(document))
}

/// Alive, whatever else is broken: a process that drains must not be killed for it.
pub async fn health() -> Json<serde_json::Value> {
    Json(json!({"status": "healthy"}))
}

/// Whether requests should come here.
pub async fn ready(State(app): State<App>) -> Response {
    let readiness = app.readiness();
    let status = if readiness == Readiness::Ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({"status": readiness.as_str()}))).into_response()
}

async fn document() -> Result<Response, ApiError> {
    static DOCUMENT: LazyLock<Result<String, String>> =
        LazyLock::new(|| openapi::document().map_err(|error| error.to_string()));
    let text = DOCUMENT
        .as_ref()
        .map_err(|error| ApiError::Internal(error.clone()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text.as_str()).into_response())
}
