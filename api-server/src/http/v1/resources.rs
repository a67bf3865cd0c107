//! Files: uploaded and downloaded as streams, a chunk at a time.

use std::time::Duration;

use axum::body::Body as Content;
use axum::extract::multipart::{Field, Multipart};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::domain::resource::{Part, content_type, name, part};
use crate::entropy;
use crate::http::answer::{Answer, List};
use crate::http::error::{ApiError, Problem};
use crate::http::extract::{Caller, Id, PageQuery, Paging, Writer};
use crate::objects::files::Files;
use crate::routing::{Scope, StoreError};
use crate::store::resources::{
    BeginResource, DeleteResource, FindResource, FinishResource, ListResources, Resource,
};

/// Time to read a chunk of a download.
const CHUNK_LIMIT: Duration = Duration::from_secs(10);

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    // The handler counts the bytes of a file itself, against a limit of its own.
    let upload = OpenApiRouter::new()
        .routes(routes!(list, upload))
        .layer(DefaultBodyLimit::disable());
    upload.routes(routes!(find, delete)).routes(routes!(content))
}

/// A file to upload.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes a form that is read part by part")]
pub struct Upload {
    /// The workroom whose members are to see it. It comes before the file.
    workroom_id: Option<Uuid>,
    /// The file.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// Files that the caller may see: the own ones and those of the caller's workrooms, newest first.
#[utoipa::path(get, path = "/resources", tag = "resources", security(("bearer" = ["read"])), params(PageQuery), responses(
    (status = 200, body = List<Resource>),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Paging(page): Paging,
) -> Result<Answer<List<Resource>>, ApiError> {
    let list = ListResources {
        user_id: caller.person.user_id,
        page,
    };
    Ok(Answer::read(app.database().read(&caller.scope, &list).await?))
}

