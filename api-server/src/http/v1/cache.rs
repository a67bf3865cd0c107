//! The cache, for who operates the platform.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::cache::stats::{self, Stats};
use crate::cache::warm::{self, Mode, Warmed};
use crate::cache::{Entity, Kind, Target};
use crate::http::answer::Answer;
use crate::http::error::{ApiError, Problem};
use crate::http::extract::{Body, Operator};
use crate::routing::Scope;
use crate::store::everyone::TenantOf;
use crate::store::invalidations::Invalidate;

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(read_stats))
        .routes(routes!(warm_up))
        .routes(routes!(drop_person))
        .routes(routes!(drop_prefix))
        .routes(routes!(drop_key))
}

/// State and counts of the cache.
#[utoipa::path(get, path = "/cache/stats", tag = "cache", security(("bearer" = ["operate"])), responses(
    (status = 200, body = Stats),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
))]
async fn read_stats(State(app): State<App>, _: Operator) -> axum::Json<Stats> {
    axum::Json(stats::read(app.cache(), app.redis()).await)
}

/// What to load.
#[derive(Debug, Deserialize, ToSchema)]
pub struct WarmRequest {
    /// What; everything if absent.
    #[serde(default)]
    pub mode: Mode,
    /// At most so many of each; 1 to 10,000.
    pub limit: Option<u32>,
    /// People who were here in so many days; 7 if absent.
    pub days: Option<u32>,
}

/// Loads answers before somebody asks for them.
#[utoipa::path(post, path = "/cache/warm", tag = "cache", security(("bearer" = ["operate"])), request_body = WarmRequest, responses(
    (status = 200, body = Warmed),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn warm_up(
    State(app): State<App>,
    Operator(caller): Operator,
    body: Body<WarmRequest>,
) -> Result<axum::Json<Warmed>, ApiError> {
    let amount = warm::Amount::parse(body.value.limit, body.value.days)
        .map_err(|(field, problem)| ApiError::field(field, problem))?;
    let warmed = warm::run(app.cache(), body.value.mode, amount, caller.scope.deadline).await?;
    Ok(axum::Json(warmed))
}

/// How much was invalidated.
#[derive(Debug, Serialize, ToSchema)]
pub struct Invalidated {
    /// Entities and kinds of entries.
    pub invalidated: usize,
}

/// Drops everything that is cached for one person.
#[utoipa::path(delete, path = "/cache/user/{id}", tag = "cache", security(("bearer" = ["operate"])), params(("id" = Uuid, Path)), responses(
    (status = 200, body = Invalidated),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn drop_person(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(id): Path<String>,
) -> Result<Answer<Invalidated>, ApiError> {
    let id = Uuid::try_parse(&id).map_err(|_| ApiError::NotFound)?;
    let (tenant, _) = app
        .database()
        .read(&everywhere(caller.scope), &TenantOf(id))
        .await?;
    invalidate(&app, caller.scope, Target::person(tenant, id)).await
}

/// Drops everything of one kind, such as `memories` or `plan_catalog`.
#[utoipa::path(delete, path = "/cache/prefix/{prefix}", tag = "cache", security(("bearer" = ["operate"])), params(("prefix" = String, Path)), responses(
    (status = 200, body = Invalidated),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn drop_prefix(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(prefix): Path<String>,
) -> Result<Answer<Invalidated>, ApiError> {
    let kind: Kind = prefix
        .trim_end_matches([':', '*'])
        .parse()
        .map_err(|_| ApiError::NotFound)?;
    invalidate(&app, caller.scope, vec![Target::Kind(kind)]).await
}

/// Drops what is cached for one entity, such as `plan_catalog:v1:-:-`.
#[utoipa::path(delete, path = "/cache/key/{key}", tag = "cache", security(("bearer" = ["operate"])), params(("key" = String, Path)), responses(
    (status = 200, body = Invalidated),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn drop_key(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(key): Path<String>,
) -> Result<Answer<Invalidated>, ApiError> {
    let entity: Entity = key.parse().map_err(|_| ApiError::NotFound)?;
    invalidate(&app, caller.scope, vec![entity.into()]).await
}

async fn invalidate(app: &App, scope: Scope, targets: Vec<Target>) -> Result<Answer<Invalidated>, ApiError> {
    let written = app
        .database()
        .write(everywhere(scope), Invalidate(targets))
        .await?;
    Ok(Answer::written(app, StatusCode::OK, written).map(|invalidated| Invalidated { invalidated }))
}

/// Not within the operator's own tenant.
fn everywhere(scope: Scope) -> Scope {
    Scope {
        tenant: None,
        ..scope
    }
}
