//! Servers of others, on loopback, and an API server that may reach them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::app::{Builder, TestApp, until};

/// A server whose workers reach loopback. All tests about jobs use it, because a worker takes the jobs of every test.
pub const WORKING: &str = "jobs: {concurrency: 8, lease: 4s}\noutbound: {allowedNetworks: [127.0.0.0/8]}";

pub fn working() -> Builder {
    TestApp::builder().config(WORKING)
}

/// Serves on a free port.
pub async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A request that an endpoint got.
#[derive(Debug, Clone)]
pub struct Received {
    pub headers: HeaderMap,
    pub body: String,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// How an endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Fine,
    Says(StatusCode),
    Redirects,
    Hangs,
    /// Takes it, and talks for longer than anybody listens.
    Talks,
}

/// An endpoint for webhooks.
#[derive(Clone)]
pub struct Endpoint {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    mood: Arc<Mutex<Mood>>,
}

impl Endpoint {
    pub async fn start(mood: Mood) -> Self {
        let mut endpoint = Self {
            url: String::new(),
            received: Arc::default(),
            mood: Arc::new(Mutex::new(mood)),
        };
        let router = Router::new().fallback(take).with_state(endpoint.clone());
        endpoint.url = format!("http://{}/hook", serve(router).await);
        endpoint
    }

    pub fn becomes(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until so many requests came.
    pub async fn got(&self, count: usize) -> Vec<Received> {
        until(&format!("{count} requests came"), async || {
            self.received().len() >= count
        })
        .await;
        self.received()
    }
}

async fn take(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    endpoint.received.lock().unwrap().push(Received { headers, body });
    let mood = *endpoint.mood.lock().unwrap();
    match mood {
        Mood::Fine => StatusCode::OK.into_response(),
        Mood::Says(status) => status.into_response(),
        Mood::Redirects => (
            StatusCode::FOUND,
            [("location", endpoint.url.clone() + "/elsewhere")],
        )
            .into_response(),
        Mood::Talks => "thank you ".repeat(100_000).into_response(),
        Mood::Hangs => std::future::pending().await,
    }
}
