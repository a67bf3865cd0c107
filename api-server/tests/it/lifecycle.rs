//! Start, change of configuration, end.

use std::time::Duration;

use api_server::migrate;
use axum::http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::app::{PATIENCE, TestApp, until, write_config};
use crate::process::Process;
use crate::services::{Access, options};
use crate::socket::Socket;

#[tokio::test]
async fn migrating_twice_or_at_the_same_time_applies_everything_once() {
    let _access = Access::shared().await;
    let target = migrate::Target {
        options: options("tanka_owner", 0),
        timeout: PATIENCE,
        external: false,
    };
    let (one, two) = tokio::join!(migrate::run(&target), migrate::run(&target));
    one.unwrap();
    two.unwrap();
    assert_eq!(migrate::run(&target).await.unwrap(), 0);
}

#[tokio::test]
async fn a_migration_that_cannot_connect_gives_up_in_time_and_says_why() {
    let _access = Access::shared().await;
    let nowhere = options("tanka_owner", 0).port(1);
    let target = migrate::Target {
        options: nowhere,
        timeout: Duration::from_secs(2),
        external: false,
    };
    let started = Instant::now();
    let error = format!("{:#}", migrate::run(&target).await.unwrap_err());
    assert!(error.contains("failed to connect to the primary"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3));
    let wrong = options("tanka_owner", 0).password("wrong");
    let target = migrate::Target {
        options: wrong,
        timeout: PATIENCE,
        external: false,
    };
    let started = Instant::now();
    let error = format!("{:#}", migrate::run(&target).await.unwrap_err());
    assert!(error.contains("password authentication failed"), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "trying again does not help"
    );
}

#[tokio::test]
async fn a_changed_file_is_taken_over_and_a_bad_one_is_not() {
    let app = TestApp::builder().config("http: {bodyLimit: 4Ki}").start().await;
    let applied = "tanka_config_reloads_total{outcome=\"Applied\"}";
    let refused = "tanka_config_reloads_total{outcome=\"Refused\"}";
    write_config(
        &app.directory,
        "http: {bodyLimit: 8Ki}\nauth: {accessTokenTtl: 60s}",
    );
    until("the change is in force", async || app.metric(applied).await == 1).await;
    assert_eq!(app.running.app.config().http.body_limit.bytes(), 8 << 10);
    let person = app.person().await;
    let login = json!({"email": person.email, "password": person.password});
    assert_eq!(
        app.post("/api/v1/auth/login", login).await.expect(200).json()["expires_in"],
        60
    );

    write_config(&app.directory, "http: {bodyLimit: 8 bananas}");
    until("the bad file is noticed", async || app.metric(refused).await == 1).await;
    assert_eq!(app.metric("tanka_config_last_reload_successful").await, 0);
    assert_eq!(app.running.app.config().http.body_limit.bytes(), 8 << 10);
    app.get_as(&person, "/api/v1/auth/me").await.expect(200);

    write_config(&app.directory, "http: {bodyLimit: 16Ki}\ndatabase_typo: {}");
    until("the second bad file is noticed", async || {
        app.metric(refused).await == 2
    })
    .await;
    write_config(&app.directory, "http: {bodyLimit: 16Ki}");
    until("the good file is in force", async || {
        app.metric(applied).await == 2
    })
    .await;
    assert_eq!(app.metric("tanka_config_last_reload_successful").await, 1);
}

