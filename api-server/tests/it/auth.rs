//! Accounts and sessions.

use axum::http::Method;
use serde_json::json;
use sqlx::Executor;

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

#[tokio::test]
async fn an_address_has_one_account_in_whatever_case() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let body = json!({"email": person.email.to_uppercase(), "password": "correct horse", "name": "Eve"});
    app.post("/api/v1/auth/signup", body).await.expect(409);
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
        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement)))
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
