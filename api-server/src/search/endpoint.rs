//! An OpenAI-compatible endpoint that turns texts into vectors. Every question has a deadline and its answer a bound.

use std::time::Duration;

use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use crds::config::Embeddings;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

/// Longest answer that is read.
const MOST_BYTES: usize = 32 << 20;
/// Characters of a text that are sent: models read a few thousand words.
const MOST_CHARACTERS: usize = 16_000;
/// Longest pause that an endpoint may ask for.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// No vectors came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// Later it may work; the endpoint may have said when.
    #[error("the embeddings endpoint is unavailable: {cause}")]
    Unavailable {
        /// Why.
        cause: String,
        /// When to ask again.
        after: Option<Duration>,
    },
    /// It refuses these texts, or what it answers makes no sense.
    #[error("the embeddings endpoint refuses: {0}")]
    Refused(String),
}

/// An endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: String,
    model: String,
    dimensions: Option<u32>,
    key: Option<SecretString>,
}

#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    input: Vec<String>,
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Datum>,
}

#[derive(Deserialize)]
struct Datum {
    index: usize,
    embedding: Vec<f32>,
}

impl Endpoint {
    /// The endpoint of the configuration, if there is one.
    pub fn of(settings: &Embeddings) -> Option<Result<Self, EmbedError>> {
        let url = settings.url.as_deref()?;
        Some(Self::new(url, settings))
    }

    fn new(url: &str, settings: &Embeddings) -> Result<Self, EmbedError> {
        let refused = |text: String| EmbedError::Refused(text);
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| refused(format!("no certificates: {error}")))?
            .https_or_http()
            .enable_http1()
            .build();
        let key = match &settings.api_key_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| refused(format!("{} cannot be read: {error}", path.display())))?;
                Some(SecretString::from(text.trim().to_owned()))
            }
            None => None,
        };
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            url: format!("{}/embeddings", url.trim_end_matches('/')),
            model: settings.model.clone().unwrap_or_default(),
            dimensions: settings.dimensions,
            key,
        })
    }

    /// What vectors belong to: the model, and the length where one was chosen. Vectors of different lengths cannot be compared, so a
    /// model of another length is another one.
    pub fn space(&self) -> String {
        match self.dimensions {
            Some(dimensions) => format!("{}@{dimensions}", self.model),
            None => self.model.clone(),
        }
    }

    /// Vectors of texts, in their order.
    pub async fn embed(&self, texts: &[&str], deadline: Instant) -> Result<Vec<Vec<f32>>, EmbedError> {
        timeout_at(deadline, self.ask(texts))
            .await
            .unwrap_or_else(|_| Err(unavailable("no answer in time", None)))
    }

    async fn ask(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let question = Question {
            model: &self.model,
            input: texts
                .iter()
                .map(|text| text.chars().take(MOST_CHARACTERS).collect())
                .collect(),
            encoding_format: "float",
            dimensions: self.dimensions,
        };
        let body = serde_json::to_vec(&question).map_err(|error| EmbedError::Refused(error.to_string()))?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", key.expose_secret()));
        }
        let request = request
            .body(Full::from(body))
            .map_err(|error| EmbedError::Refused(error.to_string()))?;
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| unavailable(&error.to_string(), None))?;
        let (parts, body) = response.into_parts();
        if parts.status != StatusCode::OK {
            return Err(failure(parts.status, parts.headers.get(header::RETRY_AFTER)));
        }
        let bytes = Limited::new(body, MOST_BYTES)
            .collect()
            .await
            .map_err(|error| unavailable(&error.to_string(), None))?
            .to_bytes();
        read(&bytes, texts.len(), self.dimensions)
    }
}

/// Reads an answer: a vector for each of so many texts, in their order.
pub fn read(bytes: &[u8], count: usize, dimensions: Option<u32>) -> Result<Vec<Vec<f32>>, EmbedError> {
    let answer: Answer = serde_json::from_slice(bytes)
        .map_err(|error| EmbedError::Refused(format!("its answer cannot be read: {error}")))?;
    sort(answer.data, count, dimensions)
}

fn unavailable(cause: &str, after: Option<Duration>) -> EmbedError {
    EmbedError::Unavailable {
        cause: cause.to_owned(),
        after,
    }
}

/// What a status other than 200 means. Bodies are not quoted: they may hold the texts.
fn failure(status: StatusCode, retry_after: Option<&axum::http::HeaderValue>) -> EmbedError {
    let after = retry_after
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE));
    let passes = status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::NOT_FOUND
        );
    if passes {
        // A wrong key or address is repaired by a person, and the texts are not to blame.
        unavailable(&format!("it answers {status}"), after)
    } else {
        EmbedError::Refused(format!("it answers {status}"))
    }
}

/// Brings vectors into the order of the texts; all have to be there, finite, and of the promised length.
fn sort(data: Vec<Datum>, count: usize, dimensions: Option<u32>) -> Result<Vec<Vec<f32>>, EmbedError> {
    let mut vectors = vec![Vec::new(); count];
    for Datum { index, embedding } in data {
        let sound = !embedding.is_empty()
            && embedding.iter().all(|part| part.is_finite())
            && dimensions.is_none_or(|wanted| usize::try_from(wanted) == Ok(embedding.len()));
        match vectors.get_mut(index) {
            Some(place) if sound && place.is_empty() => *place = embedding,
            _ => {
                return Err(EmbedError::Refused(
                    "its vectors are not those that were asked for".to_owned(),
                ));
            }
        }
    }
    if vectors.iter().any(Vec::is_empty) {
        return Err(EmbedError::Refused(
            "vectors are missing in its answer".to_owned(),
        ));
    }
    Ok(vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datum(index: usize, embedding: &[f32]) -> Datum {
        Datum {
            index,
            embedding: embedding.to_vec(),
        }
    }

    #[test]
    fn vectors_come_in_any_order_and_have_to_be_complete() {
        let sorted = sort(vec![datum(1, &[2.0]), datum(0, &[1.0])], 2, Some(1));
        assert_eq!(sorted.unwrap(), [[1.0], [2.0]]);
        for wrong in [
            vec![datum(0, &[1.0])],
            vec![datum(0, &[1.0]), datum(0, &[1.0])],
            vec![datum(0, &[1.0]), datum(2, &[1.0])],
            vec![datum(0, &[1.0]), datum(1, &[1.0, 2.0])],
            vec![datum(0, &[1.0]), datum(1, &[f32::NAN])],
        ] {
            assert!(sort(wrong, 2, Some(1)).is_err());
        }
    }

    #[test]
    fn a_status_says_whether_to_try_again() {
        let value = axum::http::HeaderValue::from_static("7");
        assert_eq!(
            failure(StatusCode::TOO_MANY_REQUESTS, Some(&value)),
            unavailable("it answers 429 Too Many Requests", Some(Duration::from_secs(7)))
        );
        assert!(matches!(
            failure(StatusCode::BAD_GATEWAY, None),
            EmbedError::Unavailable { .. }
        ));
        assert!(matches!(
            failure(StatusCode::BAD_REQUEST, None),
            EmbedError::Refused(_)
        ));
    }
}
