//! A server that is killed in the middle of syncs. Another one goes on with them, and what the first has written is not written again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::app::{Person, TestApp, until, write_config};
use crate::outside::WORKING;
use crate::process::Process;
use crate::services::connect;
use crate::workrooms::workroom;

/// Records of a source. One digit each, so that their times sort as texts.
const RECORDS: usize = 9;
/// How many are shown at first: the pages with more are waited for.
const SHOWN: usize = 4;
/// Syncs of a story.
const SYNCS: usize = 3;

/// A source that shows its records up to one, and has whoever asks for a page with more wait. It is a feed and a GitHub.
#[derive(Clone)]
struct Source {
    url: String,
    shown: watch::Sender<usize>,
    waiting: Arc<AtomicUsize>,
}

impl Source {
    async fn start() -> Self {
        let mut source = Self {
            url: String::new(),
            shown: watch::Sender::new(SHOWN),
            waiting: Arc::default(),
        };
        // The pages name the address, which is known only when it is served.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        source.url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(source.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        source
    }

    /// Three syncs: of the feed into a workroom and into memories, and of a repository into memories.
    fn syncs(&self, room: &str) -> [Value; SYNCS] {
        let feed = format!("{}/feed/1", self.url);
        [
            json!({"connector": "http", "url": feed, "target": "workroom", "workroom_id": room}),
            json!({"connector": "http", "url": feed}),
            json!({"connector": "github", "repository": "some/repository", "base_url": self.url}),
        ]
    }
}

async fn answer(State(source): State<Source>, uri: Uri) -> Response {
    if uri.path().ends_with("/comments") {
        return "[]".into_response();
    }
    let (last, response) = match uri.path().strip_prefix("/feed/") {
        Some(page) => feed(&source, page.parse().unwrap()),
        None => issues(&source, &uri),
    };
    let mut shown = source.shown.subscribe();
    if *shown.borrow() < last {
        source.waiting.fetch_add(1, Ordering::SeqCst);
    }
    let _ = shown.wait_for(|shown| *shown >= last).await;
    response
}

/// A page of three, which begins with the last record of the one before; answers also the number of its last record.
fn feed(source: &Source, page: usize) -> (usize, Response) {
    let last = (2 * page + 1).min(RECORDS);
    let items: Vec<Value> = (2 * page - 1..=last)
        .map(|number| json!({"id": number, "title": format!("item {number}")}))
        .collect();
    let mut body = json!({ "items": items });
    if last < RECORDS {
        body["next_url"] = json!(format!("{}/feed/{}", source.url, page + 1));
    }
    (last, body.to_string().into_response())
}

