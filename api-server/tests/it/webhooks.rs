//! Endpoints that are told of events.

use axum::http::{Method, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::{AssertSqlSafe, Executor};

use crate::app::{Person, TestApp, until, until_some};
use crate::outside::{Endpoint, Mood, Received, working};
use crate::resources::{form, upload};
use crate::services::connect;
use crate::workrooms::{admit, expel, workroom};

/// Makes a webhook; answers its id and its secret.
pub async fn webhook(
    app: &TestApp,
    person: &Person,
    endpoint: &Endpoint,
    types: &[&str],
) -> (String, String) {
    let body = json!({"url": endpoint.url, "event_types": types});
    let made = app
        .post_as(person, "/api/v1/webhooks", body)
        .await
        .expect(201)
        .json();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

/// Whether a request is signed with a secret, computed as a receiver does it.
fn is_signed(request: &Received, secret: &str) -> bool {
    let key = BASE64_STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap())
        .unwrap();
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&key).unwrap();
    let (id, at) = (request.header("webhook-id"), request.header("webhook-timestamp"));
    mac.update(format!("{id}.{at}.{}", request.body).as_bytes());
    let expected = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    request
        .header("webhook-signature")
        .split(' ')
        .any(|signature| signature == expected)
}

async fn deliveries(app: &TestApp, person: &Person, id: &str) -> Vec<Value> {
    let reply = app
        .get_as(person, &format!("/api/v1/webhooks/{id}/deliveries"))
        .await;
    // A replica may not know of it yet.
    if reply.status == StatusCode::NOT_FOUND {
        return Vec::new();
    }
    reply.expect(200).json()["items"].as_array().unwrap().clone()
}

/// Waits for the newest delivery to have a status.
async fn delivery(app: &TestApp, person: &Person, id: &str, status: &str) -> Value {
    until_some(&format!("a delivery is {status}"), async || {
        let all = deliveries(app, person, id).await;
        all.into_iter()
            .next()
            .filter(|delivery| delivery["status"] == status)
    })
    .await
}

