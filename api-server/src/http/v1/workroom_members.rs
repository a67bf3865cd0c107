//! Members of workrooms.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::domain::workroom::RoomRole;
use crate::http::answer::{Answer, List};
use crate::http::error::{ApiError, Problem};
use crate::http::extract::{Body, Caller, Id, PageQuery, Paging, Writer};
use crate::store::workroom_members::{ListRoomMembers, PutRoomMember, RemoveRoomMember, RoomMember};

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, put))
        .routes(routes!(remove))
}

/// Who becomes a member.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomMemberRequest {
    /// A person of the tenant.
    pub user_id: Uuid,
    /// As what; `member` if absent.
    #[serde(default = "member")]
    pub role: RoomRole,
}

const fn member() -> RoomRole {
    RoomRole::Member
}

/// Members of a workroom, the newest first: for its members, and for managers of the tenant.
#[utoipa::path(get, path = "/workrooms/{id}/members", tag = "workrooms", security(("bearer" = ["read"])),
    params(("id" = uuid::Uuid, Path), PageQuery), responses(
    (status = 200, body = List<RoomMember>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Id(workroom_id): Id,
    Paging(page): Paging,
) -> Result<Answer<List<RoomMember>>, ApiError> {
    let list = ListRoomMembers {
        person: caller.person,
        workroom_id,
        page,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?).map(List::from))
}

/// Makes a person of the tenant a member, or changes what a member is: for owners of the workroom, and for managers of the tenant.
/// Repeating it changes nothing.
#[utoipa::path(post, path = "/workrooms/{id}/members", tag = "workrooms", security(("bearer" = ["write"])),
    params(("id" = uuid::Uuid, Path)), request_body = RoomMemberRequest, responses(
    (status = 201, body = RoomMember),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn put(
    State(app): State<App>,
    Writer(caller): Writer,
    Id(workroom_id): Id,
    body: Body<RoomMemberRequest>,
) -> Result<Answer<RoomMember>, ApiError> {
    let put = PutRoomMember {
        person: caller.person,
        workroom_id,
        user_id: body.value.user_id,
        role: body.value.role,
    };
    let written = app.database().write(caller.scope, put).await?;
    Ok(Answer::written(&app, StatusCode::CREATED, written))
}

/// Ends a membership: for owners of the workroom and managers of the tenant, and for everybody the own one. The person's
/// subscriptions to the room end with it.
#[utoipa::path(delete, path = "/workrooms/{id}/members/{user_id}", tag = "workrooms", security(("bearer" = ["write"])),
    params(("id" = uuid::Uuid, Path), ("user_id" = uuid::Uuid, Path)), responses(
    (status = 204, description = "It ended"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn remove(
    State(app): State<App>,
    Writer(caller): Writer,
    path: Result<Path<(Uuid, Uuid)>, axum::extract::rejection::PathRejection>,
) -> Result<Answer<()>, ApiError> {
    let Path((workroom_id, user_id)) = path.map_err(|_| ApiError::NotFound)?;
    let remove = RemoveRoomMember {
        person: caller.person,
        workroom_id,
        user_id,
    };
    let written = app.database().write(caller.scope, remove).await?;
    Ok(Answer::written(&app, StatusCode::NO_CONTENT, written).empty())
}
