//! The caller's tenant, and what its managers see and say.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::domain::account::Name;
use crate::domain::audit::SecurityEvent;
use crate::domain::conversation::Content;
use crate::http::answer::{Answer, List};
use crate::http::client::Client;
use crate::http::error::{ApiError, Problem};
use crate::http::extract::{Body, Caller, Key, PageQuery, Paging};
use crate::store::logs::{ActivityLine, AuditLine, ListActivity, ListAudit};
use crate::store::tenants::{Announcement, Broadcast, FindTenant, RenameTenant, Tenant};

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(find, rename))
        .routes(routes!(broadcast))
        .routes(routes!(audit))
        .routes(routes!(activity))
}

/// A tenant's new name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantRequest {
    /// One line of at most 200 characters.
    pub name: String,
}

/// Something to tell everybody.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BroadcastRequest {
    /// Text of at most 32,768 characters.
    pub message: String,
}

/// Which security events.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only about this person.
    pub user_id: Option<String>,
    /// Only of this type, such as `login.failed`.
    pub event_type: Option<String>,
}

/// The caller's tenant.
#[utoipa::path(get, path = "/tenant", tag = "tenant", security(("bearer" = ["read"])), responses(
    (status = 200, body = Tenant),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
async fn find(State(app): State<App>, caller: Caller) -> Result<Answer<Tenant>, ApiError> {
    Ok(Answer::read(
        app.database().read(&caller.scope, &FindTenant).await?,
    ))
}

/// Changes the tenant's name.
#[utoipa::path(patch, path = "/tenant", tag = "tenant", security(("bearer" = ["own"])), request_body = TenantRequest, responses(
    (status = 200, body = Tenant),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn rename(
    State(app): State<App>,
    caller: Caller,
    Client(origin): Client,
    body: Body<TenantRequest>,
) -> Result<Answer<Tenant>, ApiError> {
    let name = Name::parse(&body.value.name).map_err(|problem| ApiError::field("name", problem))?;
    let rename = RenameTenant {
        actor_id: caller.person.user_id,
        origin,
        name,
    };
    let written = app.database().write(caller.scope, rename).await?;
    Ok(Answer::written(&app, StatusCode::OK, written))
}

/// Tells all open sockets of the tenant something, as `tenant.broadcast`.
#[utoipa::path(post, path = "/tenant/broadcast", tag = "tenant", security(("bearer" = ["manage"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for a day")),
    request_body = BroadcastRequest, responses(
    (status = 202, body = Announcement),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn broadcast(
    State(app): State<App>,
    caller: Caller,
    key: Key,
    body: Body<BroadcastRequest>,
) -> Result<Answer<Announcement>, ApiError> {
    let message =
        Content::parse(&body.value.message).map_err(|problem| ApiError::field("message", problem))?;
    let key = key.of(&caller, &body);
    let broadcast = Broadcast {
        actor_id: caller.person.user_id,
        message: message.as_str().to_owned(),
    };
    let written = app.database().write_once(caller.scope, broadcast, key).await?;
    Ok(Answer::written(&app, StatusCode::ACCEPTED, written))
}

/// Security events of the tenant, the newest first.
#[utoipa::path(get, path = "/audit-logs", tag = "tenant", security(("bearer" = ["manage"])), params(PageQuery, AuditQuery), responses(
    (status = 200, body = List<AuditLine>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn audit(
    State(app): State<App>,
    caller: Caller,
    Paging(page): Paging,
    query: Result<Query<AuditQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Answer<List<AuditLine>>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::Malformed(error.body_text()))?;
    let user_id = query.user_id.map(|text| text.parse::<Uuid>()).transpose();
    let event = query
        .event_type
        .map(|text| text.parse::<SecurityEvent>())
        .transpose();
    let list = ListAudit {
        user_id: user_id.map_err(|_| ApiError::field("user_id", "must be an id"))?,
        event: event.map_err(|problem| ApiError::field("event_type", problem))?,
        page,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?).map(List::from))
}

/// Changes in the tenant, the newest first.
#[utoipa::path(get, path = "/activity", tag = "tenant", security(("bearer" = ["manage"])), params(PageQuery), responses(
    (status = 200, body = List<ActivityLine>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn activity(
    State(app): State<App>,
    caller: Caller,
    Paging(page): Paging,
) -> Result<Answer<List<ActivityLine>>, ApiError> {
    let list = ListActivity(page);
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?).map(List::from))
}
