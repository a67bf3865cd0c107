//! A WebSocket client.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::app::{PATIENCE, Person, TestApp, Written};

pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    written: Written,
}

/// What a socket received.
#[derive(Debug, PartialEq)]
pub enum Received {
    Frame(Value),
    Closed(u16, String),
}

impl Socket {
    /// Opens a socket and sends the first frame.
    pub async fn open(app: &TestApp, first: Value) -> Self {
        Self::at(&app.running.address.to_string(), first).await
    }

    /// The same at a server that may be another process.
    pub async fn at(address: &str, first: Value) -> Self {
        let url = format!("ws://{address}/api/v1/ws");
        let (stream, _) = connect_async(url).await.unwrap();
        let mut socket = Self {
            stream,
            written: Written::default(),
        };
        socket.send(first).await;
        socket
    }

    /// Opens a socket of a person, who was at a place of the own channel, or wants what comes after the own last write; answers from
    /// where that channel follows.
    pub async fn connect(app: &TestApp, person: &Person, resume: Option<Value>) -> (Self, Value) {
        let mut first = json!({"type": "connect", "token": person.token});
        if let Some(resume) = resume {
            first["resume"] = json!({format!("user:{}", person.user_id): resume});
        }
        if let Some(token) = person.written.token() {
            first["consistency_token"] = token.into();
        }
        let mut socket = Self::open(app, first).await;
        socket.written = person.written.clone();
        let connected = socket.frame().await;
        assert_eq!(connected["type"], "connected", "{connected}");
        (socket, connected["channels"][0].clone())
    }

    /// Listens to one more channel; answers from where it follows.
    pub async fn subscribe(&mut self, channel: &str, resume: Option<Value>) -> Value {
        let mut request = json!({"type": "subscribe", "channel": channel});
        if let Some(resume) = resume {
            request["resume"] = resume;
        }
        if let Some(token) = self.written.token() {
            request["consistency_token"] = token.into();
        }
        self.send(request).await;
        let subscribed = self.frame().await;
        assert_eq!(subscribed["type"], "subscribed", "{subscribed}");
        subscribed
    }

    pub async fn send(&mut self, frame: Value) {
        self.stream.send(Message::text(frame.to_string())).await.unwrap();
    }

    pub async fn receive(&mut self) -> Received {
        loop {
            let message = timeout(PATIENCE, self.stream.next())
                .await
                .expect("a frame in time");
            match message {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    return Received::Frame(frame);
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Received::Closed(frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("socket ended without a close frame: {other:?}"),
            }
        }
    }

    /// The next frame.
    pub async fn frame(&mut self) -> Value {
        match self.receive().await {
            Received::Frame(frame) => frame,
            closed @ Received::Closed(..) => panic!("{closed:?}"),
        }
    }

    /// The code and text of the close. Before it comes at most what announces it.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.receive().await {
                Received::Closed(code, reason) => return (code, reason),
                Received::Frame(frame) => {
                    let announced = frame["type"] == "error" && frame["fatal"] == true;
                    let known = frame["type"] == "closing" || frame["event"] == "session.revoked";
                    assert!(announced || known, "{frame}");
                }
            }
        }
    }

    /// Reads events of a kind until there are so many; answers their texts.
    pub async fn contents(&mut self, count: usize) -> Vec<String> {
        let mut contents = Vec::new();
        while contents.len() < count {
            let frame = self.frame().await;
            if frame["event"] == "message.created" {
                contents.push(frame["data"]["content"].as_str().unwrap().to_owned());
            }
        }
        contents
    }
}
