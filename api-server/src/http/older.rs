//! Addresses that older clients know. They do what their successors below `/api/v1` do.

use axum::extract::State;
use axum::http::Uri;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer::Answer;
use super::error::{ApiError, Problem};
use super::extract::{Caller, Key, MaybeBody, Writer};
use super::v1::syncs::{self, SyncList, SyncQuery, SyncRequest};
use crate::app::App;
use crate::store::deliveries::Queued;

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(start))
}

/// The same as `GET /api/v1/syncs`.
#[utoipa::path(get, path = "/syncs", tag = "syncs", security(("bearer" = ["read"])), params(SyncQuery), responses(
    (status = 200, body = SyncList),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
async fn list(app: State<App>, caller: Caller, uri: Uri) -> Result<Answer<SyncList>, ApiError> {
    syncs::list(app, caller, uri).await
}

/// The same as `POST /api/v1/syncs`.
#[utoipa::path(post, path = "/sync", tag = "syncs", security(("bearer" = ["write"])), request_body = Option<SyncRequest>, responses(
    (status = 202, body = Queued),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "The workroom is not there", body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn start(
    app: State<App>,
    writer: Writer,
    key: Key,
    body: MaybeBody<SyncRequest>,
) -> Result<Answer<Queued>, ApiError> {
    syncs::start(app, writer, key, body).await
}
