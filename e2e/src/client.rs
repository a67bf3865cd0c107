//! A client of the API, as small as a person's `curl` and `websocat`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Longer than any request may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// An answer of the API.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers, in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body; null where it is none or no JSON.
    pub body: Value,
}

impl Answer {
    /// The answer if it is a success; else an error with what the API said.
    pub fn success(self) -> Result<Self> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        bail!("the API answered {}: {}", self.status, self.body)
    }

    /// A text field of the body.
    pub fn text(&self, pointer: &str) -> Result<String> {
        let field = self.body.pointer(pointer).and_then(Value::as_str);
        Ok(field
            .with_context(|| format!("the answer has no {pointer}: {}", self.body))?
            .to_owned())
    }
}

/// A client for one server, with or without a token.
#[derive(Debug, Clone)]
pub struct Client {
    address: String,
    token: Option<String>,
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// A client of the server at `HOST:PORT`.
    pub fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            token: None,
            http: HttpClient::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// The same with a token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// The same at another server.
    #[must_use]
    pub fn at(&self, address: &str) -> Self {
        Self {
            address: address.to_owned(),
            ..self.clone()
        }
    }

    /// Asks.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        self.send(Method::GET, path, None, headers).await
    }

    /// Posts JSON.
    pub async fn post(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Result<Answer> {
        self.send(Method::POST, path, Some(body), headers).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let request = request
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(bytes)))?;
        let exchange = async {
            let response = self
                .http
                .request(request)
                .await
                .context("the API did not answer")?;
            let status = response.status().as_u16();
            let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
            let headers = response
                .headers()
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), text(value)))
                .collect();
            let body = response.into_body().collect().await?.to_bytes();
            Ok(Answer {
                status,
                headers,
                body: serde_json::from_slice(&body).unwrap_or_default(),
            })
        };
        timeout(DEADLINE, exchange)
            .await
            .context("the API did not answer in time")?
    }

    /// Opens the stream of events and authenticates in its first frame.
    pub async fn events(&self) -> Result<Events> {
        let connect = connect_async(format!("ws://{}/ws", self.address));
        let (mut socket, _) = timeout(DEADLINE, connect)
            .await
            .context("no WebSocket in time")??;
        let token = self.token.as_deref().context("a WebSocket needs a token")?;
        let hello = serde_json::json!({"type": "connect", "token": token});
        socket.send(Message::text(hello.to_string())).await?;
        let mut events = Events { socket };
        events.next_of("connected", DEADLINE).await?;
        Ok(events)
    }
}

/// An open stream of events.
#[derive(Debug)]
pub struct Events {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Events {
    /// The next frame of a type; others are passed over.
    pub async fn next_of(&mut self, kind: &str, deadline: Duration) -> Result<Value> {
        let wait = async {
            while let Some(frame) = self.socket.next().await {
                let Message::Text(text) = frame? else { continue };
                let value: Value = serde_json::from_str(&text)?;
                if value["type"] == kind {
                    return Ok(value);
                }
            }
            bail!("the stream of events has ended")
        };
        timeout(deadline, wait)
            .await
            .with_context(|| format!("no frame of type {kind} in time"))?
    }
}
