//! Errors as clients see them: RFC 9457 problem details. This is the only place that maps failures to status codes;
//! what is inside is logged once, with the request id, and never shown.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sqlx::error::DatabaseError;
use utoipa::ToSchema;

use crate::hashing::HashingError;
use crate::routing::{StoreError, is_busy};

/// Content type of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A problem, as RFC 9457 describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Identifies the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// Status code.
    pub status: u16,
    /// This occurrence in words.
    pub detail: String,
    /// The kind for programs.
    pub code: String,
    /// The request; quote it when asking for help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What is wrong with each field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request cannot be read.
    #[error("bad request: {0}")]
    Malformed(String),
    /// Fields are not acceptable.
    #[error("invalid fields")]
    Invalid(Vec<FieldError>),
    /// Nobody, or nobody we know.
    #[error("unauthorized: {0}")]
    Unauthorized(&'static str),
    /// Known, but not allowed.
    #[error("forbidden: {0}")]
    Forbidden(&'static str),
    /// Not there, or not the caller's.
    #[error("not found")]
    NotFound,
    /// The method does not exist here.
    #[error("method not allowed")]
    NoMethod,
    /// Something unique is taken.
    #[error("conflict: {0}")]
    Conflict(&'static str),
    /// The body is too large.
    #[error("body is too large")]
    TooLarge,
    /// The body is of another type.
    #[error("unsupported media type")]
    MediaType,
    /// Later it may work.
    #[error("unavailable: {0}")]
    Unavailable(&'static str),
    /// The write may have happened.
    #[error("outcome unknown")]
    Unknown,
    /// The database has no room for a write.
    #[error("storage is full")]
    StorageFull,
    /// Too often; later it will work.
    #[error("too many: {why}")]
    TooMany {
        /// What there is too much of.
        why: &'static str,
        /// When it will work.
        retry_after: Duration,
    },
    /// The body did not arrive in time.
    #[error("slow body")]
    SlowBody,
    /// The request took too long.
    #[error("timeout")]
    Timeout,
    /// A mistake of ours.
    #[error("internal error")]
    Internal(String),
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing => Self::NotFound,
            StoreError::Taken(_) => Self::Conflict("It exists already."),
            StoreError::Denied(why) => Self::Forbidden(why),
            StoreError::Conflict(why) => Self::Conflict(why),
            StoreError::KeyReused => Self::Invalid(vec![FieldError {
                field: "Idempotency-Key".to_owned(),
                message: "was used for another request".to_owned(),
            }]),
            StoreError::Unavailable(why) => {
                tracing::warn!(why, "request was refused, the database is unavailable");
                Self::Unavailable("The database cannot be reached at the moment.")
            }
            StoreError::Unknown => Self::Unknown,
            StoreError::Database(error) => Self::from_state(&error),
            other => Self::Internal(format!("{other:?}")),
        }
    }
}

impl From<HashingError> for ApiError {
    fn from(error: HashingError) -> Self {
        match error {
            HashingError::Overloaded => Self::Unavailable("Too many people log in at the moment."),
            HashingError::Failed => Self::Internal(error.to_string()),
        }
    }
}

impl ApiError {
    /// What the database itself says.
    fn from_state(error: &sqlx::Error) -> Self {
        let state = error.as_database_error().and_then(DatabaseError::code);
        match state.as_deref() {
            // disk_full
            Some("53100") => {
                tracing::error!(%error, "the database has no room left");
                Self::StorageFull
            }
            Some(_) if is_busy(error) => {
                tracing::warn!(%error, "request was refused, the database is too busy");
                Self::Unavailable("The database is too busy at the moment.")
            }
            _ => Self::Internal(format!("{error:?}")),
        }
    }

    /// One field is not acceptable.
    pub fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::Invalid(vec![FieldError {
            field: field.to_owned(),
            message: problem.to_string(),
        }])
    }

    /// Status code, the kind for programs, and the kind in words.
    const fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::Malformed(_) => (S::BAD_REQUEST, "malformed", "The request cannot be read"),
            Self::Invalid(_) => (S::UNPROCESSABLE_ENTITY, "invalid", "The request is not valid"),
            Self::Unauthorized(_) => (S::UNAUTHORIZED, "unauthorized", "Not authenticated"),
            Self::Forbidden(_) => (S::FORBIDDEN, "forbidden", "Not allowed"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "Not found"),
            Self::NoMethod => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed"),
            Self::Conflict(_) => (S::CONFLICT, "conflict", "Conflict"),
            Self::TooLarge => (S::PAYLOAD_TOO_LARGE, "too_large", "The request is too large"),
            Self::MediaType => (S::UNSUPPORTED_MEDIA_TYPE, "media_type", "Unsupported media type"),
            Self::Unavailable(_) => (S::SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable"),
            Self::Unknown => (
                S::SERVICE_UNAVAILABLE,
                "outcome_unknown",
                "The outcome is unknown",
            ),
            Self::StorageFull => (S::SERVICE_UNAVAILABLE, "storage_full", "No room is left"),
            Self::TooMany { .. } => (S::TOO_MANY_REQUESTS, "too_many", "Too many requests"),
            Self::SlowBody => (S::REQUEST_TIMEOUT, "slow_body", "The body did not arrive in time"),
            Self::Timeout => (S::SERVICE_UNAVAILABLE, "timeout", "The request took too long"),
            Self::Internal(_) => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }

    /// This occurrence in words, for the caller.
    fn detail(&self) -> &str {
        match self {
            Self::Malformed(why) => why,
            Self::Unauthorized(why) | Self::Forbidden(why) | Self::Conflict(why) | Self::Unavailable(why) => {
                why
            }
            Self::Invalid(_) => "See `errors` for each field.",
            Self::NotFound => "It does not exist, or it is not yours.",
            Self::NoMethod => "This address has no such method.",
            Self::TooLarge => "Send a smaller body.",
            Self::MediaType => "Send `Content-Type: application/json`.",
            Self::Unknown => {
                "The change may or may not have happened. Repeat the request with an Idempotency-Key."
            }
            Self::StorageFull => "Nothing was changed, because the database has no room left. Reading works.",
            Self::TooMany { why, .. } => why,
            Self::SlowBody => "Send the body faster.",
            Self::Timeout => "The change may or may not have happened.",
            Self::Internal(_) => "This is a mistake of the server; quote the request id.",
        }
    }
}

