//! Workrooms: who sees, writes, governs; and what is told to whom.

use axum::http::Method;
use serde_json::{Value, json};
use sqlx::Row;
use uuid::Uuid;

use crate::app::{Person, Reply, TestApp};
use crate::services::connect;

/// Makes a workroom; answers its address.
pub async fn workroom(app: &TestApp, owner: &Person, name: &str) -> String {
    let reply = app
        .post_as(owner, "/api/v1/workrooms", json!({"name": name}))
        .await
        .expect(201);
    assert_eq!(
        reply.header("location"),
        format!("/api/v1/workrooms/{}", reply.json()["id"].as_str().unwrap())
    );
    reply.header("location").to_owned()
}

/// Makes a person a member.
pub async fn admit(app: &TestApp, owner: &Person, room: &str, person: &Person) {
    app.post_as(
        owner,
        &format!("{room}/members"),
        json!({"user_id": person.user_id}),
    )
    .await
    .expect(201);
}

/// Ends a membership.
pub async fn expel(app: &TestApp, owner: &Person, room: &str, person: &Person) -> Reply {
    let path = format!("{room}/members/{}", person.user_id);
    app.as_with(owner, Method::DELETE, &path, &[], None).await
}

fn items(reply: &Reply) -> Vec<Value> {
    reply.json()["items"].as_array().unwrap().clone()
}

/// C25, C26: a room from its beginning to its end.
#[tokio::test]
async fn a_workroom_from_its_beginning_to_its_end() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    let member = app.colleague(&owner, "member").await;
    let room = workroom(&app, &owner, "Launch").await;
    admit(&app, &owner, &room, &member).await;
    let said = app
        .post_as(&member, &format!("{room}/messages"), json!({"content": "hello"}))
        .await
        .expect(201);
    let list = app
        .get_after(&owner, &format!("{room}/messages"), &said)
        .await
        .expect(200);
    assert_eq!(items(&list), [said.json()]);
    let rooms = app
        .get_after(&member, "/api/v1/workrooms", &said)
        .await
        .expect(200);
    let rooms = items(&rooms);
    assert_eq!(rooms.len(), 1);
    assert_eq!(
        (&rooms[0]["name"], &rooms[0]["role"], &rooms[0]["members"]),
        (&json!("Launch"), &json!("member"), &json!(2))
    );
    assert_eq!(
        rooms[0]["active_at"],
        said.json()["created_at"],
        "writing makes it active"
    );
    let members = app.get_after(&member, &format!("{room}/members"), &said).await;
    let members: Vec<_> = items(&members.expect(200))
        .iter()
        .map(|m| m["user_id"].clone())
        .collect();
    assert_eq!(members, [json!(member.user_id), json!(owner.user_id)]);
    let renamed = app
        .as_with(
            &owner,
            Method::PATCH,
            &room,
            &[],
            Some(json!({"name": "Landing"})),
        )
        .await
        .expect(200);
    assert_eq!(renamed.json()["name"], "Landing");
    let deleted = app
        .as_with(&owner, Method::DELETE, &room, &[], None)
        .await
        .expect(204);
    for path in [
        room.clone(),
        format!("{room}/messages"),
        format!("{room}/members"),
    ] {
        app.get_after(&member, &path, &deleted).await.expect(404);
    }
    assert_told(&app, &owner, &deleted).await;
}

/// What happened to the room is in the log of changes.
async fn assert_told(app: &TestApp, owner: &Person, deleted: &Reply) {
    let activity = app
        .get_after(owner, "/api/v1/activity", deleted)
        .await
        .expect(200);
    let actions: Vec<_> = items(&activity)
        .iter()
        .map(|line| line["action"].as_str().unwrap().to_owned())
        .filter(|action| action.starts_with("workroom."))
        .collect();
    assert_eq!(
        actions,
        [
            "workroom.deleted",
            "workroom.updated",
            "workroom.member.added",
            "workroom.created"
        ]
    );
}

/// What somebody may do with a room: reading it, its members and messages, writing, renaming, adding, removing.
async fn may(app: &TestApp, person: &Person, room: &str, other: &Person) -> String {
    let nobody = Uuid::new_v4();
    let attempts = [
        app.get_as(person, room).await,
        app.get_as(person, &format!("{room}/members")).await,
        app.get_as(person, &format!("{room}/messages")).await,
        app.post_as(person, &format!("{room}/messages"), json!({"content": "x"}))
            .await,
        app.as_with(person, Method::PATCH, room, &[], Some(json!({"name": "Room"})))
            .await,
        app.post_as(
            person,
            &format!("{room}/members"),
            json!({"user_id": other.user_id}),
        )
        .await,
        app.as_with(
            person,
            Method::DELETE,
            &format!("{room}/members/{nobody}"),
            &[],
            None,
        )
        .await,
    ];
    let codes: Vec<_> = attempts
        .iter()
        .map(|reply| reply.status.as_u16().to_string())
        .collect();
    codes.join(" ")
}

