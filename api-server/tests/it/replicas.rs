//! Reads on replicas: never stale for who brings a token, never from a replica that lags, and going on through failures.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};
use sqlx::Executor;
use tokio::time::Instant;

use crate::app::{TestApp, until};
use crate::services::{connect, control};
use crate::socket::Socket;

#[tokio::test]
async fn who_brings_a_token_reads_the_own_write() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let path = format!("/api/v1/conversations/{}", app.conversation(&person, "0").await);
    let mut served: BTreeMap<String, u32> = BTreeMap::new();
    let mut stale = 0;
    let mut added = Vec::new();
    for number in 1..=500 {
        let title = number.to_string();
        let write = app
            .as_with(&person, Method::PATCH, &path, &[], Some(json!({"title": title})))
            .await
            .expect(200);
        let started = Instant::now();
        let read = app.get_after(&person, &path, &write).await.expect(200);
        added.push(started.elapsed());
        stale += u32::from(read.json()["title"] != title);
        *served.entry(read.header("x-served-role").to_owned()).or_default() += 1;
    }
    added.sort();
    println!(
        "500 write-then-read pairs: {stale} stale, served by {served:?}, read p50 {:?}, p99 {:?}",
        added[250], added[495]
    );
    assert_eq!(stale, 0);
    assert!(served.get("replica").copied().unwrap_or(0) >= 250, "{served:?}");
}

/// Makes replicas apply commits late.
async fn delay_replicas(millis: u32) {
    for replica in [1, 2] {
        let mut connection = connect("postgres", replica).await;
        let set = format!("ALTER SYSTEM SET recovery_min_apply_delay = '{millis}ms'");
        connection
            .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(set)))
            .await
            .unwrap();
        connection.execute("SELECT pg_reload_conf()").await.unwrap();
        until("the delay is in force", async || {
            let mut connection = connect("postgres", replica).await;
            let shown: String =
                sqlx::query_scalar("SELECT setting FROM pg_settings WHERE name = 'recovery_min_apply_delay'")
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
            shown == millis.to_string()
        })
        .await;
    }
}

/// H17, F06: 3,000 writes, each read with its token, while replicas apply at once, 50 ms late and 500 ms late: never stale. Replicas serve
/// while they can, at least 95 % of the reads while they apply at once; the primary serves what they cannot have yet.
#[tokio::test]
async fn replicas_that_apply_late_never_serve_an_own_write_stale() {
    let app = TestApp::builder().alone().start().await;
    let person = app.person().await;
    let path = format!("/api/v1/conversations/{}", app.conversation(&person, "0").await);
    for (delay, pairs) in [(0, 2_000), (50, 500), (500, 500)] {
        delay_replicas(delay).await;
        let (mut stale, mut by_replica, mut added) = (0, 0, Vec::new());
        for number in 0..pairs {
            let title = format!("{delay} {number}");
            let write = app
                .as_with(&person, Method::PATCH, &path, &[], Some(json!({"title": title})))
                .await
                .expect(200);
            let started = Instant::now();
            let read = app.get_after(&person, &path, &write).await.expect(200);
            added.push(started.elapsed());
            stale += u32::from(read.json()["title"] != title);
            by_replica += usize::from(read.header("x-served-role") == "replica");
        }
        added.sort();
        println!(
            "{pairs} pairs at {delay} ms delay: {stale} stale, {by_replica} by replicas, read p50 {:?}, p99 {:?}",
            added[pairs / 2],
            added[pairs * 99 / 100]
        );
        assert_eq!(stale, 0);
        // The first round, so that a failure leaves no delay behind.
        if delay == 0 {
            assert!(by_replica * 100 >= pairs * 95, "{by_replica} of {pairs}");
        }
    }
    delay_replicas(0).await;
    until("everything is well again", async || {
        app.deep().await.status == 200
    })
    .await;
}

/// An event carries with what to read that of which it tells: never stale, however late replicas are, and whether the event came as it
/// happened or from history.
#[tokio::test]
async fn what_an_event_tells_of_is_read_with_its_token() {
    let app = TestApp::builder().alone().start().await;
    let person = app.person().await;
    let path = format!("/api/v1/conversations/{}", app.conversation(&person, "0").await);
    let (mut socket, place) = Socket::connect(&app, &person, None).await;
    delay_replicas(500).await;
    let title_after = async |event: &Value| {
        let token = event["consistency_token"].as_str().unwrap();
        let headers = [("x-consistency-token", token)];
        let read = app.as_with(&person, Method::GET, &path, &headers, None).await;
        read.expect(200).json()["title"].clone()
    };
    for number in 1..=50 {
        let title = number.to_string();
        app.as_with(&person, Method::PATCH, &path, &[], Some(json!({"title": title})))
            .await
            .expect(200);
        let event = socket.frame().await;
        assert_eq!(event["data"]["title"], title);
        assert_eq!(title_after(&event).await, title);
    }
    let resume = json!({"offset": place["offset"], "epoch": place["epoch"]});
    let (mut again, _) = Socket::connect(&app, &person, Some(resume)).await;
    let mut last = Value::Null;
    for _ in 0..50 {
        last = again.frame().await;
    }
    assert_eq!(last["data"]["title"], "50");
    assert_eq!(title_after(&last).await, "50");
    delay_replicas(0).await;
    until("everything is well again", async || {
        app.deep().await.status == 200
    })
    .await;
}