/// B16, B17: events are signed as Standard Webhooks says, hold no text of people, and are sent once; a redelivery keeps the id.
#[expect(clippy::too_many_lines, reason = "a story in its order")]
#[tokio::test]
async fn an_event_reaches_its_endpoint_signed_and_without_what_people_wrote() {
    let app = working().start().await;
    let owner = app.person().await;
    let endpoint = Endpoint::start(Mood::Fine).await;
    let (id, secret) = webhook(&app, &owner, &endpoint, &["conversation.created"]).await;
    let conversation = app.conversation(&owner, "a private title").await;
    let got = endpoint.got(1).await.remove(0);
    assert!(is_signed(&got, &secret), "{got:?}");
    assert!(!is_signed(&got, "whsec_AAAA"));
    let event = got.json();
    assert_eq!(
        (&event["type"], &event["data"]["id"]),
        (&json!("conversation.created"), &json!(conversation))
    );
    assert!(
        event["timestamp"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .is_ok()
    );
    assert!(!got.body.contains("private"), "{}", got.body);
    let sent = delivery(&app, &owner, &id, "delivered").await;
    assert_eq!(
        (&sent["attempts"], &sent["response_status"]),
        (&json!(1), &json!(200))
    );

    let rotated = app
        .as_with(
            &owner,
            Method::PATCH,
            &format!("/api/v1/webhooks/{id}"),
            &[],
            Some(json!({"rotate_secret": true})),
        )
        .await
        .expect(200)
        .json();
    let new = rotated["secret"].as_str().unwrap();
    assert_ne!(new, secret);
    let again = app
        .post_as(
            &owner,
            &format!("/api/v1/deliveries/{}/redeliver", sent["id"].as_str().unwrap()),
            json!({}),
        )
        .await
        .expect(202);
    let second = endpoint.got(2).await.remove(1);
    assert_eq!(second.header("webhook-id"), got.header("webhook-id"));
    assert!(
        is_signed(&second, new) && is_signed(&second, &secret),
        "both sign for a day"
    );
    let task = app
        .get_after(&owner, again.header("location"), &again)
        .await
        .expect(200)
        .json();
    assert_eq!(task["kind"], "webhook");
    for reply in [
        app.get_as(&owner, "/api/v1/webhooks").await.expect(200),
        app.as_with(
            &owner,
            Method::PATCH,
            &format!("/api/v1/webhooks/{id}"),
            &[],
            Some(json!({})),
        )
        .await
        .expect(200),
    ] {
        assert!(!reply.text.contains("whsec_"), "a secret is shown once");
    }
    // Nobody asked for other events.
    let path = format!("/api/v1/conversations/{conversation}/messages");
    app.post_as(&owner, &path, json!({"content": "hello"}))
        .await
        .expect(201);
    app.conversation(&owner, "another").await;
    let types: Vec<Value> = endpoint
        .got(3)
        .await
        .iter()
        .map(|got| got.json()["type"].clone())
        .collect();
    assert_eq!(
        types,
        [
            json!("conversation.created"),
            json!("conversation.created"),
            json!("conversation.created")
        ]
    );
}

/// B16: what an endpoint refuses is sent again after a pause, with the same id; a redirect is no answer to follow.
#[tokio::test]
async fn a_failing_endpoint_is_asked_again() {
    let app = working().start().await;
    let owner = app.person().await;
    let endpoint = Endpoint::start(Mood::Redirects).await;
    let (id, _) = webhook(&app, &owner, &endpoint, &["conversation.created"]).await;
    app.conversation(&owner, "x").await;
    endpoint.got(1).await;
    let waiting = until_some("the attempt is noted", async || {
        let all = deliveries(&app, &owner, &id).await;
        all.into_iter().find(|delivery| delivery["attempts"] == 1)
    })
    .await;
    assert_eq!(
        (&waiting["status"], &waiting["response_status"]),
        (&json!("pending"), &json!(302))
    );
    let task = app
        .get_as(
            &owner,
            &format!("/api/v1/tasks/{}", waiting["id"].as_str().unwrap()),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(task["status"], "queued");
    assert!(task["next_attempt_at"].is_string() && task["error"].as_str().unwrap().contains("302"));
    endpoint.becomes(Mood::Fine);
    let got = endpoint.got(2).await;
    assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"));
    delivery(&app, &owner, &id, "delivered").await;
}

/// An endpoint that says yes has taken it, however long the rest of its answer is.
#[tokio::test]
async fn an_endpoint_that_talks_is_not_told_twice() {
    let app = working().start().await;
    let owner = app.person().await;
    let endpoint = Endpoint::start(Mood::Talks).await;
    let (id, _) = webhook(&app, &owner, &endpoint, &["conversation.created"]).await;
    app.conversation(&owner, "x").await;
    let taken = delivery(&app, &owner, &id, "delivered").await;
    assert_eq!(
        (&taken["attempts"], &taken["response_status"]),
        (&json!(1), &json!(200))
    );
    assert_eq!(endpoint.got(1).await.len(), 1);
}

/// An endpoint that fails for a day, or that is gone, is told nothing any more until somebody enables it.
#[tokio::test]
async fn an_endpoint_that_fails_for_long_is_disabled() {
    let app = working().start().await;
    let owner = app.person().await;
    let find = async |id: &str| {
        let all = app.get_as(&owner, "/api/v1/webhooks").await.expect(200).json();
        all["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|webhook| webhook["id"] == id)
            .cloned()
    };
    for (status, history) in [
        (StatusCode::GONE, false),
        (StatusCode::INTERNAL_SERVER_ERROR, true),
    ] {
        let endpoint = Endpoint::start(Mood::Says(status)).await;
        let (id, _) = webhook(&app, &owner, &endpoint, &["conversation.created"]).await;
        if history {
            let past = format!(
                "UPDATE webhooks SET failures = 19, failing_since = now() - interval '25 hours' WHERE id = '{id}'"
            );
            connect("postgres", 0)
                .await
                .execute(sqlx::raw_sql(AssertSqlSafe(past)))
                .await
                .unwrap();
        }
        app.conversation(&owner, "x").await;
        let disabled = until_some("the endpoint is disabled", async || {
            find(&id).await.filter(|webhook| webhook["enabled"] == false)
        })
        .await;
        assert!(disabled["disabled_reason"].is_string(), "{disabled}");
        let path = format!("/api/v1/webhooks/{id}");
        endpoint.becomes(Mood::Fine);
        let enabled = app
            .as_with(&owner, Method::PATCH, &path, &[], Some(json!({"enabled": true})))
            .await
            .expect(200);
        assert_eq!(enabled.json()["disabled_reason"], Value::Null);
        app.as_with(&owner, Method::DELETE, &path, &[], None)
            .await
            .expect(204);
    }
}

/// API7: an address that is not public is refused when it is given, in each notation, and fields are named.
#[tokio::test]
async fn private_addresses_and_other_mistakes_are_refused() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    for url in [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]:8000/",
        "http://[::ffff:10.0.0.1]/",
        "http://localhost:8000/",
        "ftp://example.com/",
        "nonsense",
    ] {
        let body = json!({"url": url, "event_types": ["message.created"]});
        let problem = app
            .post_as(&owner, "/api/v1/webhooks", body)
            .await
            .expect(422)
            .json();
        assert_eq!(problem["errors"][0]["field"], "url", "{url}: {problem}");
    }
    let body = json!({"url": "nonsense", "description": "", "event_types": ["session.revoked"]});
    let problem = app
        .post_as(&owner, "/api/v1/webhooks", body)
        .await
        .expect(422)
        .json();
    let fields: Vec<&Value> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["field"])
        .collect();
    assert_eq!(fields, ["url", "description", "event_types"]);
    let member = app.colleague(&owner, "member").await;
    app.get_as(&member, "/api/v1/webhooks").await.expect(403);
}

