//! Memories of the person who calls.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::domain::memory::{MemoryType, Note, Question, found_limit};
use crate::entropy;
use crate::http::answer::{Answer, Kept, List};
use crate::http::error::{ApiError, Fields, Problem};
use crate::http::extract::{Body, Caller, Id, Key, PageQuery, Paging, Writer, query};
use crate::store::memories::{CreateMemory, DeleteMemory, FindMemory, ListMemories, Memory};
use crate::store::search::{How, Match, Meaning, SearchMemories};

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(search))
        .routes(routes!(find, delete))
}

/// A memory to write down.
#[derive(Debug, Deserialize, ToSchema)]
pub struct MemoryRequest {
    /// Text of at most 32,768 characters.
    pub content: String,
    /// What kind of note it is, at most 50 characters; `note` if absent.
    pub memory_type: Option<String>,
}

/// Which memories are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TypeQuery {
    /// Only memories of this type.
    #[serde(rename = "type")]
    pub memory_type: Option<String>,
}

/// The caller's memories, newest first.
#[utoipa::path(get, path = "/memories", tag = "memories", security(("bearer" = ["read"])), params(PageQuery, TypeQuery), responses(
    (status = 200, body = List<Memory>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Paging(page): Paging,
    uri: axum::http::Uri,
) -> Result<Kept, ApiError> {
    let TypeQuery { memory_type } = query(&uri)?;
    let memory_type = memory_type.as_deref().map(MemoryType::parse).transpose();
    let list = ListMemories {
        user_id: caller.person.user_id,
        memory_type: memory_type.map_err(|problem| ApiError::field("type", problem))?,
        page,
    };
    Ok(Kept(app.cache().read(&caller.scope, &list).await?))
}

/// Writes a memory down. With `Idempotency-Key`, repeating the request does not write another one.
#[utoipa::path(post, path = "/memories", tag = "memories", security(("bearer" = ["write"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for a day")),
    request_body = MemoryRequest, responses(
    (status = 201, body = Memory),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn create(
    State(app): State<App>,
    Writer(caller): Writer,
    key: Key,
    body: Body<MemoryRequest>,
) -> Result<Answer<Memory>, ApiError> {
    let mut fields = Fields::default();
    let note = fields.check("content", Note::parse(&body.value.content));
    let memory_type = match &body.value.memory_type {
        Some(text) => fields.check("memory_type", MemoryType::parse(text)),
        None => Some(MemoryType::default()),
    };
    let (Some(note), Some(memory_type)) = (note, memory_type) else {
        return Err(fields.into_error());
    };
    let key = key.of(&caller, &body);
    let create = CreateMemory {
        id: entropy::id(),
        user_id: caller.person.user_id,
        memory_type,
        note,
        embed: app.config().embeddings.url.is_some(),
    };
    let written = app.database().write_once(caller.scope, create, key).await?;
    let address = format!("/api/v1/memories/{}", written.output.id);
    Ok(Answer::written(&app, StatusCode::CREATED, written).located(address))
}

/// How long a search waits for the question's vector; without it, it searches by words.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is looked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// Words or a question, at most 1,000 characters.
    pub q: String,
    /// Most memories, 1 to 100; 10 if absent.
    pub limit: Option<String>,
}

/// How a search was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By words.
    Lexical,
    /// By words and by meaning.
    Hybrid,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchAnswer {
    /// How it was searched.
    pub mode: Mode,
    /// Whether every memory was compared, as it always is up to 50,000 of a person.
    pub exact: bool,
    /// Where not every memory was compared: the share of the truly nearest that such searches find, as the last of them that were compared
    /// with exact answers did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// Memories, the best first.
    pub items: Vec<Match>,
}

/// Searches the caller's memories, by words, and by meaning where an endpoint for embeddings is configured and answers.
#[utoipa::path(get, path = "/memories/search", tag = "memories", security(("bearer" = ["read"])), params(SearchQuery), responses(
    (status = 200, body = SearchAnswer),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn search(
    State(app): State<App>,
    caller: Caller,
    uri: axum::http::Uri,
) -> Result<Answer<SearchAnswer>, ApiError> {
    let asked: SearchQuery = query(&uri)?;
    let mut fields = Fields::default();
    let question = fields.check("q", Question::parse(&asked.q));
    let limit = asked.limit.map(|text| text.parse::<u16>()).transpose();
    let limit = fields.check("limit", limit.map_err(|_| "must be a whole number"));
    let limit = limit.and_then(|limit| fields.check("limit", found_limit(limit)));
    let (Some(question), Some(limit)) = (question, limit) else {
        return Err(fields.into_error());
    };
    let meaning = meaning(&app, &question, caller.scope.deadline).await;
    let mode = if meaning.is_some() {
        Mode::Hybrid
    } else {
        Mode::Lexical
    };
    let search = SearchMemories {
        user_id: caller.person.user_id,
        question,
        meaning,
        limit,
        sample: app.recalls().due(app.scale().sampled, entropy::uniform()),
    };
    let (found, served) = app.database().read(&caller.scope, &search).await?;
    if mode == Mode::Hybrid {
        app.metrics().search.count(found.how);
    }
    let recall = recall(&app, found.how);
    let answer = SearchAnswer {
        mode,
        exact: !matches!(found.how, How::Approximately { .. }),
        recall,
        items: found.items,
    };
    Ok(Answer::read((answer, served)))
}

/// What to expect of a search that did not compare everything.
fn recall(app: &App, how: How) -> Option<f64> {
    let How::Approximately { recall } = how else {
        return None;
    };
    if let Some(recall) = recall {
        app.recalls().note(recall);
    }
    app.recalls().mean()
}

/// The question as a vector, if an endpoint is configured and answers in time.
async fn meaning(app: &App, question: &Question, deadline: Instant) -> Option<Meaning> {
    let endpoint = app.endpoint()?;
    let deadline = deadline.min(Instant::now() + PATIENCE);
    match endpoint.embed(&[question.as_str()], deadline).await {
        Ok(vectors) => Some(Meaning {
            model: endpoint.space(),
            vector: vectors.into_iter().next()?,
        }),
        Err(error) => {
            tracing::warn!(%error, "a search is done by words only");
            None
        }
    }
}

/// One memory.
#[utoipa::path(get, path = "/memories/{id}", tag = "memories", security(("bearer" = ["read"])),
    params(("id" = uuid::Uuid, Path)), responses(
    (status = 200, body = Memory),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn find(State(app): State<App>, caller: Caller, Id(id): Id) -> Result<Answer<Memory>, ApiError> {
    let find = FindMemory {
        user_id: caller.person.user_id,
        id,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &find).await?))
}

/// Deletes a memory, for good.
#[utoipa::path(delete, path = "/memories/{id}", tag = "memories", security(("bearer" = ["write"])),
    params(("id" = uuid::Uuid, Path)), responses(
    (status = 204, description = "It is gone"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn delete(State(app): State<App>, Writer(caller): Writer, Id(id): Id) -> Result<Answer<()>, ApiError> {
    let delete = DeleteMemory {
        user_id: caller.person.user_id,
        id,
    };
    let written = app.database().write(caller.scope, delete).await?;
    Ok(Answer::written(&app, StatusCode::NO_CONTENT, written).empty())
}
