//! Conversations and messages.

use axum::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::TestApp;

#[tokio::test]
async fn a_conversation_from_its_beginning_to_its_end() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let (older, newer) = (
        app.conversation(&person, "Older").await,
        app.conversation(&person, "Newer").await,
    );
    let path = format!("/api/v1/conversations/{older}");
    let messages = format!("{path}/messages");
    app.post_as(&person, &messages, json!({"content": "first"}))
        .await
        .expect(201);
    let last = app
        .post_as(&person, &messages, json!({"content": "second"}))
        .await
        .expect(201);

    let listed = app
        .get_after(&person, "/api/v1/conversations", &last)
        .await
        .expect(200)
        .json();
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(
        items[0]["id"], older,
        "the one with the latest message comes first"
    );
    assert_eq!(items[0]["last_message_content"], "second");
    assert_eq!(items[0]["last_message_at"], last.json()["created_at"]);
    assert_eq!(items[1]["id"], newer);
    assert_eq!(items[1]["last_message_content"], Value::Null);
    // T29: what was begun after the last message of another one is more recent than that one.
    let latest = app.conversation(&person, "Latest").await;
    let token = person.written.token().unwrap();
    let headers = [("x-consistency-token", token.as_str())];
    let listed = app
        .as_with(&person, Method::GET, "/api/v1/conversations", &headers, None)
        .await
        .expect(200)
        .json();
    let shown: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["id"])
        .collect();
    assert_eq!(shown, [&latest, &older, &newer]);

    let read = app.get_after(&person, &messages, &last).await.expect(200).json();
    let texts: Vec<_> = read["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["content"].clone())
        .collect();
    assert_eq!(texts, ["second", "first"]);
}

#[tokio::test]
async fn a_conversation_is_renamed_and_deleted() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let (kept, id) = (
        app.conversation(&person, "Kept").await,
        app.conversation(&person, "Title").await,
    );
    let path = format!("/api/v1/conversations/{id}");
    let messages = format!("{path}/messages");
    let renamed = app
        .as_with(
            &person,
            Method::PATCH,
            &path,
            &[],
            Some(json!({"title": "Renamed"})),
        )
        .await
        .expect(200);
    assert_eq!(
        app.get_after(&person, &path, &renamed).await.expect(200).json()["title"],
        "Renamed"
    );

    let gone = app
        .as_with(&person, Method::DELETE, &path, &[], None)
        .await
        .expect(204);
    app.get_after(&person, &path, &gone).await.expect(404);
    app.get_after(&person, &messages, &gone).await.expect(404);
    app.post_as(&person, &messages, json!({"content": "third"}))
        .await
        .expect(404);
    let listed = app
        .get_after(&person, "/api/v1/conversations", &gone)
        .await
        .json();
    let items = listed["items"].as_array().unwrap();
    assert_eq!(
        (items.len(), items[0]["id"].as_str().unwrap()),
        (1, kept.as_str())
    );
}

#[tokio::test]
async fn pages_together_contain_every_row_once() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let conversation = app.conversation(&person, "Long").await;
    let path = format!("/api/v1/conversations/{conversation}/messages");
    let mut last = None;
    for number in 0..25 {
        last = Some(
            app.post_as(&person, &path, json!({"content": number.to_string()}))
                .await
                .expect(201),
        );
    }
    let (mut seen, mut query) = (Vec::new(), "?limit=10".to_owned());
    loop {
        let page = app
            .get_after(&person, &format!("{path}{query}"), last.as_ref().unwrap())
            .await
            .expect(200)
            .json();
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| m["content"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        query = format!("?limit=10&cursor={cursor}");
    }
    let wanted: Vec<_> = (0..25).rev().map(|number: i32| number.to_string()).collect();
    assert_eq!(seen, wanted);
    let bad = app.get_as(&person, &format!("{path}?limit=0")).await.expect(422);
    assert_eq!(bad.json()["errors"][0]["field"], "limit");
    let bad = app
        .get_as(&person, &format!("{path}?cursor=nonsense"))
        .await
        .expect(422);
    assert_eq!(bad.json()["errors"][0]["field"], "cursor");
}

/// F30: a row that comes between two pages shifts nothing. With OFFSET the last row of the first page would come again.
#[tokio::test]
async fn a_page_is_not_shifted_by_what_was_written_since() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let mut made = Vec::new();
    for number in 0..4 {
        made.push(app.conversation(&person, &number.to_string()).await);
    }
    let ids = |reply: &crate::app::Reply| -> Vec<String> {
        let items = reply.json()["items"].as_array().unwrap().clone();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let path = "/api/v1/conversations?limit=2";
    let last = app
        .post_as(&person, "/api/v1/conversations", json!({"title": "4"}))
        .await
        .expect(201);
    let first = app.get_after(&person, path, &last).await.expect(200);
    let newest = app
        .post_as(&person, "/api/v1/conversations", json!({"title": "5"}))
        .await
        .expect(201);
    let cursor = first.json()["next_cursor"].as_str().unwrap().to_owned();
    let second = app
        .get_after(&person, &format!("{path}&cursor={cursor}"), &newest)
        .await
        .expect(200);
    assert_eq!(
        ids(&first),
        [last.json()["id"].as_str().unwrap(), made[3].as_str()]
    );
    assert_eq!(ids(&second), [made[2].as_str(), made[1].as_str()]);
}

