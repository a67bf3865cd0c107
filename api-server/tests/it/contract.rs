//! What others rely on: the OpenAPI document, headers, metrics, the example of the configuration.

use api_server::http::openapi;
use api_server::run::EXAMPLE;
use crds::config::{Config, parse};

use crate::app::{TestApp, until};

#[test]
fn the_committed_openapi_document_is_current() {
    let committed = include_str!("../../openapi.json");
    assert!(
        committed == openapi::document().unwrap(),
        "run `cargo run -p api-server -- openapi > api-server/openapi.json`"
    );
}

#[test]
fn the_example_shows_every_key_at_its_default() {
    let example: Config = parse(EXAMPLE).unwrap();
    let least = "database: {instances: [{name: a, host: a}]}\nredis: {sentinels: ['a:1']}\n";
    let mut defaults: Config = parse(least).unwrap();
    defaults
        .database
        .instances
        .clone_from(&example.database.instances);
    defaults
        .database
        .password_file
        .clone_from(&example.database.password_file);
    defaults.redis.sentinels.clone_from(&example.redis.sentinels);
    defaults
        .redis
        .password_file
        .clone_from(&example.redis.password_file);
    assert_eq!(example, defaults);
    let shown = serde_json::to_value(&example).unwrap();
    let mut keys = Vec::new();
    collect(&shown, &mut keys);
    keys.push("urlFile".to_owned());
    for key in keys {
        assert!(
            EXAMPLE.contains(&format!("{key}:")),
            "the example does not mention `{key}`"
        );
    }
}

fn collect(value: &serde_json::Value, keys: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                keys.push(key.clone());
                collect(value, keys);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, keys)),
        _ => {}
    }
}

#[tokio::test]
async fn every_answer_has_its_headers() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let id = [("x-request-id", "mine-1")];
    let reply = app
        .as_with(&person, axum::http::Method::GET, "/api/v1/auth/me", &id, None)
        .await
        .expect(200);
    assert_eq!(reply.header("x-request-id"), "mine-1");
    for reply in [reply, app.get("/api/v1/nothing").await] {
        assert!(reply.header("x-response-time").ends_with("ms"));
        assert_eq!(reply.header("cache-control"), "no-store");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("x-frame-options"), "DENY");
        assert_eq!(reply.header("x-xss-protection"), "0");
        assert_eq!(reply.header("referrer-policy"), "strict-origin-when-cross-origin");
        // R35, R36, F52: the whole values, so that a missing or a weaker one is seen.
        assert_eq!(
            reply.header("strict-transport-security"),
            "max-age=31536000; includeSubDomains; preload"
        );
        assert_eq!(
            reply.header("content-security-policy"),
            "default-src 'none'; frame-ancestors 'none'"
        );
    }
}

#[tokio::test]
async fn metrics_have_closed_labels() {
    let app = TestApp::start().await;
    let person = app.person().await;
    for _ in 0..5 {
        let unknown = uuid::Uuid::new_v4();
        app.get_as(&person, &format!("/api/v1/conversations/{unknown}"))
            .await
            .expect(404);
        app.get(&format!("/{unknown}")).await.expect(404);
    }
    let reply = app.ops("/metrics").await.expect(200);
    assert!(
        reply
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    let find = r#"http_requests_total{method="GET",endpoint="/api/v1/conversations/{id}",status="404"} 5"#;
    assert!(reply.text.contains(find), "{}", reply.text);
    assert!(reply.text.contains(r#"endpoint="unmatched",status="404""#));
    // T41, J24: by method and route, and buckets from 1 ms to 10 s.
    for edge in ["0.001", "0.01", "0.5", "10.0", "+Inf"] {
        let bucket = format!(
            r#"http_request_duration_seconds_bucket{{le="{edge}",method="GET",endpoint="/api/v1/conversations/{{id}}"}} "#
        );
        assert!(reply.text.contains(&bucket), "{bucket}: {}", reply.text);
    }
    // J27: signup is a bucket of its endpoint; the five requests with a token had it validated, and the others not.
    let signup = r#"http_request_duration_seconds_count{method="POST",endpoint="/api/v1/auth/signup"} 1"#;
    assert!(reply.text.contains(signup), "{}", reply.text);
    assert!(
        reply
            .text
            .contains("tanka_access_tokens_validation_seconds_count 5\n"),
        "{}",
        reply.text
    );
    for name in [
        "tanka_database_replica_lag_seconds",
        "tanka_database_ejections_total",
        "tanka_database_reads_total{role=\"",
        "tanka_database_pool_connections",
        "tanka_websocket_connections",
        "tanka_password_hashing_duration_seconds",
        "tanka_config_last_reload_successful",
    ] {
        assert!(reply.text.contains(name), "{name} is missing");
    }
    app.get("/metrics").await.expect(404);
}

#[tokio::test]
async fn the_deep_check_tells_who_answered() {
    let app = TestApp::start().await;
    let report = app.deep().await.expect(200).json();
    assert_eq!(report["write"]["role"], "primary");
    assert_eq!(report["read"]["role"], "replica");
    assert!(report["read"]["age_ms"].as_f64().unwrap() < 1_000.0, "{report}");
    assert_eq!(report["instances"].as_array().unwrap().len(), 3);
    let first = app.deep().await.json()["checked_at"].clone();
    let again = app.deep().await.json()["checked_at"].clone();
    assert_eq!(first, again, "within a second the same report is given again");
}

/// R32, R36: the explorer comes from this server alone, is let in without a token, and nothing else may load anything.
#[tokio::test]
async fn the_explorer_is_served_with_all_that_it_needs() {
    let app = TestApp::start().await;
    app.get("/docs").await.expect(303);
    let page = app.get("/docs/").await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"), "{page:?}");
    assert_eq!(page.header("cache-control"), "public, max-age=300");
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe") && !policy.contains("http"),
        "{policy}"
    );
    // Everything that the page names is here, and it names nothing elsewhere; no script stands in the page itself.
    let mut parts = 0;
    for attribute in ["src=\"", "href=\""] {
        for rest in page.text.split(attribute).skip(1) {
            let name = rest.split('"').next().unwrap().trim_start_matches("./");
            let part = app.get(&format!("/docs/{name}")).await;
            assert_eq!(part.status, 200, "{name}");
            parts += 1;
        }
    }
    assert!(parts >= 4, "{}", page.text);
    assert!(!page.text.contains("<script>"), "{}", page.text);
    let start = app.get("/docs/swagger-initializer.js").await.expect(200);
    assert!(start.text.contains("/openapi.json"), "{}", start.text);
    app.get("/openapi.json").await.expect(200);
    app.get("/docs/nothing").await.expect(404);
}

/// What a server is configured with and what it sees of the database, for whoever operates it: on the operations port alone, and no secret.
#[tokio::test]
async fn the_operations_port_tells_what_a_server_sees() {
    let app = TestApp::start().await;
    let config = app.ops("/debug/config").await.expect(200);
    assert_eq!(config.json()["cache"]["enabled"], true);
    for secret in ["TANKA_TEST_PG_APP_PASSWORD", "TANKA_TEST_REDIS_PASSWORD"] {
        assert!(!config.text.contains(&std::env::var(secret).unwrap()), "{secret}");
    }
    until("all instances are seen", async || {
        let seen = app.ops("/debug/instances").await.expect(200).json();
        let mut roles: Vec<&str> = seen
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|instance| instance["role"].as_str())
            .collect();
        roles.sort_unstable();
        roles == ["primary", "replica", "replica"]
    })
    .await;
    for path in ["/debug/config", "/debug/instances"] {
        app.get(path).await.expect(404);
    }
}
