//! Events on sockets: within a server, between servers, after a pause, without Redis.

use std::time::Duration;

use api_server::domain::event::Channel;
use axum::http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::app::{Person, TestApp, until};
use crate::cache::sentinels;
use crate::services::control;
use crate::socket::Socket;

async fn say(app: &TestApp, person: &Person, conversation: &str, content: &str) {
    let path = format!("/api/v1/conversations/{conversation}/messages");
    app.post_as(person, &path, json!({"content": content}))
        .await
        .expect(201);
}

#[tokio::test]
async fn a_message_reaches_sockets_of_its_person_on_every_server_and_nobody_else() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let (person, stranger) = (app.person().await, app.person().await);
    let conversation = app.conversation(&person, "Talk").await;
    let (mut near, _) = Socket::connect(&app, &person, None).await;
    let (mut far, _) = Socket::connect(&other, &person, None).await;
    let (mut foreign, _) = Socket::connect(&app, &stranger, None).await;
    let started = Instant::now();
    say(&app, &person, &conversation, "hello").await;
    let frame = near.frame().await;
    assert_eq!(frame["event"], "message.created");
    assert_eq!(frame["channel"], format!("user:{}", person.user_id));
    assert_eq!(frame["data"]["content"], "hello");
    assert_eq!(far.frame().await, frame);
    println!(
        "message on the socket of another server after {:?}",
        started.elapsed()
    );
    app.conversation(&stranger, "Own").await;
    assert_eq!(
        foreign.frame().await["event"],
        "conversation.created",
        "the first event is an own one"
    );
}

/// F39: what a message costs follows from who gets it and not from who is connected: a channel knows its own members, and a frame is handed
/// to them alone.
#[tokio::test]
async fn a_message_is_handed_to_the_members_of_its_channel_alone() {
    let app = TestApp::start().await;
    let (person, stranger) = (app.person().await, app.person().await);
    let conversation = app.conversation(&person, "Talk").await;
    let (mut socket, _) = Socket::connect(&app, &person, None).await;
    let mut others = Vec::new();
    for _ in 0..40 {
        others.push(Socket::connect(&app, &stranger, None).await.0);
    }
    let members = |person: &Person| {
        let channel = Channel::User(person.user_id.parse().unwrap());
        app.running.app.hub().members(channel).len()
    };
    assert_eq!((members(&person), members(&stranger)), (1, others.len()));
    let handed = async || {
        let mut sum = 0;
        for source in ["local", "redis", "poll"] {
            let name = format!(r#"tanka_realtime_deliveries_total{{source="{source}"}}"#);
            sum += app.metric(&name).await;
        }
        sum
    };
    let before = handed().await;
    for number in 0..20 {
        say(&app, &person, &conversation, &number.to_string()).await;
    }
    socket.contents(20).await;
    assert_eq!(handed().await - before, 20, "one for each message");
    app.conversation(&stranger, "Own").await;
    for other in &mut others {
        let event = other.frame().await;
        assert_eq!(
            event["event"], "conversation.created",
            "the first one is an own one"
        );
    }
    assert_eq!(
        handed().await - before,
        60,
        "and one for each socket of the stranger"
    );
}

#[tokio::test]
async fn who_comes_back_misses_nothing_and_gets_nothing_twice() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let conversation = app.conversation(&person, "Talk").await;
    let (mut socket, connected) = Socket::connect(&app, &person, None).await;
    assert_eq!(connected["recovered"], false);
    say(&app, &person, &conversation, "0").await;
    let seen = socket.frame().await;
    drop(socket);
    for number in 1..=5 {
        say(&app, &person, &conversation, &number.to_string()).await;
    }
    let resume = json!({"offset": seen["offset"], "epoch": seen["epoch"]});
    let (mut socket, connected) = Socket::connect(&app, &person, Some(resume.clone())).await;
    assert_eq!(connected["recovered"], true);
    say(&app, &person, &conversation, "6").await;
    assert_eq!(socket.contents(6).await, ["1", "2", "3", "4", "5", "6"]);
    for (what, resume) in [
        (
            "an offset of the future",
            json!({"offset": 1_000_000, "epoch": seen["epoch"]}),
        ),
        (
            "another epoch",
            json!({"offset": seen["offset"], "epoch": uuid::Uuid::new_v4()}),
        ),
    ] {
        let (_, connected) = Socket::connect(&app, &person, Some(resume)).await;
        assert_eq!(connected["recovered"], false, "{what}");
    }
}

/// What was missed is handed out in parts of a few events; none is left out between two of them.
#[tokio::test]
async fn a_history_of_many_parts_comes_whole_and_in_order() {
    const MISSED: usize = 230;
    let app = TestApp::start().await;
    let person = app.person().await;
    let conversation = app.conversation(&person, "Talk").await;
    let (socket, place) = Socket::connect(&app, &person, None).await;
    drop(socket);
    let mut said = Vec::new();
    for number in 0..MISSED {
        // Some are larger than a part, most are smaller.
        let content = format!(
            "{number} {}",
            "x".repeat(if number % 40 == 0 { 20_000 } else { 500 })
        );
        say(&app, &person, &conversation, &content).await;
        said.push(content);
    }
    let resume = json!({"offset": place["offset"], "epoch": place["epoch"]});
    let (mut socket, connected) = Socket::connect(&app, &person, Some(resume)).await;
    assert_eq!(connected["recovered"], true);
    assert_eq!(socket.contents(MISSED).await, said);
}

