//! Conversations of the person who calls.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::domain::conversation::Title;
use crate::entropy;
use crate::http::answer::{Answer, List};
use crate::http::error::{ApiError, Problem};
use crate::http::extract::{Body, Caller, Id, Key, PageQuery, Paging, Writer};
use crate::store::conversations::{
    Conversation, CreateConversation, DeleteConversation, FindConversation, ListConversations,
    RenameConversation,
};

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(find, rename, delete))
}

/// A conversation to begin, or its new title.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConversationRequest {
    /// One line of at most 200 characters.
    pub title: String,
}

/// The caller's conversations, the most recently active first, each with its last message.
#[utoipa::path(get, path = "/conversations", tag = "conversations", security(("bearer" = ["read"])), params(PageQuery), responses(
    (status = 200, body = List<Conversation>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Paging(page): Paging,
) -> Result<Answer<List<Conversation>>, ApiError> {
    let list = ListConversations {
        user_id: caller.person.user_id,
        page,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?).map(List::from))
}

/// Begins a conversation. With `Idempotency-Key`, repeating the request does not begin another one.
#[utoipa::path(post, path = "/conversations", tag = "conversations", security(("bearer" = ["write"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for a day")),
    request_body = ConversationRequest, responses(
    (status = 201, body = Conversation),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn create(
    State(app): State<App>,
    Writer(caller): Writer,
    key: Key,
    body: Body<ConversationRequest>,
) -> Result<Answer<Conversation>, ApiError> {
    let title = Title::parse(&body.value.title).map_err(|problem| ApiError::field("title", problem))?;
    let key = key.of(&caller, &body);
    let create = CreateConversation {
        id: entropy::id(),
        user_id: caller.person.user_id,
        title,
    };
    let written = app.database().write_once(caller.scope, create, key).await?;
    let address = format!("/api/v1/conversations/{}", written.output.id);
    Ok(Answer::written(&app, StatusCode::CREATED, written).located(address))
}

/// One conversation.
#[utoipa::path(get, path = "/conversations/{id}", tag = "conversations", security(("bearer" = ["read"])),
    params(("id" = uuid::Uuid, Path)), responses(
    (status = 200, body = Conversation),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn find(State(app): State<App>, caller: Caller, Id(id): Id) -> Result<Answer<Conversation>, ApiError> {
    let find = FindConversation {
        user_id: caller.person.user_id,
        id,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &find).await?))
}

/// Changes the title.
#[utoipa::path(patch, path = "/conversations/{id}", tag = "conversations", security(("bearer" = ["write"])),
    params(("id" = uuid::Uuid, Path)), request_body = ConversationRequest, responses(
    (status = 200, body = Conversation),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn rename(
    State(app): State<App>,
    Writer(caller): Writer,
    Id(id): Id,
    body: Body<ConversationRequest>,
) -> Result<Answer<Conversation>, ApiError> {
    let title = Title::parse(&body.value.title).map_err(|problem| ApiError::field("title", problem))?;
    let rename = RenameConversation {
        user_id: caller.person.user_id,
        id,
        title,
    };
    let written = app.database().write(caller.scope, rename).await?;
    Ok(Answer::written(&app, StatusCode::OK, written))
}

/// Deletes a conversation.
#[utoipa::path(delete, path = "/conversations/{id}", tag = "conversations", security(("bearer" = ["write"])),
    params(("id" = uuid::Uuid, Path)), responses(
    (status = 204, description = "It is gone"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn delete(State(app): State<App>, Writer(caller): Writer, Id(id): Id) -> Result<Answer<()>, ApiError> {
    let delete = DeleteConversation {
        user_id: caller.person.user_id,
        id,
    };
    let written = app.database().write(caller.scope, delete).await?;
    Ok(Answer::written(&app, StatusCode::NO_CONTENT, written).empty())
}
