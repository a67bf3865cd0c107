//! Migrations while people work, on a database of their own: nobody notices one whose way is free, and one that has to wait for a lock
//! gives way to requests and tries again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use api_server::migrate::{self, Target};
use axum::http::Method;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::{PATIENCE, Person, Reply, TestApp, until, until_some};
use crate::services::{Access, connect, options};

const MEMORIES: &str = "/api/v1/memories";
/// Real migrations that can be done a second time: two that build an index on a busy table, and their indexes.
const INDEXES: [(i64, &str); 2] = [
    (20_261_121_000_005, "idx_messages_conv_created"),
    (20_261_121_000_006, "idx_conv_active"),
];
/// One that needs `memory_embeddings` for itself for a moment. Whoever deletes a memory needs that table too.
const CONSTRAINTS: i64 = 20_261_121_008_001;
/// People who work at the same time.
const PEOPLE: usize = 4;
/// Requests before and after what happens meanwhile.
const ENOUGH: usize = 100;

/// A database of its own.
struct Database {
    name: String,
}

impl Database {
    /// As the platform's script makes one, and migrated.
    async fn open() -> Self {
        let name = format!("migrating_{}", Uuid::new_v4().simple());
        let create = format!("CREATE DATABASE {name} OWNER tanka_owner");
        execute(&mut connect("postgres", 0).await, create).await;
        let database = Self { name };
        let mut admin = database.session("postgres").await;
        for statement in [
            "ALTER SCHEMA public OWNER TO tanka_owner",
            "GRANT USAGE ON SCHEMA public TO tanka_app",
            "ALTER DEFAULT PRIVILEGES FOR ROLE tanka_owner IN SCHEMA public
                GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO tanka_app",
            "ALTER DEFAULT PRIVILEGES FOR ROLE tanka_owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO tanka_app",
            "CREATE EXTENSION vector",
            "CREATE EXTENSION pg_trgm",
            "CREATE EXTENSION btree_gin",
        ] {
            admin.execute(statement).await.unwrap();
        }
        assert!(migrate::run(&database.target()).await.unwrap() > 0);
        database
    }

    fn options(&self, user: &str) -> PgConnectOptions {
        options(user, 0).database(&self.name)
    }

    async fn session(&self, user: &str) -> PgConnection {
        self.options(user).connect().await.unwrap()
    }

    fn target(&self) -> Target {
        Target {
            options: self.options("tanka_owner"),
            timeout: PATIENCE * 3,
            external: false,
        }
    }

    async fn serve(&self) -> TestApp {
        TestApp::builder()
            .guest()
            .database_key("name", self.name.clone())
            .start()
            .await
    }

    /// Makes migrations of the past ones that are still to be done.
    async fn forget(&self, versions: Vec<i64>) {
        let count = versions.len();
        let gone = sqlx::query("DELETE FROM _sqlx_migrations WHERE version = ANY ($1)")
            .bind(versions)
            .execute(&mut self.session("postgres").await)
            .await
            .unwrap();
        assert_eq!(usize::try_from(gone.rows_affected()).unwrap(), count);
    }

    /// The session of a migration that waits for the table of [`CONSTRAINTS`].
    async fn waiting(&self) -> Option<i32> {
        sqlx::query_scalar(
            "SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
              WHERE a.datname = current_database() AND a.application_name = 'tanka-migrate'
                AND l.relation = 'memory_embeddings'::regclass AND NOT l.granted",
        )
        .fetch_optional(&mut self.session("postgres").await)
        .await
        .unwrap()
    }

    /// How many of the indexes of [`INDEXES`] serve.
    async fn indexes(&self) -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indisvalid AND c.relname = ANY ($1)",
        )
        .bind(INDEXES.map(|(_, name)| name.to_owned()).to_vec())
        .fetch_one(&mut self.session("postgres").await)
        .await
        .unwrap()
    }
}

async fn execute(connection: &mut PgConnection, statement: String) {
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
}

/// People who work, and what they noticed.
#[derive(Default)]
struct Load {
    done: AtomicBool,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
    slowest: Mutex<Duration>,
}

impl Load {
    async fn note(&self, status: u16, request: impl Future<Output = Reply>) -> Reply {
        let began = Instant::now();
        let reply = request.await;
        let took = began.elapsed();
        if reply.status != status {
            self.failures
                .lock()
                .unwrap()
                .push(format!("not {status} after {took:?}: {reply:?}"));
        }
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = took.max(*slowest);
        self.answered.fetch_add(1, Ordering::SeqCst);
        reply
    }

    /// Reads and writes, old tables and new rows, until told to stop.
    async fn work(&self, app: &TestApp, person: &Person) {
        let conversation = app.conversation(person, "Busy").await;
        let messages = format!("/api/v1/conversations/{conversation}/messages");
        let body = json!({"content": "meanwhile"});
        while !self.done.load(Ordering::SeqCst) {
            let made = self.note(201, app.post_as(person, MEMORIES, body.clone())).await;
            self.note(200, app.get_after(person, MEMORIES, &made)).await;
            let said = self.note(201, app.post_as(person, &messages, body.clone())).await;
            self.note(200, app.get_after(person, &messages, &said)).await;
            let id = made.json()["id"].as_str().unwrap_or_default().to_owned();
            let path = format!("{MEMORIES}/{id}");
            self.note(204, app.as_with(person, Method::DELETE, &path, &[], None))
                .await;
            self.note(200, app.get("/ready")).await;
        }
    }