#[tokio::test]
async fn resuming_while_messages_come_in_has_no_gap() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let conversation = app.conversation(&person, "Talk").await;
    let (mut socket, _) = Socket::connect(&app, &person, None).await;
    say(&app, &person, &conversation, "start").await;
    let mut last = socket.frame().await;
    let writer = async {
        for number in 0..60 {
            say(&app, &person, &conversation, &number.to_string()).await;
        }
    };
    let reader = async {
        let mut seen: Vec<String> = Vec::new();
        while seen.len() < 60 {
            // Comes back after every few events, at whatever moment that is.
            let resume = json!({"offset": last["offset"], "epoch": last["epoch"]});
            let (mut socket, connected) = Socket::connect(&app, &person, Some(resume)).await;
            assert_eq!(connected["recovered"], true);
            for _ in 0..4 {
                if seen.len() < 60 {
                    last = socket.frame().await;
                    seen.push(last["data"]["content"].as_str().unwrap().to_owned());
                }
            }
        }
        seen
    };
    let ((), seen) = tokio::join!(writer, reader);
    let wanted: Vec<_> = (0..60).map(|number: i32| number.to_string()).collect();
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn a_ticket_opens_one_socket() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let ticket = app
        .as_with(&person, Method::POST, "/api/v1/auth/ws-ticket", &[], None)
        .await
        .expect(201)
        .json();
    let first = json!({"type": "connect", "ticket": ticket["ticket"]});
    assert_eq!(
        Socket::open(&app, first.clone()).await.frame().await["type"],
        "connected"
    );
    assert_eq!(Socket::open(&app, first).await.closed().await.0, 4001);
}

#[tokio::test]
async fn who_cannot_prove_who_he_is_is_closed() {
    let app = TestApp::start().await;
    let token = format!("tka_{}", "x".repeat(43));
    for (first, code) in [
        (json!({"type": "connect", "token": token}), 4001),
        (json!({"type": "connect", "token": "nonsense"}), 4001),
        (json!({"type": "ping"}), 4400),
        (json!("?"), 4400),
    ] {
        assert_eq!(Socket::open(&app, first).await.closed().await.0, code);
    }
}

#[tokio::test]
async fn logging_out_closes_the_sockets_of_the_session_on_every_server() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let person = app.person().await;
    let (mut socket, _) = Socket::connect(&other, &person, None).await;
    let started = Instant::now();
    app.as_with(&person, Method::POST, "/api/v1/auth/logout", &[], None)
        .await
        .expect(204);
    assert_eq!(socket.closed().await.0, 4003);
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_client_that_pings_is_answered() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let (mut socket, _) = Socket::connect(&app, &person, None).await;
    socket.send(json!({"type": "ping"})).await;
    assert_eq!(socket.frame().await, json!({"type": "pong"}));
    socket.send(json!({"type": "renew", "token": person.token})).await;
    assert_eq!(socket.frame().await["type"], "renewed");
}

#[tokio::test]
async fn a_page_of_another_origin_opens_no_socket() {
    let app = TestApp::start().await;
    let upgrade = [
        ("origin", "https://evil.example"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    app.send(Method::GET, &app.url("/ws"), &upgrade, None)
        .await
        .expect(403);
}

/// F54: Redis is used with the `redis` crate, which says so of itself, through Sentinels: no server is configured, and the one that answers
/// is the primary that all of them name.
#[tokio::test]
async fn redis_is_found_through_sentinels() {
    let app = TestApp::start().await;
    let settings = app.running.app.config().redis.clone();
    assert!(settings.url_file.is_none(), "{settings:?}");
    let connected = app.running.app.redis().get().unwrap();
    let mut connection = connected.all().next().unwrap();
    let client: String = redis::cmd("CLIENT")
        .arg("INFO")
        .query_async(&mut connection)
        .await
        .unwrap();
    let field = |name: &str| {
        client
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    assert_eq!(field("lib-name"), Some("redis-rs"), "{client}");
    let sentinels = sentinels().await;
    assert_eq!(sentinels.len(), settings.sentinels.len());
    for mut sentinel in sentinels {
        let (host, port): (String, String) = redis::cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(&settings.master_name)
            .query_async(&mut sentinel)
            .await
            .unwrap();
        let named = format!("{host}:{port}");
        assert_eq!(field("laddr"), Some(named.as_str()), "{client}");
    }
}

#[tokio::test]
async fn without_redis_everything_works_and_events_still_arrive() {
    let app = TestApp::builder().alone().start().await;
    let other = TestApp::builder().guest().start().await;
    let person = app.person().await;
    let conversation = app.conversation(&person, "Talk").await;
    let (mut far, _) = Socket::connect(&other, &person, None).await;
    say(&app, &person, &conversation, "with Redis").await;
    assert_eq!(far.contents(1).await, ["with Redis"]);
    for service in ["redis-0", "redis-1", "redis-2"] {
        control("kill", service);
    }
    until("both servers know", async || {
        app.metric("tanka_redis_up").await + other.metric("tanka_redis_up").await == 0
    })
    .await;
    let started = Instant::now();
    for number in 0..5 {
        say(&app, &person, &conversation, &number.to_string()).await;
    }
    assert_eq!(far.contents(5).await, ["0", "1", "2", "3", "4"]);
    println!(
        "5 messages without Redis on the socket of another server after {:?}",
        started.elapsed()
    );
    let report: Value = app.deep().await.expect(503).json();
    assert_eq!(report["redis"]["ok"], false);
    assert_eq!(report["write"]["ok"], true);
    app.get("/ready").await.expect(200);
    for service in ["redis-0", "redis-1", "redis-2"] {
        control("start", service);
    }
    until("both servers are connected again", async || {
        app.metric("tanka_realtime_subscribed").await + other.metric("tanka_realtime_subscribed").await == 2
    })
    .await;
    say(&app, &person, &conversation, "again").await;
    assert_eq!(far.contents(1).await, ["again"]);
}
