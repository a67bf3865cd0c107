//! How often somebody may do something.

use axum::http::Method;
use serde_json::json;

use crate::app::{Person, Reply, TestApp};

async fn guess(app: &TestApp, person: &Person, password: &str, address: &str) -> Reply {
    let body = json!({"email": person.email, "password": password});
    let from = [("x-forwarded-for", address)];
    crate::app::until_some("a guess is answered", async || {
        let reply = app
            .send(
                Method::POST,
                &app.url("/api/v1/auth/login"),
                &from,
                Some(body.clone()),
            )
            .await;
        (reply.status != 503).then_some(reply)
    })
    .await
}

/// F53, T20: one person's requests are counted over all servers; nobody else's are.
#[tokio::test]
async fn requests_of_a_person_are_limited_over_all_servers() {
    let limits = "rateLimit: {requestsPerMinute: 6, burst: 5, loginPerMinute: 10000}";
    let app = TestApp::builder().config(limits).start().await;
    let other = TestApp::builder().guest().config(limits).start().await;
    let (person, stranger) = (app.person().await, app.person().await);
    let mut left = Vec::new();
    for server in [&app, &other, &app, &other, &app] {
        let reply = server.get_as(&person, "/api/v1/auth/me").await.expect(200);
        assert_eq!(reply.header("ratelimit-policy"), r#""requests";q=6;w=60"#);
        left.push(reply.header("ratelimit").split(';').nth(1).unwrap().to_owned());
    }
    assert_eq!(left, ["r=4", "r=3", "r=2", "r=1", "r=0"]);
    for server in [&app, &other] {
        let refused = server.get_as(&person, "/api/v1/auth/me").await.expect(429);
        assert_eq!(refused.json()["code"], "too_many");
        let wait: u32 = refused.header("retry-after").parse().unwrap();
        assert!((1..=10).contains(&wait), "{wait}");
        assert!(refused.header("ratelimit").contains("r=0"), "{refused:?}");
    }
    app.get_as(&stranger, "/api/v1/auth/me").await.expect(200);
    assert_eq!(app.metric("tanka_limits_local_total").await, 0);
}

/// F53: wrong passwords make that address wait for that account, and nobody can lock anybody else out.
#[tokio::test]
async fn wrong_passwords_make_only_the_guesser_wait() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let guesser = "203.0.113.66";
    for _ in 0..5 {
        guess(&app, &person, "wrong horse", guesser).await.expect(401);
    }
    let refused = guess(&app, &person, &person.password, guesser).await.expect(429);
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    guess(&app, &person, &person.password, "203.0.113.67")
        .await
        .expect(200);
    let stranger = app.person().await;
    guess(&app, &stranger, &stranger.password, guesser)
        .await
        .expect(200);
    assert!(app.metric("tanka_limits_guesses_refused_total").await >= 1);
}

/// F53: a right password forgives what came before.
#[tokio::test]
async fn a_right_password_forgives() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let address = "203.0.113.68";
    for _ in 0..3 {
        for _ in 0..3 {
            guess(&app, &person, "wrong horse", address).await.expect(401);
        }
        guess(&app, &person, &person.password, address).await.expect(200);
    }
}

/// Key `rateLimit.loginPerMinute`: attempts of one account from one address, right or wrong.
#[tokio::test]
async fn logins_of_an_account_are_limited_by_the_minute() {
    let limits = "rateLimit: {requestsPerMinute: 1000, burst: 1000, loginPerMinute: 2}";
    let app = TestApp::builder().config(limits).start().await;
    let person = app.person().await;
    let address = "203.0.113.69";
    guess(&app, &person, &person.password, address).await.expect(200);
    guess(&app, &person, &person.password, address).await.expect(200);
    guess(&app, &person, &person.password, address).await.expect(429);
    // An unknown account is counted the same way, so that the limit tells nothing either.
    let nobody = Person {
        email: format!("{}@example.com", uuid::Uuid::new_v4().simple()),
        ..person
    };
    for status in [401, 401, 429] {
        guess(&app, &nobody, "wrong horse", "203.0.113.70")
            .await
            .expect(status);
    }
}
