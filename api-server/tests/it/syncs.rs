//! Syncs against servers that behave as GitHub and feeds do: tags, pages, limits, broken pages.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::app::{Builder, Person, TestApp, until, until_some};
use crate::github::{Asked, Github, Mood};
use crate::outside::{serve, working};
use crate::services::connect;
use crate::socket::Socket;

/// Starts a sync; answers the address of its task.
async fn start(app: &TestApp, person: &Person, body: Value) -> String {
    app.post_as(person, "/api/v1/syncs", body)
        .await
        .expect(202)
        .header("location")
        .to_owned()
}

/// Waits for a task to be so far.
async fn task(app: &TestApp, person: &Person, path: &str, status: &str) -> Value {
    until_some(&format!("the task is {status}"), async || {
        let reply = app.get_as(person, path).await;
        (reply.status == StatusCode::OK)
            .then(|| reply.json())
            .filter(|task| task["status"] == status)
    })
    .await
}

/// Texts of a person's memories, in the database itself.
async fn memories(person: &Person) -> Vec<String> {
    let statement = format!(
        "SELECT content FROM memories WHERE user_id = '{}' ORDER BY content",
        person.user_id
    );
    let rows = connect("postgres", 0)
        .await
        .fetch_all(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// What becomes of a task is told on the channel of the person who asked, and to nobody else.
#[tokio::test]
async fn the_end_of_a_task_is_an_event() {
    let app = working().start().await;
    let (owner, stranger) = (app.person().await, app.person().await);
    let github = Github::start().await;
    github.change(1, "breaks", "2026-01-01T00:00:00Z");
    let (mut socket, _) = Socket::connect(&app, &owner, None).await;
    let (mut other, _) = Socket::connect(&app, &stranger, None).await;
    let path = start(&app, &owner, github.body("some/repository")).await;
    let told = loop {
        let frame = socket.frame().await;
        if frame["event"] == "task.updated" {
            break frame;
        }
    };
    assert_eq!(told["channel"], format!("user:{}", owner.user_id));
    let seen = task(&app, &owner, &path, "succeeded").await;
    assert_eq!(told["data"], seen);
    other.send(json!({"type": "ping"})).await;
    assert_eq!(other.frame().await["type"], "pong");
}

/// B07, B17, B21, F31: answered at once with a task, done in the background, and the next time only what changed.
#[expect(clippy::too_many_lines, reason = "a story in its order")]
#[tokio::test]
async fn a_repository_is_copied_and_then_only_what_changes() {
    // A server of another test that ends in the middle of the work would leave a request that is counted here.
    let app = working().alone().start().await;
    let (owner, stranger) = (app.person().await, app.person().await);
    let github = Github::start().await;
    for number in 1..=5 {
        github.change(number, "breaks", &format!("2026-01-0{number}T00:00:00Z"));
    }
    let path = start(&app, &owner, github.body("Some/Repository")).await;
    let done = task(&app, &owner, &path, "succeeded").await;
    assert_eq!(
        (&done["kind"], &done["result"]["written"]),
        (&json!("sync"), &json!(5))
    );
    assert_eq!(memories(&owner).await.len(), 5);
    let asked = github.asked();
    assert!(
        asked
            .iter()
            .all(|asked| asked.token.as_deref() == Some("Bearer ghp_secret"))
    );
    assert!(
        asked[0]
            .uri
            .starts_with("/repos/some/repository/issues?state=all"),
        "{asked:?}"
    );
    // Each page but the first begins with the last issue of the one before.
    assert_eq!(
        asked.len(),
        5,
        "four pages of issues, one of comments: {done} {asked:?}"
    );

    // The default sync, as older clients start it: an empty body. Nothing is new, and then nothing has even changed.
    for written in [0, 0] {
        let path = app
            .as_with(&owner, Method::POST, "/api/sync", &[], None)
            .await
            .expect(202)
            .header("location")
            .to_owned();
        let done = task(&app, &owner, &path, "succeeded").await;
        assert_eq!(done["result"]["written"], written);
    }
    let asked = github.asked();
    assert!(asked[5].uri.contains("since=2026-01-05T00:00:00Z"), "{asked:?}");
    let last: Vec<&Asked> = asked.iter().rev().take(2).collect();
    assert!(
        last.iter()
            .all(|asked| asked.status == StatusCode::NOT_MODIFIED && asked.etag.is_some()),
        "{last:?}"
    );

    github.change(2, "is mended", "2026-02-01T00:00:00Z");
    let path = start(&app, &owner, json!({})).await;
    assert_eq!(
        task(&app, &owner, &path, "succeeded").await["result"]["written"],
        1
    );
    let texts = memories(&owner).await;
    assert_eq!((texts.len(), texts[1].as_str()), (5, "#2 is mended (open)"));

    // B20: counted pages, as older clients ask for them; and cursors.
    let runs = app
        .get_as(&owner, "/api/syncs?page=2&per_page=3")
        .await
        .expect(200)
        .json();
    assert_eq!(
        (
            &runs["total"],
            &runs["pages"],
            &runs["current_page"],
            runs["items"].as_array().unwrap().len()
        ),
        (&json!(4), &json!(2), &json!(2), 1)
    );
    let runs = app
        .get_as(&owner, "/api/v1/syncs?limit=3")
        .await
        .expect(200)
        .json();
    let next = format!("/api/v1/syncs?cursor={}", runs["next_cursor"].as_str().unwrap());
    let rest = app.get_as(&owner, &next).await.expect(200).json();
    assert_eq!(
        (
            runs["items"].as_array().unwrap().len(),
            rest["items"].as_array().unwrap().len()
        ),
        (3, 1)
    );
    assert_eq!(runs["items"][0]["status"], "succeeded");
    assert!(!runs.to_string().contains("ghp_secret"));

    // API1: nothing of it is another tenant's.
    app.get_as(&stranger, &path).await.expect(404);
    let none = app.get_as(&stranger, "/api/v1/syncs").await.expect(200).json();
    assert_eq!((&none["total"], &none["items"]), (&json!(0), &json!([])));
    app.post_as(&stranger, "/api/v1/syncs", json!({}))
        .await
        .expect(409);
}

/// B07: a reached limit makes the task wait until it ends; a broken page is asked for again; what was written before is not written again.
#[tokio::test]
async fn limits_are_waited_for_and_broken_pages_asked_for_again() {
    let app = working().start().await;
    let owner = app.person().await;
    let github = Github::start().await;
    github.change(1, "one", "2026-01-01T00:00:00Z");
    github.mood(Mood::Broken);
    github.mood(Mood::Limited(3));
    let path = start(&app, &owner, github.body("a/b")).await;
    let waiting = until_some("it waits for the limit", async || {
        // A replica may not have it yet.
        let reply = app.get_as(&owner, &path).await;
        let task = (reply.status == 200).then(|| reply.json())?;
        (task["attempts"] == 1 && task["status"] == "queued").then_some(task)
    })
    .await;
    assert!(waiting["error"].as_str().unwrap().contains("limit"), "{waiting}");
    let done = task(&app, &owner, &path, "succeeded").await;
    assert_eq!(done["attempts"], 3);
    assert_eq!(memories(&owner).await, ["#1 one (open)"]);
}

/// Pages are numbered, and what changes meanwhile moves to the last one: what stood behind it is not passed over.
#[tokio::test]
async fn what_changes_while_pages_are_read_is_not_missed() {
    let app = working().start().await;
    let owner = app.person().await;
    let github = Github::start().await;
    for number in 1..=4 {
        github.change(number, "opens", &format!("2026-01-0{number}T00:00:00Z"));
    }
    // The second page would now begin with the fourth.
    github.change_meanwhile(1, "changes", "2026-02-01T00:00:00Z");
    let path = start(&app, &owner, github.body("a/b")).await;
    task(&app, &owner, &path, "succeeded").await;
    let texts = memories(&owner).await;
    assert_eq!(
        texts,
        [
            "#1 changes (open)",
            "#2 opens (open)",
            "#3 opens (open)",
            "#4 opens (open)"
        ]
    );
}

/// Issues of one moment, more than a page has, are read by the numbers of the pages.
#[tokio::test]
async fn a_page_of_one_moment_does_not_end_the_reading() {
    let app = working().start().await;
    let owner = app.person().await;
    let github = Github::start().await;
    for number in 1..=5 {
        github.change(number, "opens", "2026-01-01T00:00:00Z");
    }
    let path = start(&app, &owner, github.body("a/b")).await;
    task(&app, &owner, &path, "succeeded").await;
    assert_eq!(memories(&owner).await.len(), 5);
}

/// What a task writes to can be gone when its turn comes: then it ends, and says so, instead of trying for ever.
#[tokio::test]
async fn a_sync_into_a_workroom_that_is_gone_ends() {
    let resting = resting().alone().start().await;
    let owner = resting.person().await;
    let address = serve(
        Router::new().fallback(|| async { json!({"items": [{"id": "1", "title": "One"}]}).to_string() }),
    )
    .await;
    let room = crate::workrooms::workroom(&resting, &owner, "news").await;
    let id = room.rsplit('/').next().unwrap();
    let sync = json!({"connector": "http", "url": format!("http://{address}/1"), "target": "workroom", "workroom_id": id});
    let path = start(&resting, &owner, sync).await;
    resting
        .as_with(&owner, Method::DELETE, &room, &[], None)
        .await
        .expect(204);
    let working = working().guest().start().await;
    let ended = task(&working, &owner, &path, "failed").await;
    assert_eq!(ended["attempts"], 1, "{ended}");
    assert!(ended["error"].as_str().unwrap().contains("is gone"), "{ended}");
}

/// B12: a page of very many records is written in parts, each once.
#[tokio::test]
async fn a_large_page_is_written_whole() {
    const MANY: usize = 250;
    // A server of another test that ends in the middle of the work would have written a part of what is counted here.
    let app = working().alone().start().await;
    let owner = app.person().await;
    let items: Vec<Value> = (0..MANY)
        .map(|number| json!({"id": number.to_string(), "title": format!("Item {number}")}))
        .collect();
    let page = json!({ "items": items }).to_string();
    let address = serve(Router::new().fallback(move || async move { page })).await;
    let room = crate::workrooms::workroom(&app, &owner, "news").await;
    let id = room.rsplit('/').next().unwrap();
    let sync = json!({"connector": "http", "url": format!("http://{address}/1"), "target": "workroom", "workroom_id": id});
    for written in [MANY, 0] {
        let path = start(&app, &owner, sync.clone()).await;
        let done = task(&app, &owner, &path, "succeeded").await;
        assert_eq!(
            (&done["result"]["written"], &done["result"]["pages"]),
            (&json!(written), &json!(1)),
            "{done}"
        );
    }
    let count = format!("SELECT count(*) FROM workroom_messages WHERE workroom_id = '{id}'");
    let row = connect("postgres", 0)
        .await
        .fetch_one(sqlx::raw_sql(AssertSqlSafe(count)))
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>(0), 250);
}

/// API10: a source that sends the reader elsewhere gets neither the request nor the token.
#[tokio::test]
async fn a_page_at_another_address_is_not_followed() {
    let app = working().start().await;
    let owner = app.person().await;
    let github = Github::start().await;
    github.mood(Mood::Lures);
    let path = start(&app, &owner, github.body("a/b")).await;
    let waiting = until_some("the attempt has failed", async || {
        let reply = app.get_as(&owner, &path).await;
        let task = (reply.status == 200).then(|| reply.json())?;
        task["error"].is_string().then_some(task)
    })
    .await;
    assert!(
        waiting["error"].as_str().unwrap().contains("another address"),
        "{waiting}"
    );
}

/// A server whose workers take nothing.
fn resting() -> Builder {
    TestApp::builder().config("jobs: {concurrency: 0}\noutbound: {allowedNetworks: [127.0.0.0/8]}")
}

/// A sync that is asked for while it waits or runs is the same task.
#[tokio::test]
async fn a_sync_is_not_started_twice() {
    // No worker of this server takes it.
    let app = resting().alone().start().await;
    let owner = app.person().await;
    let body = json!({"connector": "http", "url": "http://127.0.0.1:1/feed.json", "default": true});
    let one = start(&app, &owner, body.clone()).await;
    assert_eq!(start(&app, &owner, body).await, one);
    assert_eq!(start(&app, &owner, json!({})).await, one);
    app.post_as(&owner, &format!("{one}/cancel"), json!({}))
        .await
        .expect(202);
    assert_ne!(start(&app, &owner, json!({})).await, one);
    // A replica may not know of the last one yet.
    until("both are in the list", async || {
        let list = app.get_as(&owner, "/api/v1/syncs").await.expect(200).json();
        let runs = list["items"].as_array().unwrap();
        let statuses: Vec<&Value> = runs.iter().map(|run| &run["status"]).collect();
        statuses == ["pending", "cancelled"]
    })
    .await;
}

/// An empty body means the tenant's default for who has none; only managers choose it. Whoever is told of a run that waits sees it.
#[tokio::test]
async fn the_default_of_a_tenant_is_everybodys() {
    let app = resting().start().await;
    let (owner, stranger) = (app.person().await, app.person().await);
    let (member, viewer) = (
        app.colleague(&owner, "member").await,
        app.colleague(&owner, "viewer").await,
    );
    let room = crate::workrooms::workroom(&app, &owner, "news").await;
    let room = room.rsplit('/').next().unwrap();
    let mut sync = json!({"connector": "http", "url": "http://127.0.0.1:1/feed.json", "target": "workroom", "workroom_id": room,
                          "tenant_default": true});
    let none = app.post_as(&member, "/api/v1/syncs", json!({})).await.expect(409);
    assert!(none.text.contains("Neither you nor your tenant"), "{none:?}");
    app.post_as(&member, "/api/v1/syncs", sync.clone())
        .await
        .expect(403);
    let memories = json!({"connector": "http", "url": sync["url"], "tenant_default": true});
    let refused = app.post_as(&owner, "/api/v1/syncs", memories).await.expect(422);
    assert_eq!(refused.json()["errors"][0]["field"], "target");
    let run = start(&app, &owner, sync.clone()).await;
    assert_eq!(start(&app, &member, json!({})).await, run);
    until("who was told of it sees it", async || {
        app.get_as(&member, &run).await.status == StatusCode::OK
    })
    .await;
    app.post_as(&viewer, "/api/v1/syncs", json!({})).await.expect(403);
    app.get_as(&stranger, &run).await.expect(404);
    app.post_as(&member, &format!("{run}/cancel"), json!({}))
        .await
        .expect(404);
    app.post_as(&stranger, "/api/v1/syncs", json!({}))
        .await
        .expect(409);

    // One's own goes first, and there is only one of the tenant.
    let own = json!({"connector": "http", "url": "http://127.0.0.1:1/own.json", "default": true});
    let own = start(&app, &member, own).await;
    assert_eq!(start(&app, &member, json!({})).await, own);
    sync["url"] = json!("http://127.0.0.1:1/other.json");
    let other = start(&app, &owner, sync).await;
    assert_ne!(other, run);
    assert_eq!(start(&app, &owner, json!({})).await, other);
}

/// Nobody uses the token and the name of a manager who is locked out.
#[tokio::test]
async fn the_default_of_a_tenant_ends_with_who_chose_it() {
    let app = resting().start().await;
    let owner = app.person().await;
    let (manager, another) = (
        app.colleague(&owner, "admin").await,
        app.colleague(&owner, "member").await,
    );
    let room = crate::workrooms::workroom(&app, &owner, "news").await;
    crate::workrooms::admit(&app, &owner, &room, &manager).await;
    let room = room.rsplit('/').next().unwrap();
    let sync = json!({"connector": "http", "url": "http://127.0.0.1:1/feed.json", "target": "workroom", "workroom_id": room,
                      "tenant_default": true});
    let last = start(&app, &manager, sync).await;
    assert_eq!(start(&app, &another, json!({})).await, last);
    let lock = format!("/api/v1/tenant/users/{}", manager.user_id);
    app.as_with(
        &owner,
        Method::PATCH,
        &lock,
        &[],
        Some(json!({"is_active": false})),
    )
    .await
    .expect(200);
    app.post_as(&another, "/api/v1/syncs", json!({}))
        .await
        .expect(409);
}

async fn feed(State(url): State<Arc<Mutex<String>>>, uri: Uri) -> Response {
    let base = url.lock().unwrap().clone();
    if uri.path() == "/2" {
        return json!({"items": [{"id": "3", "content_text": "three"}]})
            .to_string()
            .into_response();
    }
    let items = json!([{"id": "1", "title": "One"}, {"id": "2", "content_text": "two"}, {"no": "id"}]);
    json!({"items": items, "next_url": format!("{base}/2")})
        .to_string()
        .into_response()
}

/// B22: a schedule starts a sync by itself; records of a feed become messages of a workroom, each once.
#[tokio::test]
async fn a_schedule_copies_a_feed_into_a_workroom() {
    let app = working().start().await;
    let (owner, stranger) = (app.person().await, app.person().await);
    let base = Arc::new(Mutex::new(String::new()));
    let address = serve(Router::new().fallback(feed).with_state(base.clone())).await;
    *base.lock().unwrap() = format!("http://{address}");
    let room = crate::workrooms::workroom(&app, &owner, "news").await;
    let room = room.rsplit('/').next().unwrap().to_owned();
    let sync = json!({"connector": "http", "url": format!("http://{address}/1"), "target": "workroom", "workroom_id": room});
    app.post_as(&stranger, "/api/v1/syncs", sync.clone())
        .await
        .expect(404);
    let made = app
        .post_as(
            &owner,
            "/api/v1/schedules",
            json!({"cron": "*/5 * * * *", "timezone": "Europe/Zurich", "sync": sync}),
        )
        .await
        .expect(201)
        .json();
    let id = made["id"].as_str().unwrap();
    for _ in 0..2 {
        // Five minutes pass.
        let due = format!("UPDATE schedules SET next_at = now(), last_task = NULL WHERE id = '{id}'");
        connect("postgres", 0)
            .await
            .execute(sqlx::raw_sql(AssertSqlSafe(due)))
            .await
            .unwrap();
        let found = until_some("the schedule has started its sync", async || {
            let list = app.get_as(&owner, "/api/v1/schedules").await.expect(200).json();
            list["items"]
                .as_array()
                .unwrap()
                .iter()
                .find(|schedule| schedule["last_task"].is_string())
                .cloned()
        })
        .await;
        let next: jiff::Timestamp = found["next_at"].as_str().unwrap().parse().unwrap();
        assert!(next > api_server::clock::now() - jiff::SignedDuration::from_secs(5));
        let path = format!("/api/v1/tasks/{}", found["last_task"].as_str().unwrap());
        task(&app, &owner, &path, "succeeded").await;
    }
    let path = format!("/api/v1/workrooms/{room}/messages");
    until("everything is everywhere", async || {
        app.get_as(&owner, &path).await.expect(200).json()["items"]
            .as_array()
            .unwrap()
            .len()
            == 3
    })
    .await;
    let schedule = format!("/api/v1/schedules/{id}");
    app.as_with(&stranger, Method::DELETE, &schedule, &[], None)
        .await
        .expect(404);
    app.as_with(&owner, Method::DELETE, &schedule, &[], None)
        .await
        .expect(204);
}

/// Every mistake is named with its field.
#[tokio::test]
async fn what_makes_no_sense_is_refused_with_its_field() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    for (body, field) in [
        (json!({"connector": "ftp"}), "connector"),
        (json!({"repository": "a/b"}), "connector"),
        (json!({"connector": "github", "repository": "a"}), "repository"),
        (
            json!({"connector": "github", "repository": "a/b", "base_url": "http://10.0.0.1"}),
            "base_url",
        ),
        (
            json!({"connector": "github", "repository": "a/b", "token": "with space"}),
            "token",
        ),
        (json!({"connector": "http", "url": "http://127.0.0.1/"}), "url"),
        (
            json!({"connector": "http", "url": "https://example.com/", "target": "moon"}),
            "target",
        ),
        (
            json!({"connector": "http", "url": "https://example.com/", "target": "workroom"}),
            "workroom_id",
        ),
        (json!({"conector": "http"}), "conector"),
    ] {
        let problem = app
            .post_as(&owner, "/api/v1/syncs", body.clone())
            .await
            .expect(422)
            .json();
        assert_eq!(problem["errors"][0]["field"], field, "{body}: {problem}");
    }
    for (body, field) in [
        (json!({"cron": "often"}), "cron"),
        (json!({"cron": "* * * * *", "timezone": "Mars"}), "timezone"),
    ] {
        let problem = app
            .post_as(&owner, "/api/v1/schedules", body.clone())
            .await
            .expect(422)
            .json();
        assert_eq!(problem["errors"][0]["field"], field, "{body}: {problem}");
    }
    for path in [
        "/api/v1/syncs?page=0",
        "/api/v1/syncs?per_page=x",
        "/api/v1/syncs?page=100000",
        "/api/v1/syncs?limit=0",
    ] {
        app.get_as(&owner, path).await.expect(422);
    }
}