/// Who names the own last write begins after it, whatever a late replica says and whether somebody listens already; who does not may be
/// told of it.
#[tokio::test]
async fn who_connects_with_the_token_of_a_write_begins_after_it() {
    let app = TestApp::builder().alone().start().await;
    let person = app.person().await;
    app.conversation(&person, "first").await;
    let (_earlier, _) = Socket::connect(&app, &person, None).await;
    delay_replicas(500).await;
    for _ in 0..5 {
        let conversation = app.conversation(&person, "known").await;
        let (mut socket, _) = Socket::connect(&app, &person, None).await;
        let path = format!("/api/v1/conversations/{conversation}/messages");
        app.post_as(&person, &path, json!({"content": "new"}))
            .await
            .expect(201);
        assert_eq!(socket.frame().await["event"], "message.created");
    }
    let newcomer = app.person().await;
    let conversation = app.conversation(&newcomer, "known").await;
    let (mut socket, _) = Socket::connect(&app, &newcomer, None).await;
    let room = json!({"name": "Room"});
    let room = app
        .post_as(&newcomer, "/api/v1/workrooms", room)
        .await
        .expect(201);
    let room = room.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(socket.frame().await["event"], "workroom.joined", "{conversation}");
    let subscribed = socket.subscribe(&format!("workroom:{room}:updates"), None).await;
    let path = format!("/api/v1/workrooms/{room}/messages");
    app.post_as(&newcomer, &path, json!({"content": "new"}))
        .await
        .expect(201);
    let event = socket.frame().await;
    assert_eq!(event["data"]["content"], "new");
    assert_eq!(
        event["offset"].as_i64(),
        Some(subscribed["offset"].as_i64().unwrap() + 1)
    );
    let foreign = json!({"type": "connect", "token": newcomer.token, "consistency_token": "0".repeat(56)});
    assert_eq!(Socket::open(&app, foreign).await.closed().await.0, 4400);
    delay_replicas(0).await;
    until("everything is well again", async || {
        app.deep().await.status == 200
    })
    .await;
}

/// A limit below the heartbeat of old does not take healthy replicas out: probes and heartbeats follow it.
#[tokio::test]
async fn a_small_limit_ejects_no_healthy_replica() {
    let app = TestApp::builder().alone().start().await;
    let mut config = (*app.running.app.config()).clone();
    config.database.max_replica_lag = crds::units::Span::from_millis(400);
    app.running.app.live().set(config);
    let person = app.person().await;
    let path = format!(
        "/api/v1/conversations/{}",
        app.conversation(&person, "Here").await
    );
    until("the conversation is everywhere", async || {
        app.get_as(&person, &path).await.status == 200
    })
    .await;
    let ejections = async || {
        let mut sum = 0;
        for replica in ["pg-1", "pg-2"] {
            sum += app
                .metric(&format!("tanka_database_ejections_total{{server=\"{replica}\"}}"))
                .await;
        }
        sum
    };
    let before = ejections().await;
    let (started, mut reads, mut by_replica) = (Instant::now(), 0, 0);
    while started.elapsed() < Duration::from_secs(5) {
        let read = app.get_as(&person, &path).await.expect(200);
        reads += 1;
        by_replica += u32::from(read.header("x-served-role") == "replica");
    }
    println!(
        "{by_replica} of {reads} reads by replicas at a limit of 400 ms, {} ejections",
        ejections().await - before
    );
    assert!(by_replica * 100 >= reads * 95, "{by_replica} of {reads}");
}

#[tokio::test]
async fn a_token_that_is_not_ours_is_refused() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let forged = "00".repeat(28);
    let headers = [("x-consistency-token", forged.as_str())];
    app.as_with(&person, Method::GET, "/api/v1/auth/me", &headers, None)
        .await
        .expect(400);
}