/// API1: endpoints, their log and their tasks are the tenant's own.
#[tokio::test]
async fn another_tenant_finds_nothing_of_a_webhook() {
    let app = working().start().await;
    let (owner, stranger) = (app.person().await, app.person().await);
    let endpoint = Endpoint::start(Mood::Fine).await;
    let (id, _) = webhook(&app, &owner, &endpoint, &["conversation.created"]).await;
    app.conversation(&stranger, "of another tenant").await;
    app.conversation(&owner, "x").await;
    let sent = delivery(&app, &owner, &id, "delivered").await;
    assert_eq!(endpoint.received().len(), 1, "events of others do not go there");
    let task = sent["id"].as_str().unwrap();
    for (method, path) in [
        (Method::PATCH, format!("/api/v1/webhooks/{id}")),
        (Method::DELETE, format!("/api/v1/webhooks/{id}")),
        (Method::GET, format!("/api/v1/webhooks/{id}/deliveries")),
        (Method::POST, format!("/api/v1/deliveries/{task}/redeliver")),
        (Method::GET, format!("/api/v1/tasks/{task}")),
        (Method::POST, format!("/api/v1/tasks/{task}/retry")),
        (Method::POST, format!("/api/v1/tasks/{task}/cancel")),
    ] {
        let body = (method == Method::PATCH).then(|| json!({}));
        let reply = app.as_with(&stranger, method.clone(), &path, &[], body).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{method} {path}");
    }
    // A colleague who does not manage sees only the own tasks.
    let member = app.colleague(&owner, "member").await;
    until("the colleague is everywhere", async || {
        app.get_as(&member, "/api/v1/tasks").await.status == StatusCode::OK
    })
    .await;
    app.get_as(&member, &format!("/api/v1/tasks/{task}"))
        .await
        .expect(404);
    app.get_as(&owner, &format!("/api/v1/tasks/{task}"))
        .await
        .expect(200);
}

/// C19, C27: what happens in workrooms and to files is told too, each thing once, and nothing of what people wrote.
#[tokio::test]
async fn workrooms_and_files_are_told() {
    const TYPES: [&str; 8] = [
        "resource.created",
        "resource.deleted",
        "workroom.created",
        "workroom.deleted",
        "workroom.member.added",
        "workroom.member.removed",
        "workroom.message.created",
        "workroom.updated",
    ];
    let app = working().start().await;
    let owner = app.person().await;
    let member = app.colleague(&owner, "member").await;
    let endpoint = Endpoint::start(Mood::Fine).await;
    webhook(&app, &owner, &endpoint, &TYPES).await;
    let room = workroom(&app, &owner, "private name").await;
    let id = room.rsplit('/').next().unwrap().to_owned();
    admit(&app, &owner, &room, &member).await;
    let said = json!({"content": "private words"});
    app.post_as(&owner, &format!("{room}/messages"), said)
        .await
        .expect(201);
    let renamed = Some(json!({"name": "private too"}));
    app.as_with(&owner, Method::PATCH, &room, &[], renamed)
        .await
        .expect(200);
    let file = form(Some(&id), "private.txt", "text/plain", b"private bytes");
    let file = upload(&app, &owner, file).await.expect(201);
    app.as_with(&owner, Method::DELETE, file.header("location"), &[], None)
        .await
        .expect(204);
    expel(&app, &owner, &room, &member).await.expect(204);
    app.as_with(&owner, Method::DELETE, &room, &[], None)
        .await
        .expect(204);
    let told = || {
        let received = endpoint.received();
        let mut told: Vec<String> = received
            .iter()
            .map(|one| one.json()["type"].as_str().unwrap().to_owned())
            .collect();
        told.sort();
        told
    };
    until("each type is told once", async || told() == TYPES).await;
    for one in &endpoint.received() {
        assert!(!one.body.contains("private"), "{}", one.body);
        let data = &one.json()["data"];
        assert!(data["workroom_id"] == id || data["id"] == id, "{}", one.body);
    }
}
