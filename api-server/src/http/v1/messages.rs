//! Messages of a conversation.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::domain::conversation::Content;
use crate::entropy;
use crate::http::answer::{Answer, List};
use crate::http::error::{ApiError, Problem};
use crate::http::extract::{Body, Caller, Id, Key, PageQuery, Paging, Writer};
use crate::store::messages::{CreateMessage, ListMessages, Message};

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create))
}

/// A message to write.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageRequest {
    /// Text of at most 32,768 characters.
    pub content: String,
}

/// Messages of a conversation, newest first.
#[utoipa::path(get, path = "/conversations/{id}/messages", tag = "messages", security(("bearer" = ["read"])),
    params(("id" = uuid::Uuid, Path), PageQuery), responses(
    (status = 200, body = List<Message>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Id(conversation_id): Id,
    Paging(page): Paging,
) -> Result<Answer<List<Message>>, ApiError> {
    let list = ListMessages {
        user_id: caller.person.user_id,
        conversation_id,
        page,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?).map(List::from))
}

/// Writes a message; sockets of the person receive `message.created`.
#[utoipa::path(post, path = "/conversations/{id}/messages", tag = "messages", security(("bearer" = ["write"])),
    params(
        ("id" = uuid::Uuid, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for a day"),
    ), request_body = MessageRequest, responses(
    (status = 201, body = Message),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn create(
    State(app): State<App>,
    Writer(caller): Writer,
    Id(conversation_id): Id,
    key: Key,
    body: Body<MessageRequest>,
) -> Result<Answer<Message>, ApiError> {
    let content =
        Content::parse(&body.value.content).map_err(|problem| ApiError::field("content", problem))?;
    let key = key.of(&caller, &body);
    let user_id = caller.person.user_id;
    let create = CreateMessage {
        id: entropy::id(),
        user_id,
        conversation_id,
        content,
    };
    Ok(Answer::written(
        &app,
        StatusCode::CREATED,
        app.database().write_once(caller.scope, create, key).await?,
    ))
}