    /// Waits for so many more requests.
    async fn more(&self, requests: usize) {
        let enough = self.answered.load(Ordering::SeqCst) + requests;
        until("requests are answered", async || {
            self.answered.load(Ordering::SeqCst) >= enough
        })
        .await;
    }

    /// Fails if a request did; answers how long the slowest took.
    #[track_caller]
    fn unharmed(&self) -> Duration {
        let failures = self.failures.lock().unwrap();
        let (count, all) = (failures.len(), self.answered.load(Ordering::SeqCst));
        assert!(
            failures.is_empty(),
            "{count} of {all} requests failed, the first: {}",
            failures[0]
        );
        *self.slowest.lock().unwrap()
    }
}

/// Has people work before, while and after something happens.
async fn meanwhile<T>(app: &TestApp, something: impl Future<Output = T>) -> (Load, T) {
    let load = Load::default();
    let mut people = Vec::new();
    for _ in 0..PEOPLE {
        people.push(app.person().await);
    }
    let work = futures::future::join_all(people.iter().map(|person| load.work(app, person)));
    let story = async {
        load.more(ENOUGH).await;
        let happened = something.await;
        load.more(ENOUGH).await;
        load.done.store(true, Ordering::SeqCst);
        happened
    };
    let (_, happened) = tokio::join!(work, story);
    (load, happened)
}

/// Migrates twice at the same time; answers how many migrations were applied.
async fn migrate_twice(target: &Target) -> usize {
    let (one, two) = tokio::join!(migrate::run(target), migrate::run(target));
    one.unwrap() + two.unwrap()
}

/// T30, T32: each release migrates while the one before it serves. With nothing to do, and with indexes to build on tables that hold data
/// and a constraint to change, by whoever comes first of two, no request fails.
#[tokio::test]
async fn migrating_under_load_loses_no_request() {
    let _access = Access::alone().await;
    let database = Database::open().await;
    let app = database.serve().await;
    let person = app.person().await;
    app.conversation(&person, "Full").await;
    let mut admin = database.session("postgres").await;
    admin
        .execute(
            "INSERT INTO messages (id, tenant_id, conversation_id, user_id, content)
             SELECT gen_random_uuid(), c.tenant_id, c.id, c.user_id, 'old' FROM conversations c, generate_series(1, 20000)",
        )
        .await
        .unwrap();
    let target = database.target();
    let update = async {
        assert_eq!(migrate_twice(&target).await, 0, "everything is there");
        let mut forgotten = vec![CONSTRAINTS];
        for (version, name) in INDEXES {
            execute(&mut admin, format!("DROP INDEX CONCURRENTLY {name}")).await;
            forgotten.push(version);
        }
        database.forget(forgotten).await;
        let began = Instant::now();
        assert_eq!(migrate_twice(&target).await, 3);
        let took = began.elapsed();
        assert_eq!(migrate_twice(&target).await, 0);
        took
    };
    let (load, took) = Box::pin(meanwhile(&app, update)).await;
    let slowest = load.unharmed();
    let answered = load.answered.load(Ordering::SeqCst);
    println!("{answered} requests around a migration of {took:?}, the slowest took {slowest:?}");
    assert_eq!(database.indexes().await, 2);
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

/// A migration that needs a table which somebody reads for long queues for it, and every request for that table behind it. So it gives way
/// before requests give up, and tries again until it has its way.
#[tokio::test]
async fn a_migration_that_waits_for_a_lock_gives_way_and_tries_again() {
    let _access = Access::alone().await;
    let database = Database::open().await;
    let app = database.serve().await;
    database.forget(vec![CONSTRAINTS]).await;
    let mut reader = database.session("postgres").await;
    let mut reading = reader.begin().await.unwrap();
    reading
        .execute("LOCK TABLE memory_embeddings IN ACCESS SHARE MODE")
        .await
        .unwrap();
    let target = database.target();
    let update = async {
        let watch = async {
            let first = until_some("the migration waits", async || database.waiting().await).await;
            let began = Instant::now();
            until("it gave way and waits again", async || {
                database.waiting().await.is_some_and(|pid| pid != first)
            })
            .await;
            reading.rollback().await.unwrap();
            began.elapsed()
        };
        let (applied, gave_way) = tokio::join!(migrate::run(&target), watch);
        (applied.unwrap(), gave_way)
    };
    let (load, (applied, gave_way)) = Box::pin(meanwhile(&app, update)).await;
    assert_eq!(applied, 1);
    assert_eq!(migrate::run(&target).await.unwrap(), 0);
    let slowest = load.unharmed();
    println!("the migration waited again after {gave_way:?}, the slowest request took {slowest:?}");
    assert!(
        slowest < gave_way + Duration::from_secs(1),
        "{slowest:?}: nobody waits for more than one attempt"
    );
}