/// API1, API5: the whole matrix of a room.
#[tokio::test]
async fn members_talk_owners_govern_and_strangers_find_nothing() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    let (host, guest, viewer) = (
        app.colleague(&owner, "member").await,
        app.colleague(&owner, "member").await,
        app.colleague(&owner, "viewer").await,
    );
    let (outsider, foreign) = (app.colleague(&owner, "member").await, app.person().await);
    let room = workroom(&app, &host, "Room").await;
    admit(&app, &host, &room, &guest).await;
    admit(&app, &host, &room, &viewer).await;
    // Reads go to a replica, which has to have replayed what was just written.
    let last = app
        .post_as(&host, &format!("{room}/messages"), json!({"content": "first"}))
        .await
        .expect(201);
    for person in [&host, &guest, &viewer] {
        app.get_after(person, &format!("{room}/messages"), &last)
            .await
            .expect(200);
    }
    for (who, person, allowed) in [
        ("owner of the room", &host, "200 200 200 201 200 201 404"),
        ("member", &guest, "200 200 200 201 403 403 403"),
        ("viewer who is a member", &viewer, "200 200 200 403 403 403 403"),
        ("somebody of the tenant", &outsider, "404 404 404 404 404 404 404"),
        (
            "somebody of another tenant",
            &foreign,
            "404 404 404 404 404 404 404",
        ),
        ("manager of the tenant", &owner, "200 200 404 404 200 201 404"),
    ] {
        assert_eq!(may(&app, person, &room, &viewer).await, allowed, "{who}");
    }
    let stranger = json!({"user_id": foreign.user_id});
    app.post_as(&host, &format!("{room}/members"), stranger)
        .await
        .expect(404);
    // Everybody may leave, and is a stranger then; only those who govern remove others.
    expel(&app, &guest, &room, &viewer).await.expect(403);
    expel(&app, &guest, &room, &guest).await.expect(204);
    expel(&app, &host, &room, &guest).await.expect(404);
    app.post_as(&guest, &format!("{room}/messages"), json!({"content": "x"}))
        .await
        .expect(404);
}

#[tokio::test]
async fn what_is_no_room_no_name_and_no_member_is_refused_with_the_field() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    for (body, field) in [
        (json!({"name": " "}), "name"),
        (json!({"name": "x".repeat(201)}), "name"),
        (json!({}), "body"),
    ] {
        let refused = app.post_as(&owner, "/api/v1/workrooms", body).await.expect(422);
        assert_eq!(refused.json()["errors"][0]["field"], field);
    }
    let room = workroom(&app, &owner, "Room").await;
    for body in [
        json!({"user_id": "me"}),
        json!({"user_id": owner.user_id, "role": "king"}),
    ] {
        app.post_as(&owner, &format!("{room}/members"), body)
            .await
            .expect(422);
    }
    let key = [("idempotency-key", "once")];
    let body = json!({"content": "only once"});
    let path = format!("{room}/messages");
    let first = app
        .as_with(&owner, Method::POST, &path, &key, Some(body.clone()))
        .await;
    let again = app.as_with(&owner, Method::POST, &path, &key, Some(body)).await;
    assert_eq!(first.expect(201).json(), again.expect(201).json());
}

/// What commits is published, what is refused never is: each change has exactly one event on the room's channel, in its order.
#[tokio::test]
async fn every_change_of_a_room_is_one_event_of_its_channel() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    let member = app.colleague(&owner, "member").await;
    let room = workroom(&app, &owner, "Room").await;
    admit(&app, &owner, &room, &member).await;
    let message = json!({"content": "hello"});
    app.post_as(&member, &format!("{room}/messages"), message.clone())
        .await
        .expect(201);
    app.as_with(&owner, Method::PATCH, &room, &[], Some(json!({"name": "New"})))
        .await
        .expect(200);
    expel(&app, &owner, &room, &member).await.expect(204);
    app.post_as(&member, &format!("{room}/messages"), message)
        .await
        .expect(404);
    let mut connection = connect("postgres", 0).await;
    let channel = format!("workroom:{}:updates", room.rsplit_once('/').unwrap().1);
    let rows = sqlx::query("SELECT position, kind FROM events WHERE channel = $1 ORDER BY position")
        .bind(channel)
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let kinds: Vec<(i64, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let wanted = [
        "workroom.member.added",
        "workroom.message.created",
        "workroom.updated",
        "workroom.member.removed",
    ];
    let wanted: Vec<_> = (1..).zip(wanted.map(ToOwned::to_owned)).collect();
    assert_eq!(kinds, wanted);
}
