//! Server-sent events: the stream of a WebSocket, for those who cannot open one.

use axum::http::Method;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::app::{PATIENCE, Person, TestApp, until};
use crate::workrooms::workroom;

/// An event as a browser would see it.
#[derive(Debug, PartialEq)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

struct EventStream {
    body: Incoming,
    text: String,
}

impl EventStream {
    /// Opens a stream; answers the status if it is refused.
    async fn open(app: &TestApp, query: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let mut request = hyper::Request::get(app.url(&format!("/api/v1/events{query}")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = client
            .request(request.body(Full::default()).unwrap())
            .await
            .unwrap();
        if answer.status() != 200 {
            return Err(answer.status().as_u16());
        }
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-cache");
        Ok(Self {
            body: answer.into_body(),
            text: String::new(),
        })
    }

    async fn of(app: &TestApp, person: &Person, query: &str, last: Option<&str>) -> Self {
        let bearer = format!("Bearer {}", person.token);
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(last.map(|last| ("last-event-id", last)));
        let written = person.written.token();
        headers.extend(
            written
                .iter()
                .map(|token| ("x-consistency-token", token.as_str())),
        );
        Self::open(app, query, &headers).await.unwrap()
    }

    /// The next event; none at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().trim().to_owned()
                };
                let data = field("data:");
                // Comments keep proxies calm and say nothing.
                if data.is_empty() {
                    continue;
                }
                let data: Value = serde_json::from_str(&data).unwrap();
                return Some(Event {
                    id: field("id:"),
                    name: field("event:"),
                    data,
                });
            }
            let frame = timeout(PATIENCE, self.body.frame())
                .await
                .expect("an event in time")?;
            let bytes = frame.unwrap().into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }
}

async fn say(app: &TestApp, person: &Person, room: &str, content: &str) {
    app.post_as(person, &format!("{room}/messages"), json!({"content": content}))
        .await
        .expect(201);
}

/// The same events as a WebSocket gets, of all channels; who comes back with the last id misses nothing, on whatever server.
#[tokio::test]
async fn a_stream_goes_on_where_it_ended() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let person = app.person().await;
    let room = workroom(&app, &person, "Room").await;
    let query = format!("?channels=workroom:{}:updates", room.rsplit_once('/').unwrap().1);
    let mut stream = EventStream::of(&app, &person, &query, None).await;
    let connected = stream.next().await.unwrap();
    assert_eq!(connected.name, "connected");
    assert_eq!(connected.data["channels"].as_array().unwrap().len(), 3);
    say(&app, &person, &room, "0").await;
    let first = stream.next().await.unwrap();
    assert_eq!(first.data["event"], "workroom.message.created");
    assert_eq!(
        (first.name.as_str(), &first.data["data"]["content"]),
        ("", &json!("0"))
    );
    drop(stream);
    until("the stream is gone", async || {
        app.metric("tanka_websocket_connections").await == 0
    })
    .await;
    for number in 1..=3 {
        say(&app, &person, &room, &number.to_string()).await;
    }
    let said = json!({"message": "to all"});
    app.post_as(&person, "/api/v1/tenant/broadcast", said)
        .await
        .expect(202);
    let mut stream = EventStream::of(&other, &person, &query, Some(&first.id)).await;
    let connected = stream.next().await.unwrap();
    let recovered = connected.data["channels"].as_array().unwrap();
    assert!(
        recovered.iter().all(|place| place["recovered"] == true),
        "{connected:?}"
    );
    // Channels follow each other; within a channel the order is that of its offsets.
    let mut events = Vec::new();
    for _ in 0..4 {
        events.push(stream.next().await.unwrap());
    }
    let contents: Vec<_> = events
        .iter()
        .filter_map(|event| event.data["data"]["content"].as_str())
        .collect();
    assert_eq!(contents, ["1", "2", "3"], "{events:?}");
    assert_eq!(
        events
            .iter()
            .filter(|e| e.data["event"] == "tenant.broadcast")
            .count(),
        1
    );
    // From the middle of what was missed.
    let last = events.iter().find(|e| e.data["data"]["content"] == "2").unwrap();
    let mut stream = EventStream::of(&app, &person, &query, Some(&last.id)).await;
    assert_eq!(stream.next().await.unwrap().name, "connected");
    assert_eq!(stream.next().await.unwrap().data["data"]["content"], "3");
}

/// W-3: a ticket opens one stream; a token in the address opens none.
#[tokio::test]
async fn a_ticket_opens_one_stream_and_a_token_in_the_address_none() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let ticket = app
        .as_with(&person, Method::POST, "/api/v1/auth/ws-ticket", &[], None)
        .await
        .expect(201)
        .json();
    let query = format!("?ticket={}", ticket["ticket"].as_str().unwrap());
    let mut stream = EventStream::open(&app, &query, &[]).await.unwrap();
    assert_eq!(stream.next().await.unwrap().name, "connected");
    let bearer = format!("Bearer {}", person.token);
    for (query, headers, status) in [
        (query, vec![], 401),
        (String::new(), vec![], 401),
        (format!("?ticket={}", person.token), vec![], 401),
        (format!("?token={}", person.token), vec![], 401),
        (
            String::new(),
            vec![("authorization", bearer.as_str()), ("last-event-id", "nonsense")],
            422,
        ),
        (
            String::new(),
            vec![
                ("authorization", bearer.as_str()),
                ("origin", "https://evil.example"),
            ],
            403,
        ),
    ] {
        let refused = EventStream::open(&app, &query, &headers).await;
        assert_eq!(refused.err(), Some(status), "{query} {headers:?}");
    }
}

/// W-3: a stream ends with its session, and says why.
#[tokio::test]
async fn logging_out_ends_the_stream() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let mut stream = EventStream::of(&app, &person, "", None).await;
    assert_eq!(stream.next().await.unwrap().name, "connected");
    app.as_with(&person, Method::POST, "/api/v1/auth/logout", &[], None)
        .await
        .expect(204);
    let mut closed = stream.next().await.unwrap();
    if closed.data["event"] == "session.revoked" {
        closed = stream.next().await.unwrap();
    }
    assert_eq!(
        (closed.name.as_str(), &closed.data["code"]),
        ("closed", &json!(4003))
    );
    assert_eq!(stream.next().await, None);
}