/// T57, F11: two questions with two answers: who drains is not ready, so that nothing new is sent there, and is alive all the while, so
/// that nobody ends it for that.
#[tokio::test]
async fn a_drain_is_unready_first_closes_sockets_with_a_hint_and_finishes_what_runs() {
    let app = TestApp::builder().config("drain: {timeout: 6s}").start().await;
    let person = app.person().await;
    let conversation = app.conversation(&person, "Last words").await;
    let (mut socket, _) = Socket::connect(&app, &person, None).await;
    let started = Instant::now();
    let drain = app.running.drain();
    let watch = async {
        until("it is unready while it still serves", async || {
            app.get("/ready").await.status == 503
        })
        .await;
        assert_eq!(
            app.ops("/ready").await.expect(503).json()["status"],
            "shutting_down"
        );
        // Still alive, in words that a load balancer can look for, and where the kubelet asks.
        for health in [app.get("/health").await, app.ops("/health").await] {
            assert_eq!(health.expect(200).json(), json!({"status": "healthy"}));
        }
        let path = format!("/api/v1/conversations/{conversation}/messages");
        app.post_as(&person, &path, json!({"content": "bye"}))
            .await
            .expect(201);
        assert_eq!(socket.contents(1).await, ["bye"]);
        let (code, reason) = socket.closed().await;
        let hint: serde_json::Value = serde_json::from_str(&reason).unwrap();
        assert_eq!((code, hint["reason"].as_str().unwrap()), (1001, "draining"));
        assert!(hint["reconnect_after_ms"].as_u64().unwrap() <= 6_000);
    };
    let (finished, ()) = tokio::join!(drain, watch);
    assert!(finished);
    println!("drained after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(6));
    assert!(
        TcpStream::connect(app.running.address).await.is_err(),
        "nobody listens any more"
    );
}

/// T56, F09, F10: SIGTERM to the real program. It is unready while it still serves, tells sockets when to come back, waits for a request
/// whose body is still under way when nobody new is let in any more, and ends by itself and well as soon as that is answered.
#[tokio::test]
async fn a_signal_drains_the_program() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let directory = tempfile::tempdir().unwrap();
    let process = Process::serve(&directory, &write_config(&directory, "drain: {timeout: 6s}"));
    let url = process.url().await;
    let address = url.trim_start_matches("http://").to_owned();
    let ready = format!("{url}/ready");
    let state = async || app.send(Method::GET, &ready, &[], None).await.status.as_u16();
    until("the process is ready", async || state().await == 200).await;
    let first = json!({"type": "connect", "token": person.token});
    let mut socket = Socket::at(&address, first).await;
    assert_eq!(socket.frame().await["type"], "connected");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let body = r#"{"title": "Under way"}"#;
    let head = format!(
        "POST /api/v1/conversations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
        person.token,
        body.len(),
        &body[..10]
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Once another request was answered, this one has come as well.
    assert_eq!(state().await, 200);

    process.terminate();
    until("it is unready while it still serves", async || {
        state().await == 503
    })
    .await;
    let (code, reason) = socket.closed().await;
    let hint: serde_json::Value = serde_json::from_str(&reason).unwrap();
    assert_eq!((code, hint["reason"].as_str().unwrap()), (1001, "draining"));
    until("nobody new is let in", async || {
        TcpStream::connect(&address).await.is_err()
    })
    .await;
    assert!(process.ended().is_none(), "a request is under way");
    stream.write_all(&body.as_bytes()[10..]).await.unwrap();
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    assert!(read.is_ok() && answer.starts_with("HTTP/1.1 201"), "{answer}");
    let answered = Instant::now();
    until("the process has ended", async || process.ended().is_some()).await;
    let rest = answered.elapsed();
    assert!(
        rest < Duration::from_secs(3),
        "nothing is left to wait for: {rest:?}"
    );
    assert!(process.ended().unwrap().success());
    assert!(process.lines().iter().any(|line| line["message"] == "drained"));
}

#[tokio::test]
async fn connections_that_send_nothing_or_half_a_request_are_closed() {
    let app = TestApp::builder()
        .config("http: {headerTimeout: 500ms}")
        .start()
        .await;
    for sent in ["", "GET / HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = TcpStream::connect(app.running.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let closed = timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open after sending {sent:?}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let app = TestApp::builder()
        .config("http: {maxConnections: 10}")
        .start()
        .await;
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(TcpStream::connect(app.running.address).await.unwrap());
    }
    until("some are refused", async || {
        app.metric("tanka_http_connections_refused_total").await > 0
    })
    .await;
}
