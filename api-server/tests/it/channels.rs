//! Channels: who may listen, who is put out, what arrives where, and what a connection may not do.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::{Person, TestApp, until, until_some};
use crate::services::connect;
use crate::socket::{Received, Socket};
use crate::workrooms::{admit, expel, workroom};

/// The channel of a room.
fn channel_of(room: &str) -> String {
    format!("workroom:{}:updates", room.rsplit_once('/').unwrap().1)
}

async fn say(app: &TestApp, person: &Person, room: &str, content: &str) {
    app.post_as(person, &format!("{room}/messages"), json!({"content": content}))
        .await
        .expect(201);
}

/// C15, F07: messages of a room reach those who listen to it, on every server, and nobody else; Redis carries only what somebody
/// listens to.
#[tokio::test]
async fn a_room_is_heard_by_members_who_listen_on_every_server() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let owner = app.person().await;
    let (member, silent) = (
        app.colleague(&owner, "member").await,
        app.colleague(&owner, "member").await,
    );
    let room = workroom(&app, &owner, "Room").await;
    admit(&app, &owner, &room, &member).await;
    admit(&app, &owner, &room, &silent).await;
    let channel = channel_of(&room);
    let (mut near, _) = Socket::connect(&app, &owner, None).await;
    let (mut far, _) = Socket::connect(&other, &member, None).await;
    let (mut deaf, _) = Socket::connect(&other, &silent, None).await;
    let place = near.subscribe(&channel, None).await;
    assert_eq!(
        (&place["offset"], &place["recovered"]),
        (&json!(2), &json!(false))
    );
    far.subscribe(&channel, None).await;
    let started = Instant::now();
    say(&app, &member, &room, "hello").await;
    let frame = near.frame().await;
    assert_eq!(
        (&frame["event"], &frame["channel"], &frame["offset"]),
        (&json!("workroom.message.created"), &json!(channel), &json!(3))
    );
    assert_eq!(frame["data"]["content"], "hello");
    assert_eq!(far.frame().await, frame);
    println!(
        "message of a room on another server after {:?}",
        started.elapsed()
    );
    assert_eq!(
        subscribers(&app, &channel).await,
        2,
        "one subscription of each server"
    );
    far.send(json!({"type": "unsubscribe", "channel": channel})).await;
    assert_eq!(far.frame().await["reason"], "asked");
    say(&app, &owner, &room, "unheard").await;
    app.conversation(&silent, "Own").await;
    app.conversation(&member, "Own").await;
    assert_eq!(deaf.frame().await["event"], "conversation.created");
    assert_eq!(far.frame().await["event"], "conversation.created");
    assert_eq!(near.frame().await["data"]["content"], "unheard");
    drop(near);
    until("nobody is subscribed in Redis", async || {
        subscribers(&app, &channel).await == 0
    })
    .await;
}

/// Processes that Redis delivers a channel to.
async fn subscribers(app: &TestApp, channel: &str) -> i64 {
    let connected = app.running.app.redis().get().unwrap();
    let name = format!("tanka:event:{channel}");
    let mut ask = redis::cmd("PUBSUB");
    ask.arg("SHARDNUMSUB").arg(&name);
    let (_, count): (String, i64) = ask.query_async(&mut connected.of(&name)).await.unwrap();
    count
}

/// F08, H14: who reads nothing is closed with its own code, has cost no more than its queue, and delays nobody.
#[tokio::test]
async fn a_client_that_reads_nothing_is_closed_and_delays_nobody() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let room = workroom(&app, &person, "Room").await;
    let (mut swift, _) = Socket::connect(&app, &person, None).await;
    let (mut slow, _) = Socket::connect(&app, &person, None).await;
    swift.subscribe(&channel_of(&room), None).await;
    slow.subscribe(&channel_of(&room), None).await;
    let long = "x".repeat(30_000);
    let (mut most, mut longest) = (0, Duration::ZERO);
    let closed = r#"tanka_websocket_closed_total{reason="slow"}"#;
    let mut sent = 0;
    // The kernel takes some megabytes before the server notices anything.
    while app.metric(closed).await == 0 {
        assert!(sent < 1_500, "the slow client is still there");
        let started = Instant::now();
        say(&app, &person, &room, &long).await;
        assert_eq!(swift.frame().await["data"]["content"], long);
        longest = longest.max(started.elapsed());
        most = most.max(app.metric("tanka_realtime_queue_bytes ").await);
        sent += 1;
    }
    println!(
        "slow client closed after {sent} messages, {most} bytes queued at most, longest delivery {longest:?}"
    );
    assert!(most <= 160 << 10, "{most}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    assert_eq!(app.metric("tanka_realtime_queue_bytes ").await, 0);
}