/// T28, J25: one statement for the list, whatever it holds; F26: counts of this request, and only for whoever may see them.
#[tokio::test]
async fn the_list_of_conversations_is_one_statement() {
    let app = TestApp::builder()
        .config("http: {debugHeaders: true}")
        .start()
        .await;
    let person = app.person().await;
    for number in 0..3 {
        app.conversation(&person, &number.to_string()).await;
    }
    let reply = app.get_as(&person, "/api/v1/conversations").await.expect(200);
    assert_eq!(reply.header("x-db-queries"), "1", "{reply:?}");
    assert_eq!(reply.header("x-cache-hit-rate"), "100.0%");
    let plain = TestApp::builder().guest().start().await;
    let reply = plain.get_as(&person, "/api/v1/conversations").await.expect(200);
    assert_eq!(
        (reply.header("x-db-queries"), reply.header("x-cache-hit-rate")),
        ("", "")
    );
}

#[tokio::test]
async fn a_repeated_request_with_a_key_has_the_effect_of_one() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let key = [("idempotency-key", "order-1")];
    let body = json!({"title": "Once"});
    let create = || {
        app.as_with(
            &person,
            Method::POST,
            "/api/v1/conversations",
            &key,
            Some(body.clone()),
        )
    };
    let replies = futures::future::join_all((0..10).map(|_| create())).await;
    let first = replies[0].json()["id"].clone();
    for reply in &replies {
        assert_eq!(reply.status, 201, "{reply:?}");
        assert_eq!(reply.json()["id"], first);
    }
    let replayed = replies
        .iter()
        .filter(|reply| reply.header("idempotency-replayed") == "true")
        .count();
    assert_eq!(replayed, 9);
    let list = app
        .get_after(&person, "/api/v1/conversations", &replies[0])
        .await
        .expect(200)
        .json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let other = json!({"title": "Something else"});
    let reused = app
        .as_with(&person, Method::POST, "/api/v1/conversations", &key, Some(other))
        .await
        .expect(422);
    assert_eq!(reused.json()["errors"][0]["field"], "Idempotency-Key");
    let stranger = app.person().await;
    let own = app
        .as_with(
            &stranger,
            Method::POST,
            "/api/v1/conversations",
            &key,
            Some(body.clone()),
        )
        .await
        .expect(201);
    assert_ne!(
        own.json()["id"],
        first,
        "keys of different people are different keys"
    );
}

#[tokio::test]
async fn what_belongs_to_another_tenant_is_not_found_on_any_route() {
    let app = TestApp::start().await;
    let (owner, stranger) = (app.person().await, app.person().await);
    let conversation = app.conversation(&owner, "Mine").await;
    for id in [conversation, Uuid::new_v4().to_string(), "not-an-id".to_owned()] {
        let path = format!("/api/v1/conversations/{id}");
        let messages = format!("{path}/messages");
        let title = Some(json!({"title": "Taken over"}));
        let content = Some(json!({"content": "hello"}));
        for (method, path, body) in [
            (Method::GET, &path, None),
            (Method::PATCH, &path, title),
            (Method::DELETE, &path, None),
            (Method::GET, &messages, None),
            (Method::POST, &messages, content),
        ] {
            app.as_with(&stranger, method, path, &[], body).await.expect(404);
        }
    }
    let list = app
        .get_as(&stranger, "/api/v1/conversations")
        .await
        .expect(200)
        .json();
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn requests_that_cannot_be_read_are_refused_with_a_reason() {
    let app = TestApp::builder().config("http: {bodyLimit: 4Ki}").start().await;
    let person = app.person().await;
    let bearer = format!("Bearer {}", person.token);
    let path = app.url("/api/v1/conversations");
    let send = async |headers: &[(&str, &str)], body: Option<Value>| {
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        app.send(Method::POST, &path, &all, body).await
    };
    assert_eq!(send(&[], None).await.expect(415).json()["code"], "media_type");
    assert_eq!(
        send(&[("content-type", "application/json")], None)
            .await
            .expect(400)
            .json()["code"],
        "malformed"
    );
    let large = json!({"title": "x".repeat(5_000)});
    assert_eq!(
        send(&[], Some(large)).await.expect(413).json()["code"],
        "too_large"
    );
    let long = json!({"title": "x".repeat(201)});
    assert_eq!(
        send(&[], Some(long)).await.expect(422).json()["errors"][0]["field"],
        "title"
    );
    assert_eq!(
        app.get("/api/v1/nothing").await.expect(404).json()["code"],
        "not_found"
    );
    let method = app
        .as_with(&person, Method::PUT, "/api/v1/conversations", &[], None)
        .await
        .expect(405);
    assert_eq!(method.json()["code"], "method_not_allowed");
}
