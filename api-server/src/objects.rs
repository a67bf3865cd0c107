//! An S3-compatible store, for the chunks of files where the configuration names one. Every request has a deadline, and none holds more
//! than a chunk.

pub mod files;
pub mod sweep;

use std::path::Path;
use std::time::Duration;

use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use crds::config::ObjectStore;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use tokio::time::{Instant, timeout_at};

/// How long a signed address is good; it is used at once.
const SIGNED_FOR: Duration = Duration::from_mins(5);
/// Longest list or refusal that is read.
const MOST_TEXT: usize = 4 << 20;
/// Objects of one list.
const PAGE: usize = 500;

/// The store does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The configuration of the store cannot be used.
    #[error("the object store is not usable: {0}")]
    Unusable(String),
    /// It does not answer, or not in time.
    #[error("the object store does not answer: {0}")]
    Unavailable(String),
    /// It answers something else.
    #[error("the object store answered {0}")]
    Refused(StatusCode),
}

/// A bucket of a store.
#[derive(Clone)]
pub struct Objects {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    bucket: Bucket,
    credentials: Credentials,
    prefix: String,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects")
            .field("bucket", &self.bucket.base_url().as_str())
            .finish_non_exhaustive()
    }
}

impl Objects {
    /// The store of a configuration.
    pub fn new(settings: &ObjectStore) -> Result<Self, ObjectError> {
        let unusable = |error: String| ObjectError::Unusable(error);
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| unusable(format!("no certificates: {error}")))?
            .https_or_http()
            .enable_http1()
            .build();
        let endpoint = settings
            .endpoint
            .parse()
            .map_err(|_| unusable(format!("{} is no address", settings.endpoint)))?;
        let style = if settings.path_style {
            UrlStyle::Path
        } else {
            UrlStyle::VirtualHost
        };
        let bucket = Bucket::new(endpoint, style, settings.bucket.clone(), settings.region.clone())
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            bucket,
            credentials: Credentials::new(
                secret(&settings.access_key_file)?,
                secret(&settings.secret_key_file)?,
            ),
            prefix: settings.prefix.clone(),
        })
    }

    /// Stores an object, or replaces it.
    pub async fn put(&self, name: &str, data: Bytes, deadline: Instant) -> Result<(), ObjectError> {
        let key = self.key(name);
        let action = self.bucket.put_object(Some(&self.credentials), &key);
        let request = Request::builder()
            .method(Method::PUT)
            .uri(action.sign(SIGNED_FOR).as_str())
            .body(Full::from(data));
        self.ask(request, 0, deadline).await.map(|_| ())
    }

    /// Bytes of an object, from the first of these up to and without the second.
    pub async fn get(
        &self,
        name: &str,
        (from, to): (u64, u64),
        deadline: Instant,
    ) -> Result<Bytes, ObjectError> {
        let key = self.key(name);
        let action = self.bucket.get_object(Some(&self.credentials), &key);
        let request = Request::builder()
            .uri(action.sign(SIGNED_FOR).as_str())
            .header(header::RANGE, format!("bytes={from}-{}", to.saturating_sub(1)))
            .body(Full::default());
        let most = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        let bytes = self.ask(request, most, deadline).await?;
        if bytes.len() == most {
            Ok(bytes)
        } else {
            Err(ObjectError::Unavailable(format!(
                "{} of {most} bytes came",
                bytes.len()
            )))
        }
    }

    /// Deletes everything whose name begins so.
    pub async fn delete_all(&self, folder: &str, deadline: Instant) -> Result<(), ObjectError> {
        loop {
            let mut list = self.bucket.list_objects_v2(Some(&self.credentials));
            list.with_prefix(self.key(folder));
            list.with_max_keys(PAGE);
            let request = Request::builder()
                .uri(list.sign(SIGNED_FOR).as_str())
                .body(Full::default());
            let text = self.ask(request, MOST_TEXT, deadline).await?;
            let list = ListObjectsV2::parse_response(&String::from_utf8_lossy(&text))
                .map_err(|error| ObjectError::Unavailable(format!("its list cannot be read: {error}")))?;
            for object in &list.contents {
                let action = self.bucket.delete_object(Some(&self.credentials), &object.key);
                let request = Request::builder()
                    .method(Method::DELETE)
                    .uri(action.sign(SIGNED_FOR).as_str())
                    .body(Full::default());
                self.ask(request, MOST_TEXT, deadline).await?;
            }
            // What was listed is gone, so the next list begins where this one ended.
            if list.contents.len() < PAGE {
                return Ok(());
            }
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Asks; answers the body of a success. Addresses hold signatures, so they are not quoted in errors.
    async fn ask(
        &self,
        request: Result<Request<Full<Bytes>>, axum::http::Error>,
        most: usize,
        deadline: Instant,
    ) -> Result<Bytes, ObjectError> {
        let unavailable = |error: &dyn std::fmt::Display| ObjectError::Unavailable(error.to_string());
        let request = request.map_err(|error| ObjectError::Unusable(error.to_string()))?;
        let work = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| unavailable(&error))?;
            let status = response.status();
            if !status.is_success() {
                return Err(ObjectError::Refused(status));
            }
            let body = Limited::new(response.into_body(), most.max(MOST_TEXT));
            Ok(body
                .collect()
                .await
                .map_err(|error| unavailable(&error))?
                .to_bytes())
        };
        timeout_at(deadline, work)
            .await
            .unwrap_or_else(|_| Err(ObjectError::Unavailable("no answer in time".to_owned())))
    }
}

fn secret(path: &Path) -> Result<String, ObjectError> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|error| ObjectError::Unusable(format!("{} cannot be read: {error}", path.display())))
}
