//! What stands before all routes.

use std::time::Duration;

use axum::http::Method;
use serde_json::json;
use sqlx::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::app::{PATIENCE, TestApp, until, write_config};
use crate::services::connect;

/// Sends bytes and reads until the server closes.
async fn raw(app: &TestApp, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(app.running.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut text = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut text))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// B19, H30: large answers are compressed as the client asks, small ones never.
#[tokio::test]
async fn large_answers_are_compressed() {
    let app = TestApp::start().await;
    let ask = async |encoding: &str, path: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\naccept-encoding: {encoding}\r\nconnection: close\r\n\r\n"
        );
        raw(&app, request.as_bytes()).await
    };
    let plain = ask("identity", "/openapi.json").await;
    for encoding in ["gzip", "br", "zstd"] {
        let packed = ask(encoding, "/openapi.json").await;
        assert!(
            packed.contains(&format!("content-encoding: {encoding}")),
            "{encoding}"
        );
        assert!(
            packed.len() * 3 < plain.len(),
            "{encoding}: {} of {}",
            packed.len(),
            plain.len()
        );
    }
    assert!(!ask("gzip", "/health").await.contains("content-encoding"));
}

/// CORS: the origins of the configuration, as it is now, and no others.
#[tokio::test]
async fn pages_of_allowed_origins_may_call() {
    let app = TestApp::builder()
        .config("http: {allowedOrigins: ['https://app.example']}")
        .start()
        .await;
    let preflight = async |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "PATCH"),
            ("access-control-request-headers", "authorization,idempotency-key"),
        ];
        let url = app.url("/api/v1/conversations");
        app.send(Method::OPTIONS, &url, &headers, None).await
    };
    let allowed = preflight("https://app.example").await.expect(200);
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        "https://app.example"
    );
    assert!(allowed.header("access-control-allow-methods").contains("PATCH"));
    assert!(
        allowed
            .header("access-control-allow-headers")
            .contains("idempotency-key")
    );
    assert_eq!(allowed.header("access-control-allow-credentials"), "");
    for origin in ["https://evil.example", "null", "https://app.example.evil.example"] {
        assert_eq!(
            preflight(origin).await.header("access-control-allow-origin"),
            "",
            "{origin}"
        );
    }
    write_config(&app.directory, "http: {allowedOrigins: ['https://new.example']}");
    until("the new origin is allowed", async || {
        preflight("https://new.example")
            .await
            .header("access-control-allow-origin")
            == "https://new.example"
    })
    .await;
    assert_eq!(
        preflight("https://app.example")
            .await
            .header("access-control-allow-origin"),
        ""
    );
}

/// F27: HEAD wherever there is GET, with the same headers and no body.
#[tokio::test]
async fn head_is_answered_wherever_get_is() {
    let app = TestApp::start().await;
    let person = app.person().await;
    for path in ["/health", "/openapi.json"] {
        let head = app
            .send(Method::HEAD, &app.url(path), &[], None)
            .await
            .expect(200);
        assert!(head.text.is_empty(), "{path}");
    }
    for path in ["/api/v1/conversations", "/api/v1/tenant", "/api/v1/audit-logs"] {
        let head = app
            .as_with(&person, Method::HEAD, path, &[], None)
            .await
            .expect(200);
        assert!(head.text.is_empty(), "{path}");
    }
}

