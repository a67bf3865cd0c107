//! Accounts and sessions.

use std::fmt::Write;

use axum::http::Method;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Executor};

use crate::app::{Person, TestApp, until};
use crate::services::connect;

#[tokio::test]
async fn signing_up_logging_in_and_asking_who_i_am() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let login = app.post(
        "/api/v1/auth/login",
        json!({"email": person.email.to_uppercase(), "password": person.password}),
    );
    let login = login.await.expect(200);
    let tokens = login.json();
    assert_eq!(tokens["access_token"], tokens["token"]);
    assert_eq!(tokens["token_type"], "Bearer");
    assert_eq!(tokens["expires_in"], 900);
    let again = Person {
        token: tokens["token"].as_str().unwrap().to_owned(),
        ..person.clone()
    };
    let me = app.get_as(&again, "/api/v1/auth/me").await.expect(200);
    assert_eq!(me.json()["email"], person.email);
    assert_eq!(me.json()["role"], "owner");
    let head = app
        .as_with(&again, Method::HEAD, "/api/v1/auth/me", &[], None)
        .await
        .expect(200);
    assert!(head.text.is_empty());
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_get_the_same_answer() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let wrong = app
        .post(
            "/api/v1/auth/login",
            json!({"email": person.email, "password": "wrong horse"}),
        )
        .await;
    let unknown = app
        .post(
            "/api/v1/auth/login",
            json!({"email": "nobody@example.com", "password": "wrong horse"}),
        )
        .await;
    let (wrong, unknown) = (wrong.expect(401).json(), unknown.expect(401).json());
    assert_eq!(wrong["detail"], unknown["detail"]);
    assert_eq!(wrong["code"], unknown["code"]);
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let app = TestApp::start().await;
    let reply = app
        .post(
            "/api/v1/auth/signup",
            json!({"email": "x", "password": "short", "name": " "}),
        )
        .await
        .expect(422);
    assert_eq!(reply.header("content-type"), "application/problem+json");
    let problem = reply.json();
    let fields: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["field"].clone())
        .collect();
    assert_eq!(fields, ["email", "password", "name", "tenant_name"]);
    assert_eq!(problem["request_id"], reply.header("x-request-id"));
    let reply = app
        .post("/api/v1/auth/login", json!({"email": 5}))
        .await
        .expect(422);
    assert_eq!(reply.json()["errors"][0]["field"], "email");
}

/// F24, J09: one account for an address in whatever case, and it is the table that says so.
#[tokio::test]
async fn an_address_has_one_account_in_whatever_case() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let body = json!({"email": person.email.to_uppercase(), "password": "correct horse", "name": "Eve"});
    app.post("/api/v1/auth/signup", body).await.expect(409);
    let again = format!(
        "INSERT INTO users (id, tenant_id, email, name, password_hash, role)
         SELECT gen_random_uuid(), tenant_id, upper(email), 'Eve', 'none', 'viewer' FROM users WHERE id = '{}'",
        person.user_id
    );
    let refused = connect("postgres", 0)
        .await
        .execute(sqlx::raw_sql(AssertSqlSafe(again)))
        .await
        .unwrap_err();
    let constraint = refused.as_database_error().unwrap().constraint();
    assert_eq!(constraint, Some("users_email_key"), "{refused}");
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// F24: whoever reads the tables cannot act as anybody: there is no token in them, in use or used up, and no digest that can be computed
/// without the key of the server.
#[tokio::test]
async fn no_token_can_be_read_in_the_tables() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let body = json!({"refresh_token": person.refresh_token});
    let refreshed = app.post("/api/v1/auth/refresh", body).await.expect(200);
    let text = |name: &str| refreshed.json()[name].as_str().unwrap().to_owned();
    let renewed = Person {
        token: text("access_token"),
        refresh_token: text("refresh_token"),
        ..person.clone()
    };
    let seen = [("x-consistency-token", refreshed.header("x-consistency-token"))];
    let ticket = app
        .as_with(&renewed, Method::POST, "/api/v1/auth/ws-ticket", &seen, None)
        .await
        .expect(201)
        .json();
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT s::text FROM sessions s WHERE tenant_id = $1::text::uuid
         UNION ALL SELECT u::text FROM used_refresh_tokens u WHERE tenant_id = $1::text::uuid
         UNION ALL SELECT t::text FROM ws_tickets t WHERE tenant_id = $1::text::uuid",
    )
    .bind(&person.tenant_id)
    .fetch_all(&mut connect("postgres", 0).await)
    .await
    .unwrap();
    assert_eq!(rows.len(), 3, "a session, a used token, a ticket");
    let rows = rows.join("\n");
    let ticket = ticket["ticket"].as_str().unwrap();
    // The access token that was replaced has left no trace.
    for token in [
        person.refresh_token.as_str(),
        renewed.token.as_str(),
        renewed.refresh_token.as_str(),
        ticket,
    ] {
        let kept = hexadecimal(&app.running.app.keys().token_hash(token));
        assert!(rows.contains(&kept), "something else is kept than was looked for");
    }
    for token in [
        person.token.as_str(),
        person.refresh_token.as_str(),
        renewed.token.as_str(),
        renewed.refresh_token.as_str(),
        ticket,
    ] {
        let bare = token.split_once('_').map_or(token, |(_, secret)| secret);
        for form in [
            bare.to_owned(),
            hexadecimal(bare.as_bytes()),
            hexadecimal(&Sha256::digest(bare)[..]),
            hexadecimal(&Sha256::digest(token)[..]),
        ] {
            assert!(!rows.contains(&form), "{form} is in the tables");
        }
    }
}