impl IntoResponse for ApiError {
    /// The body is written by the outermost layer, which knows the request id.
    fn into_response(self) -> Response {
        let (status, code, title) = self.kind();
        let detail = self.detail().to_owned();
        if let Self::Internal(cause) = &self {
            tracing::error!(cause, "request failed");
        }
        let retry = match &self {
            // Not where the change may have happened: whoever repeats it unasked could do it twice.
            Self::Unavailable(_) => Some(1),
            // A person has to make room.
            Self::StorageFull => Some(30),
            Self::TooMany { retry_after, .. } => Some(retry_after.as_millis().div_ceil(1_000).max(1)),
            _ => None,
        };
        let unauthorized = matches!(self, Self::Unauthorized(_));
        let errors = if let Self::Invalid(errors) = self {
            errors
        } else {
            Vec::new()
        };
        let problem = Problem {
            kind: format!("https://tanka.dev/problems/{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
            code: code.to_owned(),
            request_id: None,
            errors,
        };
        let mut response = status.into_response();
        if let Some(seconds) = retry
            && let Ok(value) = HeaderValue::from_str(&seconds.to_string())
        {
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        if unauthorized {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(problem);
        response
    }
}

/// Answers addresses that do not exist.
pub async fn no_route() -> ApiError {
    ApiError::NotFound
}

/// Answers methods that do not exist.
pub async fn no_method() -> ApiError {
    ApiError::NoMethod
}

/// Collects what is wrong with the fields of a request, so that a person learns everything at once.
#[derive(Debug, Default)]
pub struct Fields(Vec<FieldError>);

impl Fields {
    /// Keeps a value that is good, or the reason why it is not.
    pub fn check<T>(&mut self, field: &str, parsed: Result<T, impl ToString>) -> Option<T> {
        parsed
            .map_err(|problem| {
                self.0.push(FieldError {
                    field: field.to_owned(),
                    message: problem.to_string(),
                });
            })
            .ok()
    }

    /// The error, unless everything was good.
    pub fn into_error(self) -> ApiError {
        ApiError::Invalid(self.0)
    }
}