/// Uploads a file, as a form with the parts `workroom_id`, if it belongs to one, and then `file`.
#[utoipa::path(post, path = "/resources", tag = "resources", security(("bearer" = ["write"])),
    request_body(content = Upload, content_type = "multipart/form-data"), responses(
    (status = 201, body = Resource),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 413, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The store of files is away", body = Problem, content_type = "application/problem+json"),
))]
async fn upload(
    State(app): State<App>,
    Writer(caller): Writer,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Answer<Resource>, ApiError> {
    let mut form = form.map_err(|_| ApiError::field("file", "must be sent as multipart/form-data"))?;
    let mut workroom_id = None;
    while let Some(mut field) = form.next_field().await.map_err(|error| broken(&error))? {
        match field.name() {
            Some("workroom_id") => {
                let text = short(&mut field).await?;
                let id = text.trim().parse::<Uuid>();
                workroom_id =
                    Some(id.map_err(|_| ApiError::field("workroom_id", "must be the id of a workroom"))?);
            }
            Some("file") => return store(&app, &caller, workroom_id, field).await,
            _ => {}
        }
    }
    Err(ApiError::field("file", "is missing"))
}

fn broken(error: &axum::extract::multipart::MultipartError) -> ApiError {
    ApiError::Malformed(format!("The form cannot be read: {}", error.body_text()))
}

/// A part that is a short text.
async fn short(field: &mut Field<'_>) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > 100 {
            return Err(ApiError::field("workroom_id", "is too long"));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Stores a file. What is left of one that fails is removed at once, or by the sweep if the client has left.
async fn store(
    app: &App,
    caller: &Caller,
    workroom_id: Option<Uuid>,
    field: Field<'_>,
) -> Result<Answer<Resource>, ApiError> {
    let file_name =
        name(field.file_name().unwrap_or("file")).map_err(|problem| ApiError::field("file", problem))?;
    let config = app.config();
    let kind = field.content_type().unwrap_or("application/octet-stream");
    let kind = content_type(kind, &config.resources.content_types)
        .map_err(|problem| ApiError::field("file", problem))?;
    let files = Files::for_new(app)?;
    let begin = BeginResource {
        id: entropy::id(),
        user_id: caller.person.user_id,
        workroom_id,
        name: file_name,
        content_type: kind,
        stored_in: files.stored_in(),
    };
    let id = begin.id;
    app.database().write(caller.scope, begin).await?;
    match receive(&files, caller, id, field, config.resources.max_size.bytes()).await {
        Ok((size, digest)) => {
            let finish = FinishResource {
                id,
                user_id: caller.person.user_id,
                size,
                digest,
            };
            let written = app.database().write(caller.scope, finish).await?;
            let address = format!("/api/v1/resources/{id}");
            Ok(Answer::written(app, StatusCode::CREATED, written).located(address))
        }
        Err(error) => {
            let user_id = caller.person.user_id;
            if let Err(left) = app
                .database()
                .write(caller.scope, DeleteResource { user_id, id })
                .await
            {
                tracing::debug!(error = ?left, "an upload that failed is left to the sweep");
            }
            Err(error)
        }
    }
}

/// Receives a file chunk by chunk; answers its size and digest.
async fn receive(
    files: &Files,
    caller: &Caller,
    id: Uuid,
    mut field: Field<'_>,
    most: u64,
) -> Result<(i64, [u8; 32]), ApiError> {
    let chunk = files.stored_in().chunk();
    let (mut held, mut place, mut size) = (Vec::new(), 0_i32, 0_u64);
    let mut digest = Sha256::new();
    while let Some(mut bytes) = field.chunk().await.map_err(|error| broken(&error))? {
        size += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if size > most {
            return Err(ApiError::TooLarge);
        }
        digest.update(&bytes);
        while !bytes.is_empty() {
            let taken = bytes.split_to(bytes.len().min(chunk - held.len()));
            held.extend_from_slice(&taken);
            if held.len() == chunk {
                files
                    .put(caller.scope, id, place, std::mem::take(&mut held))
                    .await?;
                place += 1;
            }
        }
    }
    if !held.is_empty() {
        files.put(caller.scope, id, place, held).await?;
    }
    Ok((i64::try_from(size).unwrap_or(i64::MAX), digest.finalize().into()))
}

/// What is known of a file.
#[utoipa::path(get, path = "/resources/{id}", tag = "resources", security(("bearer" = ["read"])), params(("id" = uuid::Uuid, Path)),
    responses(
    (status = 200, body = Resource),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn find(State(app): State<App>, caller: Caller, Id(id): Id) -> Result<Answer<Resource>, ApiError> {
    let user_id = caller.person.user_id;
    let find = FindResource { user_id, id };
    Ok(Answer::read(app.database().read(&caller.scope, &find).await?))
}

/// Deletes a file, for good. Only who uploaded it may.
#[utoipa::path(delete, path = "/resources/{id}", tag = "resources", security(("bearer" = ["write"])), params(("id" = uuid::Uuid, Path)),
    responses(
    (status = 204, description = "It is gone"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn delete(State(app): State<App>, Writer(caller): Writer, Id(id): Id) -> Result<Answer<()>, ApiError> {
    let user_id = caller.person.user_id;
    let written = app
        .database()
        .write(caller.scope, DeleteResource { user_id, id })
        .await?;
    Ok(Answer::written(&app, StatusCode::NO_CONTENT, written).empty())
}

/// The content of a file, or with `Range` one part of it.
#[utoipa::path(get, path = "/resources/{id}/content", tag = "resources", security(("bearer" = ["read"])),
    params(("id" = uuid::Uuid, Path)), responses(
    (status = 200, description = "All of it", content_type = "application/octet-stream"),
    (status = 206, description = "A part of it", content_type = "application/octet-stream"),
    (status = 304, description = "It is what `If-None-Match` names"),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 416, description = "It has no such part"),
    (status = 503, description = "The store of files is away", body = Problem, content_type = "application/problem+json"),
))]
async fn content(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id,
    asked: HeaderMap,
) -> Result<Response, ApiError> {
    let user_id = caller.person.user_id;
    let (resource, served) = app
        .database()
        .read(&caller.scope, &FindResource { user_id, id })
        .await?;
    let scope = Scope {
        // Another replica may be behind this one.
        at_least: served.position,
        primary_only: served.position.is_none(),
        ..caller.scope
    };
    let text = |name: header::HeaderName| asked.get(name).and_then(|value| value.to_str().ok());
    let tag = format!("\"{}\"", resource.sha256);
    if text(header::IF_NONE_MATCH).is_some_and(|tags| matches(tags, &tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let size = resource.size.unsigned_abs();
    let wanted = text(header::RANGE).filter(|_| text(header::IF_RANGE).is_none_or(|known| known == tag));
    let (status, start, end) = match part(wanted, size) {
        Part::Whole => (StatusCode::OK, 0, size),
        Part::Range(start, end) => (StatusCode::PARTIAL_CONTENT, start, end),
        Part::Unsatisfiable => {
            let all = format!("bytes */{size}");
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, all)]).into_response());
        }
    };
    let files = Files::of(&app, &resource)?;
    // Before anything is promised: a store that is away can still be told by the status.
    let first = piece(&files, scope, shape(&resource), (start, end)).await;
    let first = first.map_err(|error| files.explain(error))?;
    let content = send(files, scope, shape(&resource), first, (start, end));
    let mut response = (status, content).into_response();
    let mut set = |name: header::HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::ETAG, tag);
    set(header::ACCEPT_RANGES, "bytes".to_owned());
    set(header::CONTENT_LENGTH, (end - start).to_string());
    set(header::CONTENT_TYPE, resource.content_type);
    // Compressed it would have another length and other ranges.
    set(header::CONTENT_ENCODING, "identity".to_owned());
    set(header::CONTENT_DISPOSITION, disposition(&resource.name));
    if status == StatusCode::PARTIAL_CONTENT {
        set(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1));
    }
    Ok(response)
}