/// C16: one publication, and every connection of the tenant has it; no other tenant's has.
#[tokio::test]
async fn a_broadcast_reaches_the_whole_tenant_and_nobody_else() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let (owner, stranger) = (app.person().await, app.person().await);
    let member = app.colleague(&owner, "member").await;
    let (mut near, _) = Socket::connect(&app, &member, None).await;
    let (mut far, _) = Socket::connect(&other, &owner, None).await;
    let (mut foreign, _) = Socket::connect(&other, &stranger, None).await;
    let said = json!({"message": "fire drill"});
    app.post_as(&owner, "/api/v1/tenant/broadcast", said)
        .await
        .expect(202);
    let frame = near.frame().await;
    assert_eq!(frame["channel"], format!("tenant:{}:broadcast", owner.tenant_id));
    assert_eq!(frame["data"]["message"], "fire drill");
    assert_eq!(far.frame().await, frame);
    app.conversation(&stranger, "Own").await;
    assert_eq!(foreign.frame().await["event"], "conversation.created");
}

/// W-4, API1: what a person may not listen to is refused, whatever it is, and the connection goes on.
#[tokio::test]
async fn channels_of_others_are_refused_and_told_from_none() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    let (manager, foreign) = (app.colleague(&owner, "admin").await, app.person().await);
    let member = app.colleague(&owner, "member").await;
    let room = workroom(&app, &member, "Room").await;
    let own = format!("user:{}", manager.user_id);
    let (mut socket, _) = Socket::connect(&app, &manager, None).await;
    for (channel, code) in [
        (channel_of(&room), "forbidden"),
        (format!("workroom:{}:updates", Uuid::new_v4()), "forbidden"),
        (format!("user:{}", owner.user_id), "forbidden"),
        (format!("tenant:{}:broadcast", foreign.tenant_id), "forbidden"),
        ("nonsense".to_owned(), "forbidden"),
        (own.clone(), "already_subscribed"),
    ] {
        socket
            .send(json!({"type": "subscribe", "channel": channel}))
            .await;
        let refused = json!({"type": "error", "code": code, "channel": channel, "fatal": false});
        assert_eq!(socket.frame().await, refused);
    }
    for (channel, code) in [(own, "permanent_channel"), (channel_of(&room), "not_subscribed")] {
        socket
            .send(json!({"type": "unsubscribe", "channel": channel}))
            .await;
        assert_eq!(socket.frame().await["code"], code);
    }
    // What is refused leaves nothing behind: a message of that room does not arrive.
    say(&app, &member, &room, "secret").await;
    app.conversation(&manager, "Own").await;
    assert_eq!(socket.frame().await["event"], "conversation.created");
}

/// W-4: who is removed hears that and nothing after it, on every server, and may not come back.
#[tokio::test]
async fn who_is_removed_from_a_room_hears_nothing_more_within_a_second() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let owner = app.person().await;
    let member = app.colleague(&owner, "member").await;
    let room = workroom(&app, &owner, "Room").await;
    admit(&app, &owner, &room, &member).await;
    let channel = channel_of(&room);
    let (mut socket, _) = Socket::connect(&other, &member, None).await;
    socket.subscribe(&channel, None).await;
    let started = Instant::now();
    expel(&app, &owner, &room, &member).await.expect(204);
    say(&app, &owner, &room, "about you").await;
    let mut told: Vec<String> = Vec::new();
    // The room's channel ends with the one, the person's own says the other; which comes first is open.
    while !["unsubscribed", "workroom.left"]
        .iter()
        .all(|wanted| told.iter().any(|name| name == wanted))
    {
        let frame = socket.frame().await;
        assert_ne!(frame["data"]["content"], "about you");
        told.push(
            frame["event"]
                .as_str()
                .or(frame["type"].as_str())
                .unwrap()
                .to_owned(),
        );
    }
    let took = started.elapsed();
    println!("put out of a room on another server after {took:?}: {told:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    socket
        .send(json!({"type": "subscribe", "channel": channel}))
        .await;
    let answer = until_answer(&mut socket).await;
    assert_eq!(answer["code"], "forbidden", "{answer}");
    app.conversation(&member, "Own").await;
    assert_eq!(socket.frame().await["event"], "conversation.created");
}

/// The next frame that is no event.
async fn until_answer(socket: &mut Socket) -> Value {
    loop {
        let frame = socket.frame().await;
        if frame["type"] != "event" {
            return frame;
        }
    }
}