#[tokio::test]
async fn of_many_parallel_refreshes_exactly_one_wins() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let refresh = || {
        app.post(
            "/api/v1/auth/refresh",
            json!({"refresh_token": person.refresh_token}),
        )
    };
    let replies = futures::future::join_all((0..20).map(|_| refresh())).await;
    let won: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
    assert_eq!(won.len(), 1);
    assert!(
        replies
            .iter()
            .all(|reply| reply.status == 200 || reply.status == 401)
    );
    let new = won[0].json();
    let renewed = Person {
        token: new["token"].as_str().unwrap().to_owned(),
        ..person.clone()
    };
    app.get_after(&renewed, "/api/v1/auth/me", won[0])
        .await
        .expect(200);
    until("the old access token has ended", async || {
        app.get_as(&person, "/api/v1/auth/me").await.status == 401
    })
    .await;
}

#[tokio::test]
async fn a_refresh_token_that_comes_back_late_ends_the_session() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let stolen = json!({"refresh_token": person.refresh_token});
    let first = app.post("/api/v1/auth/refresh", stolen.clone()).await.expect(200);
    let owner = Person {
        token: first.json()["token"].as_str().unwrap().to_owned(),
        ..person.clone()
    };
    let statement = format!(
        "UPDATE used_refresh_tokens SET used_at = now() - interval '1 minute' WHERE tenant_id = '{}'",
        person.tenant_id
    );
    connect("postgres", 0)
        .await
        .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
    let reused = app.post("/api/v1/auth/refresh", stolen).await.expect(401);
    assert_eq!(reused.json()["code"], "unauthorized");
    until("the session has ended", async || {
        app.get_as(&owner, "/api/v1/auth/me").await.status == 401
    })
    .await;
}

#[tokio::test]
async fn logging_out_ends_the_session_on_every_server() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let person = app.person().await;
    other.get_as(&person, "/api/v1/auth/me").await.expect(200);
    let started = tokio::time::Instant::now();
    app.as_with(&person, Method::POST, "/api/v1/auth/logout", &[], None)
        .await
        .expect(204);
    until("the other server refuses", async || {
        other.get_as(&person, "/api/v1/auth/me").await.status == 401
    })
    .await;
    assert!(
        started.elapsed() < std::time::Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

/// C24, F46: the tenant is that of the token; the header may repeat it and name no other.
#[tokio::test]
async fn the_tenant_header_may_only_repeat_the_tenant() {
    let app = TestApp::start().await;
    let (person, stranger) = (app.person().await, app.person().await);
    let ask = |tenant: String| {
        let (app, person) = (&app, &person);
        async move {
            app.as_with(
                person,
                Method::GET,
                "/api/v1/auth/me",
                &[("x-tenant-id", &tenant)],
                None,
            )
            .await
            .status
        }
    };
    assert_eq!(ask(person.tenant_id.clone()).await, 200);
    assert_eq!(ask(stranger.tenant_id.clone()).await, 403);
}

#[tokio::test]
async fn without_a_token_nothing_is_served() {
    let app = TestApp::start().await;
    let reply = app.get("/api/v1/conversations").await.expect(401);
    assert_eq!(reply.header("www-authenticate"), "Bearer");
    let bad = [("authorization", "Bearer tka_x' OR true --")];
    app.send(Method::GET, &app.url("/api/v1/auth/me"), &bad, None)
        .await
        .expect(401);
}