#[tokio::test]
async fn a_replica_that_stops_replaying_is_ejected_and_reads_go_on() {
    let app = TestApp::builder().alone().start().await;
    let person = app.person().await;
    let conversation = app.conversation(&person, "Before").await;
    let path = format!("/api/v1/conversations/{conversation}");
    until("the conversation is everywhere", async || {
        app.get_as(&person, &path).await.status == 200
    })
    .await;

    let mut replica = connect("postgres", 2).await;
    replica.execute("SELECT pg_wal_replay_pause()").await.unwrap();
    let paused = Instant::now();
    let renamed = app
        .as_with(
            &person,
            Method::PATCH,
            &path,
            &[],
            Some(json!({"title": "After"})),
        )
        .await
        .expect(200);
    let (mut last_by_paused, mut reads) = (Duration::ZERO, 0);
    while paused.elapsed() < Duration::from_secs(3) {
        let reply = app.get_as(&person, &path).await.expect(200);
        reads += 1;
        if reply.header("x-served-by") == "pg-2" {
            last_by_paused = paused.elapsed();
        }
        let own = app.get_after(&person, &path, &renamed).await.expect(200);
        assert_eq!(own.json()["title"], "After");
    }
    assert!(
        app.metric("tanka_database_ejections_total{server=\"pg-2\"}")
            .await
            >= 1
    );
    println!("paused replica served its last read after {last_by_paused:?}, {reads} reads went on");
    replica.execute("SELECT pg_wal_replay_resume()").await.unwrap();
    assert!(
        last_by_paused < Duration::from_millis(1_100),
        "{last_by_paused:?}"
    );
    until("the replica serves again", async || {
        app.get_as(&person, &path).await.header("x-served-by") == "pg-2"
    })
    .await;
}

#[tokio::test]
async fn a_hanging_replica_does_not_take_reads_with_it() {
    let app = TestApp::builder().alone().start().await;
    let person = app.person().await;
    let path = format!(
        "/api/v1/conversations/{}",
        app.conversation(&person, "Here").await
    );
    until("the conversation is everywhere", async || {
        app.get_as(&person, &path).await.status == 200
    })
    .await;
    control("pause", "pg-replica-2");
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    while started.elapsed() < Duration::from_secs(4) {
        let began = Instant::now();
        app.get_as(&person, &path).await.expect(200);
        slowest = slowest.max(began.elapsed());
    }
    control("resume", "pg-replica-2");
    println!("slowest read beside a frozen replica: {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    until("the replica is back", async || {
        app.metric("tanka_database_instance_up{server=\"pg-2\"}").await > 0
    })
    .await;
}

#[tokio::test]
async fn a_write_that_meets_a_restart_of_the_primary_is_held() {
    let app = TestApp::builder().alone().start().await;
    let person = app.person().await;
    let path = format!(
        "/api/v1/conversations/{}/messages",
        app.conversation(&person, "Busy").await
    );
    let write = |number: u32| {
        let (app, person, path) = (&app, &person, &path);
        async move {
            let key = format!("message-{number}");
            let headers = [("idempotency-key", key.as_str())];
            app.as_with(
                person,
                Method::POST,
                path,
                &headers,
                Some(json!({"content": key})),
            )
            .await
        }
    };
    control("kill", "pg-primary");
    let during = async { futures::future::join_all((0..10).map(write)).await };
    let (replies, ()) = tokio::join!(during, async {
        until("writes are held", async || {
            app.metric("tanka_database_writes_held").await > 0
        })
        .await;
        tokio::task::spawn_blocking(|| control("start", "pg-primary"))
            .await
            .unwrap();
    });
    for reply in &replies {
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    let list = app
        .get_after(&person, &format!("{path}?limit=100"), &replies[9])
        .await
        .expect(200)
        .json();
    assert_eq!(list["items"].as_array().unwrap().len(), 10);
    until("everything is well again", async || {
        app.deep().await.status == 200
    })
    .await;
}

#[tokio::test]
async fn reads_go_on_without_a_primary() {
    let app = TestApp::builder().alone().start().await;
    let person = app.person().await;
    let path = format!(
        "/api/v1/conversations/{}",
        app.conversation(&person, "Read me").await
    );
    until("the conversation is everywhere", async || {
        app.get_as(&person, &path).await.status == 200
    })
    .await;
    control("kill", "pg-primary");
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        let reply = app.get_as(&person, &path).await.expect(200);
        assert_eq!(reply.header("x-served-role"), "replica");
    }
    let report = app.deep().await.expect(503).json();
    assert_eq!(report["write"]["ok"], false);
    assert!(
        report["write"]["error"]
            .as_str()
            .is_some_and(|error| !error.is_empty()),
        "{report}"
    );
    control("start", "pg-primary");
    until("everything is well again", async || {
        app.deep().await.status == 200
    })
    .await;
}