/// API4: bodies are bounded in depth, size and time.
#[tokio::test]
async fn bodies_are_bounded_in_depth_size_and_time() {
    let app = TestApp::builder()
        .config("http: {bodyTimeout: 500ms, bodyLimit: 64Ki}")
        .start()
        .await;
    let post = |body: String, length: usize| {
        format!(
            "POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    };
    let deep = "[".repeat(10_000);
    let answer = raw(&app, post(deep.clone(), deep.len()).as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 422"),
        "{answer}"
    );
    let large = "x".repeat(70_000);
    let answer = raw(&app, post(large.clone(), large.len()).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answer = raw(&app, post("{".to_owned(), 1_000).as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("slow_body"),
        "{answer}"
    );
}

/// Key `http.maxConnections` holds for the next connection when it changes.
#[tokio::test]
async fn connections_are_limited_as_the_configuration_says_now() {
    let app = TestApp::start().await;
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(TcpStream::connect(app.running.address).await.unwrap());
    }
    write_config(&app.directory, "http: {maxConnections: 10}");
    until("connections over the limit are refused", async || {
        let mut stream = TcpStream::connect(app.running.address).await.unwrap();
        let mut byte = [0];
        let read = timeout(Duration::from_millis(200), stream.read(&mut byte)).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    })
    .await;
    assert!(app.metric("tanka_http_connections_refused_total").await >= 1);
    drop(held);
    until("connections are accepted again", async || {
        let mut stream = TcpStream::connect(app.running.address).await.unwrap();
        let request = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let _ = stream.write_all(request).await;
        let mut text = String::new();
        let read = timeout(Duration::from_secs(1), stream.read_to_string(&mut text)).await;
        matches!(read, Ok(Ok(_))) && text.starts_with("HTTP/1.1 200")
    })
    .await;
}

/// A client that takes nothing of a large answer is cut off.
#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off() {
    let app = TestApp::builder()
        .config("http: {bodyTimeout: 300ms}")
        .start()
        .await;
    app.get("/health").await.expect(200);
    let before = app.metric("tanka_http_connections ").await;
    let mut stream = TcpStream::connect(app.running.address).await.unwrap();
    // So many answers do not fit into the buffers of both ends.
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(400);
    stream.write_all(&request).await.unwrap();
    until("the connection is open", async || {
        app.metric("tanka_http_connections ").await > before
    })
    .await;
    until("the server has given up", async || {
        app.metric("tanka_http_connections ").await <= before
    })
    .await;
    let mut all = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut all)).await.unwrap();
    let whole = 400 * app.get("/openapi.json").await.text.len();
    assert!(ended.is_err() || all.len() < whole, "{} bytes", all.len());
}

/// How many requests to an endpoint were counted with an answer, and how many whose client left before it.
async fn counted(app: &TestApp, method: &str, endpoint: &str) -> (i64, i64) {
    let labels = format!(r#"{{method="{method}",endpoint="{endpoint}""#);
    let answered = app.metric(&format!("http_requests_total{labels}")).await;
    let aborted = app
        .metric(&format!("tanka_http_requests_aborted_total{labels}"))
        .await;
    (answered, aborted)
}

/// F15: a request whose client leaves while it is worked on has no answer and is counted as aborted, once, with its method and route; one
/// whose client leaves in the middle of its body is counted, too. Neither stays in flight.
#[tokio::test]
async fn a_client_that_leaves_is_counted() {
    const IN_FLIGHT: &str = "tanka_http_requests_in_flight";
    let app = TestApp::start().await;
    let person = app.person().await;
    let conversation = app.conversation(&person, "Held").await;
    // The request cannot be answered as long as somebody else holds the row.
    let mut holder = connect("postgres", 0).await;
    let mut held = holder.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM conversations WHERE id = $1::text::uuid FOR UPDATE")
        .bind(&conversation)
        .execute(&mut *held)
        .await
        .unwrap();
    let body = r#"{"title": "New"}"#;
    let request = format!(
        "PATCH /api/v1/conversations/{conversation} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        person.token,
        body.len()
    );
    let login = "POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    for sent in [request.as_str(), login] {
        let mut stream = TcpStream::connect(app.running.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        until("the request is in flight", async || {
            app.metric(IN_FLIGHT).await == 1
        })
        .await;
        drop(stream);
        until("it is no longer in flight", async || {
            app.metric(IN_FLIGHT).await == 0
        })
        .await;
    }
    held.rollback().await.unwrap();
    let worked_on = counted(&app, "PATCH", "/api/v1/conversations/{id}").await;
    assert_eq!(worked_on, (0, 1), "answered, aborted");
    let (answered, aborted) = counted(&app, "POST", "/api/v1/auth/login").await;
    assert_eq!(answered + aborted, 1, "{answered} answered, {aborted} aborted");
}

/// Overload is refused at once, and health is still told.
#[tokio::test]
async fn too_many_requests_at_once_are_refused_at_once() {
    let app = TestApp::builder()
        .config("http: {maxInFlight: 10, bodyTimeout: 10s}")
        .start()
        .await;
    let mut waiting = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(app.running.address).await.unwrap();
        let head = "POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    until("all are in flight", async || {
        app.metric("tanka_http_requests_in_flight").await >= 10
    })
    .await;
    let refused = app.get("/api/v1/auth/me").await.expect(503);
    assert_eq!(refused.header("retry-after"), "1");
    app.get("/health").await.expect(200);
    assert!(app.metric("tanka_http_requests_shed_total").await >= 1);
    drop(waiting);
    until("requests are answered again", async || {
        app.post("/api/v1/auth/login", json!({})).await.status == 422
    })
    .await;
}