/// A page of two issues in the order of their changes; answers also the number of its last one.
fn issues(source: &Source, uri: &Uri) -> (usize, Response) {
    let parameter = |name: &str| {
        let pairs = uri.query().unwrap_or_default().split('&');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    let since = parameter("since").unwrap_or_default();
    let page: usize = parameter("page").map_or(1, |text| text.parse().unwrap());
    let at = |number: usize| format!("2026-01-0{number}T00:00:00Z");
    let changed: Vec<usize> = (1..=RECORDS)
        .filter(|number| at(*number).as_str() >= since)
        .collect();
    let shown: Vec<usize> = changed.iter().copied().skip(2 * (page - 1)).take(2).collect();
    let list: Vec<Value> = shown
        .iter()
        .map(|number| {
            json!({"id": number, "number": number, "title": "issue", "body": null, "state": "open", "updated_at": at(*number)})
        })
        .collect();
    let body = Value::from(list).to_string();
    let newest = shown.last().copied().unwrap_or_default();
    if changed.len() <= 2 * page {
        return (newest, body.into_response());
    }
    let next = format!("{}{}?since={since}&page={}", source.url, uri.path(), page + 1);
    let link = [("link", format!("<{next}>; rel=\"next\""))];
    (newest, (link, body).into_response())
}

/// A number that the database answers.
async fn number(statement: String) -> i64 {
    let row = connect("postgres", 0)
        .await
        .fetch_one(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
    row.get(0)
}

/// How many rows of a person's tenant there are.
async fn rows(owner: &Person, table: &str, condition: &str) -> i64 {
    number(format!(
        "SELECT count(*) FROM {table} WHERE tenant_id = '{}' AND {condition}",
        owner.tenant_id
    ))
    .await
}

/// Texts of a table, sorted.
async fn texts(owner: &Person, table: &str) -> Vec<String> {
    let statement = format!(
        "SELECT content FROM {table} WHERE tenant_id = '{}'",
        owner.tenant_id
    );
    let rows = connect("postgres", 0)
        .await
        .fetch_all(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
    let mut texts: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    texts.sort();
    texts
}

/// Three syncs, each of which a process has begun, and waits for a page of.
struct Story {
    process: Process,
    app: TestApp,
    owner: Person,
    source: Source,
    tasks: Vec<String>,
    directory: TempDir,
}

impl Story {
    async fn begin() -> Self {
        // This server makes jobs and does none.
        let app = TestApp::builder()
            .config("jobs: {concurrency: 0}\noutbound: {allowedNetworks: [127.0.0.0/8]}")
            .alone()
            .start()
            .await;
        let owner = app.person().await;
        let source = Source::start().await;
        let room = workroom(&app, &owner, "news").await;
        let room = room.rsplit('/').next().unwrap();
        let mut tasks = Vec::new();
        for sync in source.syncs(room) {
            let made = app.post_as(&owner, "/api/v1/syncs", sync).await.expect(202);
            tasks.push(made.header("location").to_owned());
        }
        let directory = tempfile::tempdir().unwrap();
        let process = Process::serve(&directory, &write_config(&directory, WORKING));
        until("each sync waits for a page", async || {
            source.waiting.load(Ordering::SeqCst) == SYNCS
        })
        .await;
        Self {
            process,
            app,
            owner,
            source,
            tasks,
            directory,
        }
    }

    /// As `kill -9` does it; each sync is in the middle.
    async fn kill(&self) {
        self.process.kill();
        let begun = "kind = 'sync' AND state = 'running' AND attempts = 1";
        let count = rows(&self.owner, "jobs", begun).await;
        assert_eq!(count, 3, "it died in the middle");
    }

    /// Records that were copied, as the syncs know them and as they are there.
    async fn copied(&self) -> (i64, i64) {
        let known = rows(&self.owner, "sync_items", "true").await;
        let messages = rows(&self.owner, "workroom_messages", "true").await;
        (known, messages + rows(&self.owner, "memories", "true").await)
    }

    /// Another process goes on. In the end each record is there once, and counts once.
    async fn end(self) {
        let owner = &self.owner;
        let _next = Process::serve(&self.directory, &write_config(&self.directory, WORKING));
        for task in &self.tasks {
            until("the sync is done", async || {
                let reply = self.app.get_as(owner, task).await;
                reply.status == StatusCode::OK && reply.json()["status"] == "succeeded"
            })
            .await;
        }
        let numbers = 1..=RECORDS;
        let items: Vec<String> = numbers.clone().map(|number| format!("item {number}")).collect();
        let issues = numbers.map(|number| format!("#{number} issue (open)"));
        let notes: Vec<String> = issues.chain(items.iter().cloned()).collect();
        assert_eq!(texts(owner, "workroom_messages").await, items);
        assert_eq!(texts(owner, "memories").await, notes);
        assert_eq!(self.copied().await, (27, 27));
        assert_eq!(
            rows(owner, "events", "kind = 'workroom.message.created'").await,
            9
        );
        let counted = "status = 'succeeded' AND records = 9";
        assert_eq!(rows(owner, "sync_records", counted).await, 3);
        let twice = "kind = 'sync' AND attempts = 2 AND crashes = 1";
        assert_eq!(rows(owner, "jobs", twice).await, 3);
    }
}

/// F31: the process dies while it waits for the next page. What it has written of the pages before is not written again.
#[tokio::test]
async fn a_process_that_dies_between_two_pages_doubles_nothing() {
    let story = Story::begin().await;
    story.kill().await;
    let (known, there) = story.copied().await;
    assert!(known == there && (3..27).contains(&known), "{known}, {there}");
    story.source.shown.send_replace(RECORDS);
    story.end().await;
}

/// F31: the process dies while it writes a page. Nothing of that page is there, and the next process writes it.
#[tokio::test]
async fn a_process_that_dies_in_a_transaction_leaves_nothing_of_it() {
    let story = Story::begin().await;
    let before = story.copied().await;
    let mut superuser = connect("postgres", 0).await;
    let mut locking = superuser.begin().await.unwrap();
    // Memories and messages are written before this table, and all of a page in one transaction.
    locking
        .execute("LOCK TABLE sync_items IN SHARE MODE")
        .await
        .unwrap();
    story.source.shown.send_replace(RECORDS);
    until("a page is half written", async || {
        let held = "SELECT count(*) FROM pg_locks WHERE relation = 'sync_items'::regclass AND NOT granted";
        number(held.to_owned()).await > 0
    })
    .await;
    story.kill().await;
    locking.rollback().await.unwrap();
    assert_eq!(story.copied().await, before);
    story.end().await;
}
