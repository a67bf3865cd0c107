//! Connections to PostgreSQL: which instance they go to, and that they come back whatever becomes of a request.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::app::{TestApp, until};
use crate::services::{connect, instances};

/// T49: without a replica the primary serves everything.
#[tokio::test]
async fn a_single_instance_serves_reads_too() {
    let (host, port) = instances()[0].clone();
    let only = json!([{"name": "pg-0", "host": host, "port": port}]);
    let app = TestApp::builder().database_key("instances", only).start().await;
    let person = app.person().await;
    let conversation = app.conversation(&person, "Talk").await;
    for path in [
        "/api/v1/conversations".to_owned(),
        format!("/api/v1/conversations/{conversation}"),
    ] {
        let read = app.get_as(&person, &path).await.expect(200);
        assert_eq!(read.header("x-served-role"), "primary", "{path}");
        assert_eq!(read.header("x-served-by"), "pg-0", "{path}");
    }
}

/// T51: lists read a replica, a message is written to the primary, and each answer says so.
#[tokio::test]
async fn lists_read_a_replica_and_messages_are_written_to_the_primary() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let conversation = app.conversation(&person, "Talk").await;
    let messages = format!("/api/v1/conversations/{conversation}/messages");
    let written = app.post_as(&person, &messages, json!({"content": "hello"})).await;
    let written = written.expect(201);
    assert_eq!(written.header("x-served-role"), "primary");
    for list in ["/api/v1/conversations", &messages] {
        // A busy machine's replicas may be late once, and then the primary answers.
        until("a replica serves the list", async || {
            let read = app.get_after(&person, list, &written).await.expect(200);
            read.header("x-served-role") == "replica"
        })
        .await;
    }
}

/// The connections of all pools that are in use.
async fn in_use(app: &TestApp) -> i64 {
    let mut sum = 0;
    for index in 0..instances().len() {
        let used = format!(r#"tanka_database_pool_connections{{pool="pg-{index}",state="used"}}"#);
        sum += app.metric(&used).await;
    }
    sum
}

/// T50, C20: what fails leaves nothing behind, and neither failures nor clients that hang up keep a connection.
#[tokio::test]
async fn what_fails_or_is_given_up_gives_its_connection_back() {
    let app = TestApp::builder().database_key("poolSize", 6).start().await;
    let person = app.person().await;
    let name = format!("Rolled back {}", person.user_id);
    for _ in 0..20 {
        let again = json!({
            "email": person.email, "password": person.password, "name": "Ada", "tenant_name": name,
        });
        let refused = app.post("/api/v1/auth/signup", again).await;
        assert!([409, 503].contains(&refused.status.as_u16()), "{refused:?}");
    }
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM tenants WHERE name = $1")
        .bind(&name)
        .fetch_one(&mut connect("postgres", 0).await)
        .await
        .unwrap();
    assert_eq!(left, 0, "the tenant was made before the address was refused");
    let conversation = app.conversation(&person, "Talk").await;
    let path = format!("/api/v1/conversations/{conversation}/messages");
    let mut given_up = 0;
    for number in 0..60 {
        let patience = Duration::from_micros(200 + 100 * number);
        let message = app.post_as(&person, &path, json!({"content": "hello"}));
        given_up += u32::from(timeout(patience, message).await.is_err());
    }
    assert!(given_up > 0, "no client hung up in the middle");
    until("no connection is in use", async || in_use(&app).await == 0).await;
    let metrics = app.ops("/metrics").await.expect(200).text;
    let pools: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("tanka_database_pool_connections{"))
        .collect();
    assert_eq!(pools.len(), 3 * instances().len(), "{pools:?}");
    app.post_as(&person, &path, json!({"content": "hello"}))
        .await
        .expect(201);
}

/// F35, F36, C08: a statement is the same for every tenant, so neither plans nor `pg_stat_statements` grow with tenants.
#[tokio::test]
async fn statements_do_not_grow_with_tenants() {
    const TENANTS: usize = 12;
    let app = TestApp::builder().alone().start().await;
    let ask = async || {
        let person = app.person().await;
        let conversation = app.conversation(&person, "Talk").await;
        for path in [
            "/api/v1/conversations".to_owned(),
            format!("/api/v1/conversations/{conversation}/messages"),
            "/api/v1/memories".to_owned(),
            "/api/v1/memories/search?q=tea".to_owned(),
            "/api/v1/workrooms".to_owned(),
        ] {
            let token = person.written.token().unwrap();
            let headers = [("x-consistency-token", token.as_str())];
            app.as_with(&person, Method::GET, &path, &headers, None)
                .await
                .expect(200);
        }
    };
    let kept = async || {
        let mut kept = BTreeSet::new();
        for index in 0..instances().len() {
            let statements: Vec<i64> = sqlx::query_scalar(
                "SELECT queryid FROM pg_stat_statements JOIN pg_roles ON oid = userid WHERE rolname = 'tanka_app'",
            )
            .fetch_all(&mut connect("postgres", index).await)
            .await
            .unwrap();
            kept.extend(statements.into_iter().map(|id| (index, id)));
        }
        kept
    };
    // Every instance has answered everything once.
    for _ in 0..4 {
        ask().await;
    }
    let before = kept().await;
    assert!(!before.is_empty());
    for _ in 0..TENANTS {
        ask().await;
    }
    let after = kept().await;
    let new = after.difference(&before).count();
    // A job of the server may have run for the first time meanwhile.
    assert!(new < TENANTS, "{new} new statements for {TENANTS} new tenants");
}
