//! The queue: nothing is lost, nothing is done twice at the same time, whoever dies.

use std::collections::HashSet;

use axum::http::StatusCode;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::app::{Person, TestApp, until, until_some, write_config};
use crate::outside::{Endpoint, Mood, WORKING, working};
use crate::process::Process;
use crate::services::connect;
use crate::webhooks::webhook;

/// A number that the database answers.
async fn number(statement: String) -> i64 {
    let row = connect("postgres", 0)
        .await
        .fetch_one(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
    row.get(0)
}

async fn jobs(person: &Person, condition: &str) -> i64 {
    number(format!(
        "SELECT count(*) FROM jobs WHERE tenant_id = '{}' AND {condition}",
        person.tenant_id
    ))
    .await
}

/// F31: the job is written by the transaction that asks for it: a request that is repeated with its key queues nothing more, and one that
/// fails nothing at all.
#[tokio::test]
async fn a_job_is_queued_exactly_when_its_cause_is_committed() {
    let app = TestApp::start().await;
    let owner = app.person().await;
    let body =
        json!({"url": "https://example.com/", "event_types": ["conversation.created", "message.created"]});
    app.post_as(&owner, "/api/v1/webhooks", body).await.expect(201);
    let key = [("idempotency-key", "k1")];
    let create = async |title: &str| {
        let body = json!({"title": title});
        app.as_with(
            &owner,
            axum::http::Method::POST,
            "/api/v1/conversations",
            &key,
            Some(body),
        )
        .await
    };
    create("x").await.expect(201);
    create("x").await.expect(201);
    create("y").await.expect(422);
    let nowhere = format!("/api/v1/conversations/{}/messages", uuid::Uuid::new_v4());
    app.post_as(&owner, &nowhere, json!({"content": "x"}))
        .await
        .expect(404);
    assert_eq!(jobs(&owner, "true").await, 1);
    assert_eq!(jobs(&owner, "state = 'queued' AND attempts = 0").await, 1);
}

/// Two servers share the work, and every job is done by one of them.
#[tokio::test]
async fn servers_share_jobs_and_do_each_once() {
    let (one, two) = (working().alone().start().await, working().guest().start().await);
    let owner = one.person().await;
    let endpoint = Endpoint::start(Mood::Fine).await;
    webhook(&one, &owner, &endpoint, &["conversation.created"]).await;
    for number in 0..40 {
        let app = if number % 2 == 0 { &one } else { &two };
        app.conversation(&owner, &format!("number {number}")).await;
    }
    until("all are delivered", async || {
        jobs(&owner, "state = 'succeeded'").await == 40
    })
    .await;
    let got = endpoint.received();
    let ids: HashSet<&str> = got.iter().map(|got| got.header("webhook-id")).collect();
    assert_eq!((got.len(), ids.len()), (40, 40));
    assert_eq!(jobs(&owner, "attempts <> 1").await, 0);
    let settled = "tanka_jobs_attempts_total{kind=\"webhook\",outcome=\"Settled\"}";
    assert!(one.metric(settled).await + two.metric(settled).await >= 40);
}

/// A worker that is killed in the middle loses nothing: its lease ends, another one sends the same message again, and it counts once.
#[tokio::test]
async fn a_killed_process_leaves_its_job_to_the_next_one() {
    // This server makes jobs and does none.
    let app = TestApp::builder()
        .config("jobs: {concurrency: 0}\noutbound: {allowedNetworks: [127.0.0.0/8]}")
        .alone()
        .start()
        .await;
    let owner = app.person().await;
    let endpoint = Endpoint::start(Mood::Hangs).await;
    webhook(&app, &owner, &endpoint, &["conversation.created"]).await;
    let directory = tempfile::tempdir().unwrap();
    let process = Process::serve(&directory, &write_config(&directory, WORKING));
    app.conversation(&owner, "x").await;
    endpoint.got(1).await;
    process.kill();
    assert_eq!(
        jobs(&owner, "state = 'running' AND attempts = 1").await,
        1,
        "it died in the middle"
    );
    endpoint.becomes(Mood::Fine);
    let _next = Process::serve(&directory, &write_config(&directory, WORKING));
    let got = endpoint.got(2).await;
    assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"));
    until("it is done", async || {
        jobs(&owner, "state = 'succeeded' AND attempts = 2 AND crashes = 1").await == 1
    })
    .await;
    assert_eq!(endpoint.received().len(), 2);
    assert_eq!(
        number(format!("SELECT count(*) FROM webhook_deliveries WHERE tenant_id = '{}' AND status = 'delivered' AND attempts = 1",
            owner.tenant_id)).await,
        1,
        "the attempt of the dead worker has no effect on the log"
    );
}

/// A worker that comes back after its lease has ended may change nothing any more.
#[tokio::test]
async fn whoever_lost_its_lease_changes_nothing() {
    let app = working().alone().start().await;
    let owner = app.person().await;
    let endpoint = Endpoint::start(Mood::Hangs).await;
    webhook(&app, &owner, &endpoint, &["conversation.created"]).await;
    app.conversation(&owner, "x").await;
    endpoint.got(1).await;
    // Somebody else takes it.
    let steal = format!(
        "UPDATE jobs SET lease = gen_random_uuid(), due_at = now() + interval '1 hour' WHERE tenant_id = '{}'",
        owner.tenant_id
    );
    connect("postgres", 0)
        .await
        .execute(sqlx::raw_sql(AssertSqlSafe(steal)))
        .await
        .unwrap();
    let lost = "tanka_jobs_attempts_total{kind=\"webhook\",outcome=\"Lost\"}";
    until("the worker notices", async || app.metric(lost).await == 1).await;
    assert_eq!(jobs(&owner, "state = 'running' AND last_error IS NULL").await, 1);
}

/// A drain gives back what is not finished, at once and without counting the attempt.
#[tokio::test]
async fn a_drain_gives_back_what_runs() {
    let app = TestApp::builder()
        .config(&format!("{WORKING}\ndrain: {{timeout: 3s}}"))
        .alone()
        .start()
        .await;
    let owner = app.person().await;
    let endpoint = Endpoint::start(Mood::Hangs).await;
    webhook(&app, &owner, &endpoint, &["conversation.created"]).await;
    app.conversation(&owner, "x").await;
    endpoint.got(1).await;
    assert!(app.running.drain().await, "in time");
    assert_eq!(
        jobs(
            &owner,
            "state = 'queued' AND attempts = 0 AND due_at <= clock_timestamp()"
        )
        .await,
        1
    );
}

/// What is given up stays in a list with its reason; it is tried again by hand, and what waits can be cancelled.
#[tokio::test]
async fn people_cancel_and_retry_tasks() {
    let app = working().start().await;
    let owner = app.person().await;
    let endpoint = Endpoint::start(Mood::Says(StatusCode::BAD_GATEWAY)).await;
    webhook(&app, &owner, &endpoint, &["conversation.created"]).await;
    app.conversation(&owner, "x").await;
    let task = until_some("the first attempt has failed", async || {
        let all = app
            .get_as(&owner, "/api/v1/tasks?status=queued")
            .await
            .expect(200)
            .json();
        all["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|task| task["attempts"] == 1)
            .cloned()
    })
    .await;
    let path = format!("/api/v1/tasks/{}", task["id"].as_str().unwrap());
    app.post_as(&owner, &format!("{path}/retry"), json!({}))
        .await
        .expect(409);
    let cancelled = app
        .post_as(&owner, &format!("{path}/cancel"), json!({}))
        .await
        .expect(202);
    assert_eq!(cancelled.json()["status"], "cancelled");
    app.post_as(&owner, &format!("{path}/cancel"), json!({}))
        .await
        .expect(409);

    endpoint.becomes(Mood::Says(StatusCode::GONE));
    let again = app
        .post_as(&owner, &format!("{path}/retry"), json!({}))
        .await
        .expect(202);
    assert_eq!(again.json()["attempts"], 0);
    let dead = until_some("it is given up", async || {
        let all = app
            .get_as(&owner, "/api/v1/tasks?status=failed")
            .await
            .expect(200)
            .json();
        all["items"].as_array().unwrap().first().cloned()
    })
    .await;
    assert!(dead["error"].as_str().unwrap().contains("410"), "{dead}");
    assert_eq!(dead["id"], task["id"]);
    let problem = app
        .get_as(&owner, "/api/v1/tasks?status=lost")
        .await
        .expect(422)
        .json();
    assert_eq!(problem["errors"][0]["field"], "status");
}

/// Running work ends when somebody cancels it.
#[tokio::test]
async fn a_running_task_is_cancelled() {
    let app = working().start().await;
    let owner = app.person().await;
    let endpoint = Endpoint::start(Mood::Hangs).await;
    webhook(&app, &owner, &endpoint, &["conversation.created"]).await;
    app.conversation(&owner, "x").await;
    endpoint.got(1).await;
    let all = app.get_as(&owner, "/api/v1/tasks").await.expect(200).json();
    let path = format!("/api/v1/tasks/{}", all["items"][0]["id"].as_str().unwrap());
    app.post_as(&owner, &format!("{path}/cancel"), json!({}))
        .await
        .expect(202);
    until("it has ended", async || {
        app.get_as(&owner, &path).await.expect(200).json()["status"] == "cancelled"
    })
    .await;
}
