//! Workrooms and their messages.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::messages::MessageRequest;
use crate::app::App;
use crate::domain::conversation::{Content, Title};
use crate::entropy;
use crate::http::answer::{Answer, List};
use crate::http::error::{ApiError, Problem};
use crate::http::extract::{Body, Caller, Id, Key, PageQuery, Paging, Writer};
use crate::store::workroom_messages::{CreateRoomMessage, ListRoomMessages, RoomMessage};
use crate::store::workrooms::{
    CreateWorkroom, DeleteWorkroom, FindWorkroom, ListWorkrooms, RenameWorkroom, Workroom,
};

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(find, rename, delete))
        .routes(routes!(messages, say))
}

/// A workroom to make, or its new name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkroomRequest {
    /// One line of at most 200 characters.
    pub name: String,
}

/// Workrooms of which the caller is a member, the most recently active first.
#[utoipa::path(get, path = "/workrooms", tag = "workrooms", security(("bearer" = ["read"])), params(PageQuery), responses(
    (status = 200, body = List<Workroom>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Paging(page): Paging,
) -> Result<Answer<List<Workroom>>, ApiError> {
    let list = ListWorkrooms {
        user_id: caller.person.user_id,
        page,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?).map(List::from))
}

/// Makes a workroom, which the caller owns.
#[utoipa::path(post, path = "/workrooms", tag = "workrooms", security(("bearer" = ["write"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for a day")),
    request_body = WorkroomRequest, responses(
    (status = 201, body = Workroom),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn create(
    State(app): State<App>,
    Writer(caller): Writer,
    key: Key,
    body: Body<WorkroomRequest>,
) -> Result<Answer<Workroom>, ApiError> {
    let name = Title::parse(&body.value.name).map_err(|problem| ApiError::field("name", problem))?;
    let key = key.of(&caller, &body);
    let create = CreateWorkroom {
        id: entropy::id(),
        user_id: caller.person.user_id,
        name,
    };
    let written = app.database().write_once(caller.scope, create, key).await?;
    let address = format!("/api/v1/workrooms/{}", written.output.id);
    Ok(Answer::written(&app, StatusCode::CREATED, written).located(address))
}

/// One workroom: for its members, and for managers of the tenant.
#[utoipa::path(get, path = "/workrooms/{id}", tag = "workrooms", security(("bearer" = ["read"])),
    params(("id" = uuid::Uuid, Path)), responses(
    (status = 200, body = Workroom),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn find(State(app): State<App>, caller: Caller, Id(id): Id) -> Result<Answer<Workroom>, ApiError> {
    let find = FindWorkroom {
        person: caller.person,
        id,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &find).await?))
}

/// Changes the name: for owners of the workroom, and for managers of the tenant. Members who listen receive `workroom.updated`.
#[utoipa::path(patch, path = "/workrooms/{id}", tag = "workrooms", security(("bearer" = ["write"])),
    params(("id" = uuid::Uuid, Path)), request_body = WorkroomRequest, responses(
    (status = 200, body = Workroom),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn rename(
    State(app): State<App>,
    Writer(caller): Writer,
    Id(id): Id,
    body: Body<WorkroomRequest>,
) -> Result<Answer<Workroom>, ApiError> {
    let name = Title::parse(&body.value.name).map_err(|problem| ApiError::field("name", problem))?;
    let rename = RenameWorkroom {
        person: caller.person,
        id,
        name,
    };
    let written = app.database().write(caller.scope, rename).await?;
    Ok(Answer::written(&app, StatusCode::OK, written))
}

/// Deletes a workroom: for its owners, and for managers of the tenant. Members who listen receive `workroom.deleted`.
#[utoipa::path(delete, path = "/workrooms/{id}", tag = "workrooms", security(("bearer" = ["write"])),
    params(("id" = uuid::Uuid, Path)), responses(
    (status = 204, description = "It is gone"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 403, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn delete(State(app): State<App>, Writer(caller): Writer, Id(id): Id) -> Result<Answer<()>, ApiError> {
    let delete = DeleteWorkroom {
        person: caller.person,
        id,
    };
    let written = app.database().write(caller.scope, delete).await?;
    Ok(Answer::written(&app, StatusCode::NO_CONTENT, written).empty())
}

/// Messages of a workroom, for its members, the newest first.
#[utoipa::path(get, path = "/workrooms/{id}/messages", tag = "workrooms", security(("bearer" = ["read"])),
    params(("id" = uuid::Uuid, Path), PageQuery), responses(
    (status = 200, body = List<RoomMessage>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn messages(
    State(app): State<App>,
    caller: Caller,
    Id(workroom_id): Id,
    Paging(page): Paging,
) -> Result<Answer<List<RoomMessage>>, ApiError> {
    let list = ListRoomMessages {
        user_id: caller.person.user_id,
        workroom_id,
        page,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?).map(List::from))
}

/// Writes a message into a workroom, for its members. Members who listen receive `workroom.message.created`.
#[utoipa::path(post, path = "/workrooms/{id}/messages", tag = "workrooms", security(("bearer" = ["write"])),
    params(
        ("id" = uuid::Uuid, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for a day"),
    ), request_body = MessageRequest, responses(
    (status = 201, body = RoomMessage),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn say(
    State(app): State<App>,
    Writer(caller): Writer,
    Id(workroom_id): Id,
    key: Key,
    body: Body<MessageRequest>,
) -> Result<Answer<RoomMessage>, ApiError> {
    let content =
        Content::parse(&body.value.content).map_err(|problem| ApiError::field("content", problem))?;
    let key = key.of(&caller, &body);
    let create = CreateRoomMessage {
        id: entropy::id(),
        user_id: caller.person.user_id,
        workroom_id,
        content,
    };
    let written = app.database().write_once(caller.scope, create, key).await?;
    Ok(Answer::written(&app, StatusCode::CREATED, written))
}