fn matches(tags: &str, tag: &str) -> bool {
    tags.trim() == "*"
        || tags
            .split(',')
            .any(|one| one.trim().trim_start_matches("W/") == tag)
}

/// Always to be saved, never to be shown: what people upload must not run as a page of this address.
fn disposition(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            encoded.push(char::from(byte));
        } else {
            use std::fmt::Write;
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    format!("attachment; filename*=UTF-8''{encoded}")
}

/// The id of a file and the size of its chunks.
fn shape(resource: &Resource) -> (Uuid, u64) {
    (resource.id, u64::from(resource.chunk_size.unsigned_abs()).max(1))
}

/// Bytes of a file from a place on; none at the end.
async fn piece(
    files: &Files,
    scope: Scope,
    shape: (Uuid, u64),
    (at, end): (u64, u64),
) -> Result<Bytes, StoreError> {
    if at >= end {
        return Ok(Bytes::new());
    }
    let scope = Scope {
        deadline: Instant::now() + CHUNK_LIMIT,
        ..scope
    };
    let piece = files.get(scope, shape, at, end).await?;
    if piece.is_empty() {
        return Err(StoreError::Corrupt(
            "a chunk is shorter than it should be".to_owned(),
        ));
    }
    Ok(piece)
}

/// Streams bytes of a file, the first of which were read already; a piece is read when the one before it was taken.
fn send(files: Files, scope: Scope, shape: (Uuid, u64), first: Bytes, (start, end): (u64, u64)) -> Content {
    let length = |piece: &Bytes| u64::try_from(piece.len()).unwrap_or_default();
    let begin = start + length(&first);
    let rest = stream::try_unfold(begin, move |at| {
        let files = files.clone();
        async move {
            let piece = piece(&files, scope, shape, (at, end)).await?;
            let next = at + length(&piece);
            Ok::<_, StoreError>((!piece.is_empty()).then_some((piece, next)))
        }
    });
    Content::from_stream(stream::iter((!first.is_empty()).then_some(Ok(first))).chain(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_and_tags_compared() {
        assert_eq!(
            disposition("a \"b\"\r\nü.txt"),
            "attachment; filename*=UTF-8''a%20%22b%22%0D%0A%C3%BC.txt"
        );
        assert!(matches("W/\"a\", \"b\"", "\"b\"") && matches("*", "\"b\"") && !matches("\"a\"", "\"b\""));
    }
}
