//! The Kubernetes API as JSON: cheap enough to be asked ten times a second, which kubectl is not.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::cluster::Cluster;

/// Time for one request, and for the proxy to start.
const DEADLINE: Duration = Duration::from_secs(20);

/// A client of a cluster's API server, through `kubectl proxy`.
#[derive(Debug)]
pub struct Kubernetes {
    address: String,
    http: HttpClient<HttpConnector, Full<Bytes>>,
    _proxy: Child,
}

impl Kubernetes {
    /// Starts the proxy, which ends with this value.
    pub async fn connect(cluster: &Cluster) -> Result<Self> {
        let mut proxy = cluster.proxy()?;
        let output = proxy.stdout.take().context("kubectl proxy has no output")?;
        let mut line = String::new();
        timeout(DEADLINE, BufReader::new(output).read_line(&mut line))
            .await
            .context("kubectl proxy did not start in time")??;
        let address = line
            .trim()
            .rsplit(' ')
            .next()
            .filter(|address| address.contains(':'))
            .with_context(|| format!("kubectl proxy said {line:?}"))?;
        Ok(Self {
            address: address.to_owned(),
            http: HttpClient::builder(TokioExecutor::new()).build_http(),
            _proxy: proxy,
        })
    }

    /// The object or list at a path; `None` when there is none.
    pub async fn find(&self, path: &str) -> Result<Option<Value>> {
        let (status, answer) = self.send(Method::GET, path, "application/json", None).await?;
        match status {
            404 => Ok(None),
            _ => checked(path, status, answer).map(Some),
        }
    }

    /// The object or list at a path.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.find(path)
            .await?
            .with_context(|| format!("{path} does not exist"))
    }

    /// Makes an object in the collection at a path.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value> {
        let (status, answer) = self
            .send(Method::POST, path, "application/json", Some(object))
            .await?;
        checked(path, status, answer)
    }

    /// Changes an object by a JSON merge patch.
    pub async fn merge(&self, path: &str, change: &Value) -> Result<Value> {
        let (status, answer) = self
            .send(Method::PATCH, path, "application/merge-patch+json", Some(change))
            .await?;
        checked(path, status, answer)
    }

    /// Applies fields of an object in the name of a field manager, by force.
    pub async fn apply(&self, path: &str, manager: &str, object: &Value) -> Result<Value> {
        let path = format!("{path}?fieldManager={manager}&force=true");
        let (status, answer) = self
            .send(Method::PATCH, &path, "application/apply-patch+yaml", Some(object))
            .await?;
        checked(&path, status, answer)
    }

    /// Deletes an object, with what depends on it in the background. One that is gone already is fine.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.delete_with(path, "Background").await
    }

    /// Deletes an object and leaves what depends on it.
    pub async fn delete_orphaning(&self, path: &str) -> Result<()> {
        self.delete_with(path, "Orphan").await
    }

    async fn delete_with(&self, path: &str, propagation: &str) -> Result<()> {
        let options = json!({"propagationPolicy": propagation});
        let (status, answer) = self
            .send(Method::DELETE, path, "application/json", Some(&options))
            .await?;
        if status == 404 {
            return Ok(());
        }
        checked(path, status, answer).map(drop)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value)> {
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", content)
            .body(Full::new(Bytes::from(bytes)))?;
        let exchange = async {
            let response = self.http.request(request).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            let text = String::from_utf8_lossy(&body);
            let value = serde_json::from_slice(&body).unwrap_or_else(|_| json!({"message": text}));
            anyhow::Ok((status, value))
        };
        timeout(DEADLINE, exchange)
            .await
            .with_context(|| format!("the API server did not answer in time: {path}"))?
            .with_context(|| format!("the API server did not answer: {path}"))
    }
}

fn checked(path: &str, status: u16, body: Value) -> Result<Value> {
    if (200..300).contains(&status) {
        return Ok(body);
    }
    bail!(
        "{path}: {status} {}",
        body["message"].as_str().unwrap_or_default()
    )
}