/// A process that ends between its commit and its message tells nobody. The others find out all the same, and in time.
#[tokio::test]
async fn a_removal_that_nobody_was_told_of_is_found_within_a_second() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    let member = app.colleague(&owner, "member").await;
    let room = workroom(&app, &owner, "Room").await;
    admit(&app, &owner, &room, &member).await;
    let (mut socket, _) = Socket::connect(&app, &member, None).await;
    socket.subscribe(&channel_of(&room), None).await;
    // As the other process would have written it, without the messages after it.
    let mut connection = connect("postgres", 0).await;
    let started = Instant::now();
    for statement in [
        "DELETE FROM workroom_members WHERE user_id = $1::text::uuid",
        "INSERT INTO access_changes (tenant_id, user_id) SELECT tenant_id, id FROM users WHERE id = $1::text::uuid",
    ] {
        sqlx::query(statement)
            .bind(&member.user_id)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let frame = socket.frame().await;
    assert_eq!(
        (&frame["type"], &frame["reason"]),
        (&json!("unsubscribed"), &json!("removed"))
    );
    println!("found in the table after {:?}", started.elapsed());
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

/// W-3: locking a person out closes the person's connections on every server.
#[tokio::test]
async fn locking_a_person_out_closes_the_connections() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let owner = app.person().await;
    let member = app.colleague(&owner, "member").await;
    let (mut socket, _) = Socket::connect(&other, &member, None).await;
    let started = Instant::now();
    let path = format!("/api/v1/tenant/users/{}", member.user_id);
    app.as_with(
        &owner,
        Method::PATCH,
        &path,
        &[],
        Some(json!({"is_active": false})),
    )
    .await
    .expect(200);
    loop {
        match socket.receive().await {
            Received::Closed(code, _) => {
                assert_eq!(code, 4003);
                break;
            }
            Received::Frame(frame) => assert_ne!(frame["event"], "message.created"),
        }
    }
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

/// History is bounded by its configured size: who missed more is told so, and gets nothing rather than a part.
#[tokio::test]
async fn who_missed_more_than_is_kept_is_told_so() {
    let app = TestApp::builder()
        .config("websocket: {historySize: 3}")
        .start()
        .await;
    let person = app.person().await;
    let room = workroom(&app, &person, "Room").await;
    let channel = channel_of(&room);
    let (mut socket, _) = Socket::connect(&app, &person, None).await;
    socket.subscribe(&channel, None).await;
    say(&app, &person, &room, "0").await;
    // The answer to the subscription may come from a replica that is a moment behind; the event itself says where it stands.
    let start = loop {
        let frame = socket.frame().await;
        if frame["channel"] == channel && frame["data"]["content"] == "0" {
            break frame;
        }
    };
    drop(socket);
    for number in 1..=3 {
        say(&app, &person, &room, &number.to_string()).await;
    }
    let resume = json!({"offset": start["offset"], "epoch": start["epoch"]});
    let (mut socket, _) = Socket::connect(&app, &person, None).await;
    let place = socket.subscribe(&channel, Some(resume.clone())).await;
    assert_eq!(place["recovered"], true);
    for number in 1..=3 {
        assert_eq!(socket.frame().await["data"]["content"], number.to_string());
    }
    say(&app, &person, &room, "4").await;
    assert_eq!(socket.frame().await["data"]["content"], "4");
    let (mut socket, _) = Socket::connect(&app, &person, None).await;
    let place = socket.subscribe(&channel, Some(resume)).await;
    assert_eq!(
        (&place["recovered"], &place["offset"]),
        (&json!(false), &json!(5))
    );
    say(&app, &person, &room, "5").await;
    assert_eq!(socket.frame().await["data"]["content"], "5");
}

/// C17, C18, F40, F41: connections of a tenant over all servers, and who is in a room; they are gone when they end.
#[tokio::test]
async fn the_registry_knows_connections_of_a_tenant_over_all_servers() {
    let app = TestApp::start().await;
    let other = TestApp::builder().guest().start().await;
    let (owner, stranger) = (app.person().await, app.person().await);
    let member = app.colleague(&owner, "member").await;
    let room = workroom(&app, &owner, "Room").await;
    admit(&app, &owner, &room, &member).await;
    let (mut near, _) = Socket::connect(&app, &owner, None).await;
    let (mut far, _) = Socket::connect(&other, &member, None).await;
    let (_foreign, _) = Socket::connect(&other, &stranger, None).await;
    near.subscribe(&channel_of(&room), None).await;
    far.subscribe(&channel_of(&room), None).await;
    let path = "/api/v1/tenant/connections";
    let listing = until_some("both connections are known", async || {
        let listing = app.get_as(&owner, path).await.expect(200).json();
        (listing["total"] == 2).then_some(listing)
    })
    .await;
    assert_eq!(listing["complete"], true);
    assert_eq!(listing["nodes"].as_array().unwrap().len(), 2);
    let mut users: Vec<_> = listing["connections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|connection| connection["user_id"].as_str().unwrap().to_owned())
        .collect();
    users.sort_unstable();
    let mut wanted = vec![owner.user_id.clone(), member.user_id.clone()];
    wanted.sort_unstable();
    assert_eq!(users, wanted);
    until("both are in the room", async || {
        let presence = app
            .get_as(&member, &format!("{room}/presence"))
            .await
            .expect(200)
            .json();
        presence["user_ids"] == json!(wanted)
    })
    .await;
    app.get_as(&stranger, &format!("{room}/presence"))
        .await
        .expect(404);
    app.get_as(&member, path).await.expect(403);
    let started = Instant::now();
    app.get_as(&owner, path).await.expect(200);
    println!("registry answered in {:?}", started.elapsed());
    drop(far);
    until("the closed one is gone", async || {
        app.get_as(&owner, path).await.expect(200).json()["total"] == 1
    })
    .await;
}

/// The metrics of real time are there, and move.
#[tokio::test]
async fn metrics_of_connections_move() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let (mut socket, _) = Socket::connect(&app, &person, None).await;
    app.conversation(&person, "One").await;
    socket.frame().await;
    assert_eq!(app.metric("tanka_realtime_subscriptions ").await, 2);
    assert_eq!(app.metric("tanka_realtime_queue_bytes ").await, 0);
    assert!(
        app.metric(r#"tanka_realtime_delivery_delay_seconds_count{source="local"}"#)
            .await
            > 0
    );
    assert!(app.metric("tanka_realtime_redis_reconnects_total").await > 0);
    drop(socket);
    until("the memberships are gone", async || {
        app.metric("tanka_realtime_subscriptions ").await == 0
    })
    .await;
}

/// Publishes a frame as another server does.
async fn tell(app: &TestApp, frame: &Value) {
    let name = format!("tanka:event:{}", frame["channel"].as_str().unwrap());
    let connected = app.running.app.redis().get().unwrap();
    redis::cmd("SPUBLISH")
        .arg(&name)
        .arg(frame.to_string())
        .query_async::<i64>(&mut connected.of(&name))
        .await
        .unwrap();
}

/// A primary that is lost can take events with it that it showed for a moment, and its successor gives their positions to others. Whoever
/// saw such an event is told so, on whatever server it comes back.
#[tokio::test]
async fn who_saw_an_event_that_is_lost_is_told_so() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let (mut socket, _) = Socket::connect(&app, &person, None).await;
    app.post_as(&person, "/api/v1/conversations", json!({"title": "lost"}))
        .await
        .expect(201);
    let seen = socket.frame().await;
    assert_eq!(seen["event"], "conversation.created", "{seen}");
    // What another server publishes after the promotion.
    let mut successor = seen.clone();
    successor["id"] = json!(uuid::Uuid::new_v4());
    tell(&app, &successor).await;
    assert_eq!(socket.closed().await.0, 4010);
    let place = json!({"offset": seen["offset"], "epoch": seen["epoch"]});
    let (_, back) = Socket::connect(&app, &person, Some(place)).await;
    assert_eq!(back["recovered"], false, "{back}");
    assert_ne!(back["epoch"], seen["epoch"]);
    assert_eq!(back["offset"], seen["offset"]);
}

/// The same where nobody told of the event that has the place now: it is in the table when a gap behind it is filled.
#[tokio::test]
async fn an_event_that_was_replaced_is_found_by_the_next_gap() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let (mut socket, _) = Socket::connect(&app, &person, None).await;
    app.post_as(&person, "/api/v1/conversations", json!({"title": "replaced"}))
        .await
        .expect(201);
    let seen = socket.frame().await;
    let mut owner = connect("postgres", 0).await;
    sqlx::query("UPDATE events SET id = gen_random_uuid() WHERE id = $1::text::uuid")
        .bind(seen["id"].as_str())
        .execute(&mut owner)
        .await
        .unwrap();
    let mut later = seen.clone();
    later["id"] = json!(uuid::Uuid::new_v4());
    later["offset"] = json!(seen["offset"].as_i64().unwrap() + 2);
    tell(&app, &later).await;
    assert_eq!(socket.closed().await.0, 4010);
    until("a new epoch has begun", async || {
        let place = json!({"offset": seen["offset"], "epoch": seen["epoch"]});
        let (_, back) = Socket::connect(&app, &person, Some(place)).await;
        back["recovered"] == false && back["epoch"] != seen["epoch"]
    })
    .await;
}
