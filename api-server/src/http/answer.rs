//! Answers with the headers that tell who served them and how to read one's own writes.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::cache::{Found, Source};
use crate::domain::page::Page;
use crate::routing::{Served, Written};

/// Names the PostgreSQL instance that answered.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
/// What that instance was: `primary` or `replica`.
pub const SERVED_ROLE: HeaderName = HeaderName::from_static("x-served-role");
/// Where a write is in the log; a read that carries it sees the write.
pub const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("x-consistency-token");
/// Whether the answer is that of an earlier request with the same key.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// An answer.
#[derive(Debug)]
pub struct Answer<T> {
    status: StatusCode,
    body: Option<T>,
    headers: Vec<(HeaderName, String)>,
}

impl<T> Answer<T> {
    /// The answer to a read.
    pub fn read((body, served): (T, Served)) -> Self {
        Self {
            status: StatusCode::OK,
            body: Some(body),
            headers: served_headers(served),
        }
    }

    /// The answer to a write.
    pub fn written(app: &App, status: StatusCode, written: Written<T>) -> Self {
        let mut headers = served_headers(written.served);
        headers.push((CONSISTENCY_TOKEN, written.position.to_token(app.keys())));
        if written.replayed {
            headers.push((REPLAYED, "true".to_owned()));
        }
        Self {
            status,
            body: Some(written.output),
            headers,
        }
    }

    /// The same answer with another body.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            status: self.status,
            body: self.body.map(change),
            headers: self.headers,
        }
    }

    /// The same answer without a body.
    #[must_use]
    pub fn empty(self) -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            body: None,
            headers: self.headers,
        }
    }

    /// The same answer with the address of what was made.
    #[must_use]
    pub fn located(mut self, address: String) -> Self {
        self.headers.push((axum::http::header::LOCATION, address));
        self
    }
}

fn served_headers(served: Served) -> Vec<(HeaderName, String)> {
    vec![
        (SERVED_ROLE, served.role.as_str().to_owned()),
        (SERVED_BY, served.instance),
    ]
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Some(body) => (self.status, Json(body)).into_response(),
            None => self.status.into_response(),
        };
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// Whether the answer was cached: `hit`, `miss` or `stale`.
pub const CACHE: HeaderName = HeaderName::from_static("x-cache");

/// The answer to a read that goes through the cache.
#[derive(Debug)]
pub struct Kept(pub Found);

impl IntoResponse for Kept {
    fn into_response(self) -> Response {
        let Found { json, source } = self.0;
        let kept = match &source {
            Source::Local | Source::Shared => "hit",
            Source::Database(_) => "miss",
            Source::Stale => "stale",
        };
        let mut response = (
            [
                (axum::http::header::CONTENT_TYPE, "application/json"),
                (CACHE, kept),
            ],
            json,
        )
            .into_response();
        if let Source::Database(served) = source {
            for (name, value) in served_headers(served) {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    response.headers_mut().insert(name, value);
                }
            }
        }
        response
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
pub struct List<T> {
    /// Rows.
    pub items: Vec<T>,
    /// Start of the next page, for `cursor`; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl<T> From<Page<T>> for List<T> {
    fn from(page: Page<T>) -> Self {
        Self {
            items: page.items,
            next_cursor: page.next.map(crate::domain::page::Cursor::encode),
        }
    }
}
