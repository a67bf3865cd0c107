//! How often somebody may do something.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::app::{Person, Reply, TestApp, until};
use crate::cache::{LIST, remember};

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

/// Logins at the same time: far more than may wait for a hash on any machine.
const CROWD: u32 = 300;
/// What those are told who find no place to wait.
const CROWDED: &str = "Too many people log in at the moment.";

/// One login, of which nothing is tried again, from an address of its own: many from one would have to wait for each other.
async fn log_in_once(app: &TestApp, person: &Person, number: u32) -> Reply {
    let address = format!("198.51.{}.{}", 100 + number / 250, 1 + number % 250);
    let body = json!({"email": person.email, "password": person.password});
    let from = [("x-forwarded-for", address.as_str())];
    app.send(Method::POST, &app.url("/api/v1/auth/login"), &from, Some(body))
        .await
}

/// How many of these found no place; all of them are told to come back.
fn crowded_out(refused: &[&Reply]) -> i64 {
    let mut crowded = 0;
    for reply in refused {
        assert_eq!(reply.status, 503, "{reply:?}");
        assert_eq!(reply.json()["code"], "unavailable", "{reply:?}");
        assert_eq!(reply.header("retry-after"), "1", "{reply:?}");
        crowded += i64::from(reply.text.contains(CROWDED));
    }
    crowded
}

/// A crowd that logs in fills the places for hashes and nothing else: who finds none is told when to come back, and whoever reads what is
/// cached does not notice.
#[tokio::test]
async fn a_crowd_that_logs_in_is_refused_in_part_and_cached_reads_go_on() {
    const SHED: &str = "tanka_password_hashing_shed_total";
    let app = TestApp::builder().alone().start().await;
    let person = app.person().await;
    remember(&app, &person, "tea").await.expect(201);
    until("the list is cached", async || {
        app.get_as(&person, LIST).await.header("x-cache") == "hit"
    })
    .await;
    let before = app.metric(SHED).await;
    let done = AtomicBool::new(false);
    let crowd = async {
        let logins = (0..CROWD).map(|number| log_in_once(&app, &person, number));
        let replies = futures::future::join_all(logins).await;
        done.store(true, Ordering::SeqCst);
        replies
    };
    let reads = async {
        until("somebody is refused", async || app.metric(SHED).await > before).await;
        let (mut reads, mut hits, mut slowest) = (0, 0, Duration::ZERO);
        loop {
            let began = Instant::now();
            let read = app.get_as(&person, LIST).await.expect(200);
            slowest = slowest.max(began.elapsed());
            reads += 1;
            hits += u32::from(read.header("x-cache") == "hit");
            if done.load(Ordering::SeqCst) {
                return (reads, hits, slowest);
            }
        }
    };
    let (replies, (reads, hits, slowest)) = tokio::join!(crowd, reads);
    let (admitted, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    println!(
        "of {CROWD} logins at once {} were admitted; {hits} of {reads} reads beside them were hits, the slowest took {slowest:?}",
        admitted.len()
    );
    let crowded = crowded_out(&refused);
    assert!(!admitted.is_empty() && crowded > 0, "{crowded}");
    assert_eq!(app.metric(SHED).await - before, crowded, "every one is counted");
    assert!(hits * 10 >= reads * 9, "{hits} of {reads}");
    app.login(&person.email, &person.password).await.expect(200);
}

/// F53, key `rateLimit.signupPerMinute`: accounts that one address asks for; who comes from elsewhere does not notice.
#[tokio::test]
async fn signups_of_an_address_are_limited() {
    let limits =
        "rateLimit: {requestsPerMinute: 1000, burst: 1000, loginPerMinute: 10000, signupPerMinute: 3}";
    let app = TestApp::builder().config(limits).start().await;
    let signup = async |address: &str| {
        let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
        let body = json!({"email": email, "password": "correct horse battery", "name": "New"});
        let from = [("x-forwarded-for", address)];
        app.send(Method::POST, &app.url("/api/v1/auth/signup"), &from, Some(body))
            .await
    };
    let address = "203.0.113.77";
    for _ in 0..3 {
        signup(address).await.expect(201);
    }
    let refused = signup(address).await.expect(429);
    assert_eq!(refused.json()["code"], "too_many");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    signup("203.0.113.78").await.expect(201);
}
