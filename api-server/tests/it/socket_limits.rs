//! What ends a connection, or keeps one from being opened: its token, its manners, and how many there are.

use std::time::Duration;

use axum::http::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::app::{TestApp, until};
use crate::socket::{Received, Socket};

/// W-3: a connection ends with its token, unless a newer one is named.
#[tokio::test]
async fn a_connection_ends_with_its_token() {
    let app = TestApp::builder()
        .config("auth: {accessTokenTtl: 3s}")
        .start()
        .await;
    let person = app.person().await;
    let started = Instant::now();
    let (mut socket, _) = Socket::connect(&app, &person, None).await;
    assert_eq!(socket.closed().await.0, 4001);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

/// The code with which a socket is closed, whatever comes before.
async fn code_of(socket: &mut Socket) -> u16 {
    loop {
        if let Received::Closed(code, _) = socket.receive().await {
            return code;
        }
    }
}

/// W-7: who floods the server with frames is closed, and others do not notice.
#[tokio::test]
async fn a_client_that_sends_too_much_is_closed() {
    let app = TestApp::start().await;
    let (person, other) = (app.person().await, app.person().await);
    let (mut socket, _) = Socket::connect(&app, &person, None).await;
    let (mut calm, _) = Socket::connect(&app, &other, None).await;
    for _ in 0..400 {
        socket.send(json!({"type": "ping"})).await;
    }
    assert_eq!(code_of(&mut socket).await, 4029);
    calm.send(json!({"type": "ping"})).await;
    assert_eq!(calm.frame().await["type"], "pong");
}

/// Sockets of one person and of one process have a limit each; the one too many is refused and the others stay.
#[tokio::test]
async fn connections_of_one_person_and_of_one_process_are_limited() {
    let app = TestApp::builder()
        .config("websocket: {maxConnections: 60}")
        .start()
        .await;
    let (person, other) = (app.person().await, app.person().await);
    let mut open = Vec::new();
    for _ in 0..50 {
        open.push(Socket::connect(&app, &person, None).await.0);
    }
    let first = json!({"type": "connect", "token": person.token});
    assert_eq!(Socket::open(&app, first).await.closed().await.0, 4009);
    until("the refused one is gone", async || {
        app.metric("tanka_websocket_connections").await == 50
    })
    .await;
    for _ in 0..10 {
        open.push(Socket::connect(&app, &other, None).await.0);
    }
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    app.send(Method::GET, &app.url("/ws"), &upgrade, None)
        .await
        .expect(503);
    app.conversation(&person, "Still there").await;
    assert_eq!(open[0].frame().await["event"], "conversation.created");
}

/// Limits are those of the configuration.
#[tokio::test]
async fn limits_of_connections_are_configured() {
    let app = TestApp::builder()
        .config("websocket: {maxConnectionsPerUser: 2, messagesPerSecond: 1, messageBurst: 5, maxMessageSize: 1Ki, idleTimeout: 2s}")
        .start()
        .await;
    let person = app.person().await;
    let mut loud = Socket::connect(&app, &person, None).await.0;
    let mut large = Socket::connect(&app, &person, None).await.0;
    let first = json!({"type": "connect", "token": person.token});
    assert_eq!(Socket::open(&app, first).await.closed().await.0, 4009);
    for _ in 0..6 {
        loud.send(json!({"type": "ping"})).await;
    }
    assert_eq!(code_of(&mut loud).await, 4029);
    large
        .send(json!({"type": "subscribe", "channel": "x".repeat(2_000)}))
        .await;
    assert_eq!(large.closed().await.0, 1009);
    // It answers no ping, since nobody reads.
    let _silent = Socket::connect(&app, &person, None).await.0;
    until("the silent one is gone", async || {
        app.metric(r#"tanka_websocket_closed_total{reason="idle"}"#).await == 1
    })
    .await;
}
