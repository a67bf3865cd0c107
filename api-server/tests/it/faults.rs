//! What is answered while something is broken, and that it heals by itself: the table of `docs/faults.md`. Replicas that lag or hang are
//! in `replicas.rs`, Redis that goes and comes back under load in `cache.rs`.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::Instant;

use crate::app::{Person, Reply, TestApp, until};
use crate::services::{connect, control};

const CONVERSATIONS: &str = "/api/v1/conversations";
const MEMORIES: &str = "/api/v1/memories";

/// Code and pause of a refusal.
#[track_caller]
fn refusal(reply: &Reply) -> (String, u64) {
    assert_eq!(reply.status, 503, "{reply:?}");
    let code = reply.json()["code"].as_str().unwrap().to_owned();
    (code, reply.header("retry-after").parse().unwrap())
}

/// Without a primary, a write is held as long as the request may take and then refused; reads go on. With it, the next write works.
#[tokio::test]
async fn without_a_primary_writes_are_refused_in_time_and_reads_go_on() {
    let app = TestApp::builder()
        .alone()
        .config("http: {requestTimeout: 3s}")
        .start()
        .await;
    let person = app.person().await;
    let path = format!("{CONVERSATIONS}/{}", app.conversation(&person, "Here").await);
    until("the conversation is everywhere", async || {
        app.get_as(&person, &path).await.status == 200
    })
    .await;
    control("kill", "pg-primary");
    let started = Instant::now();
    let write = app
        .post_as(&person, CONVERSATIONS, json!({"title": "lost"}))
        .await;
    let took = started.elapsed();
    let read = app.get_as(&person, &path).await;
    let ready = app.get("/ready").await;
    control("start", "pg-primary");
    println!("a write without a primary was refused after {took:?}");
    assert_eq!(refusal(&write), ("unavailable".to_owned(), 1));
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!((read.status.as_u16(), ready.status.as_u16()), (200, 200));
    until("writes work again", async || {
        app.post_as(&person, CONVERSATIONS, json!({"title": "kept"}))
            .await
            .status
            == 201
    })
    .await;
    until("everything is well again", async || {
        app.deep().await.status == 200
    })
    .await;
    let list = app.get_as(&person, CONVERSATIONS).await.expect(200).json();
    let titles: Vec<&str> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["title"].as_str().unwrap())
        .collect();
    assert!(!titles.contains(&"lost"), "{titles:?}");
}

/// What waits for a connection is refused after `acquireTimeout`, what waits for a lock after its time; whatever needs neither goes on.
#[tokio::test]
async fn an_exhausted_pool_refuses_at_once_what_it_cannot_serve() {
    let app = TestApp::builder()
        .alone()
        .database_key("poolSize", 6)
        .database_key("acquireTimeout", "500ms")
        .start()
        .await;
    let person = app.person().await;
    app.get_as(&person, CONVERSATIONS).await.expect(200);
    let mut superuser = connect("postgres", 0).await;
    let mut locking = superuser.begin().await.unwrap();
    locking
        .execute("LOCK TABLE memories IN SHARE MODE")
        .await
        .unwrap();
    let write = async || {
        let started = Instant::now();
        let reply = app.post_as(&person, MEMORIES, json!({"content": "waits"})).await;
        (refusal(&reply), started.elapsed())
    };
    let others = async {
        until("the primary has no free connection", async || {
            app.post_as(&person, CONVERSATIONS, json!({"title": "x"}))
                .await
                .status
                == 503
        })
        .await;
        let started = Instant::now();
        let refused = app.post_as(&person, CONVERSATIONS, json!({"title": "x"})).await;
        let took = started.elapsed();
        let read = app.get_as(&person, CONVERSATIONS).await;
        (refused, took, read)
    };
    let waiting = futures::future::join_all((0..6).map(|_| write()));
    let (waited, (refused, took, read)) = tokio::join!(waiting, others);
    locking.rollback().await.unwrap();
    println!(
        "without a free connection a write is refused after {took:?}; those that wait for a lock: {waited:?}"
    );
    assert_eq!(refusal(&refused), ("unavailable".to_owned(), 1));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(read.status, 200, "{read:?}");
    assert_eq!(read.header("x-served-role"), "replica");
    for (refusal, took) in waited {
        assert_eq!(refusal, ("unavailable".to_owned(), 1));
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    until("writes work again", async || {
        app.post_as(&person, MEMORIES, json!({"content": "now"}))
            .await
            .status
            == 201
    })
    .await;
}

/// A table on a disk of its own, which another table fills.
async fn fill(superuser: &mut PgConnection) {
    superuser
        .execute("CREATE TABLESPACE small LOCATION '/tmp/small'")
        .await
        .unwrap();
    superuser
        .execute("ALTER TABLE messages SET TABLESPACE small")
        .await
        .unwrap();
    superuser
        .execute("CREATE TABLE filler (text text) TABLESPACE small")
        .await
        .unwrap();
    let some = "INSERT INTO filler SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 8000)";
    // Each statement is a transaction, so that what fitted stays.
    for _ in 0..1_000 {
        if let Err(error) = superuser.execute(some).await {
            assert_eq!(
                error.as_database_error().unwrap().code().unwrap(),
                "53100",
                "{error}"
            );
            return;
        }
    }
    panic!("the small disk is not full");
}

/// Letters that do not compress.
fn noise(seed: usize) -> String {
    use sha2::{Digest, Sha256};
    let block = |number: usize| {
        let digest = Sha256::digest(format!("{seed}-{number}"));
        digest
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    };
    (0..500).map(block).collect()
}

/// Writes messages until one is refused, or 200 were taken.
async fn write_until_full(app: &TestApp, person: &Person, path: &str) -> (usize, Option<Reply>) {
    for number in 0..200 {
        let reply = app.post_as(person, path, json!({"content": noise(number)})).await;
        if reply.status != 201 {
            return (number, Some(reply));
        }
    }
    (200, None)
}

/// A full disk refuses the write that needs room, whole, and nothing else. Room that is made is used without anybody's doing.
#[tokio::test]
async fn a_full_disk_refuses_what_needs_room_and_nothing_else() {
    let app = TestApp::builder().alone().start().await;
    let person = app.person().await;
    let conversation = app.conversation(&person, "Full").await;
    let path = format!("{CONVERSATIONS}/{conversation}/messages");
    let mut superuser = connect("postgres", 0).await;
    fill(&mut superuser).await;
    let (taken, refused) = write_until_full(&app, &person, &path).await;
    let elsewhere = app.post_as(&person, MEMORIES, json!({"content": "fits"})).await;
    let read = app.get_as(&person, &format!("{path}?limit=1")).await;
    superuser.execute("DROP TABLE filler").await.unwrap();
    let started = Instant::now();
    until("messages are taken again", async || {
        app.post_as(&person, &path, json!({"content": noise(1_000)}))
            .await
            .status
            == 201
    })
    .await;
    let healed = started.elapsed();
    superuser
        .execute("ALTER TABLE messages SET TABLESPACE pg_default")
        .await
        .unwrap();
    superuser.execute("DROP TABLESPACE small").await.unwrap();
    println!("{taken} messages fitted; with room again the next was taken after {healed:?}");
    assert_eq!(
        refusal(&refused.expect("a message was refused")),
        ("storage_full".to_owned(), 30)
    );
    assert_eq!((elsewhere.status.as_u16(), read.status.as_u16()), (201, 200));
    let list = async || {
        let list = app
            .get_as(&person, &format!("{path}?limit=100"))
            .await
            .expect(200)
            .json();
        list["items"].as_array().unwrap().len()
    };
    until("exactly what was taken is there", async || {
        list().await == (taken + 1).min(100)
    })
    .await;
}

/// Reads that no replica can serve leave room for writes on the primary; what they wait for in vain is told as a lack of time, from behind
/// the cache too.
#[tokio::test]
async fn reads_that_fall_back_leave_room_for_writes() {
    let app = TestApp::builder()
        .alone()
        .database_key("poolSize", 9)
        .database_key("acquireTimeout", "500ms")
        .start()
        .await;
    let person = app.person().await;
    app.get_as(&person, CONVERSATIONS).await.expect(200);
    let mut superuser = connect("postgres", 0).await;
    for replica in ["pg-replica-1", "pg-replica-2"] {
        control("pause", replica);
    }
    until("reads go to the primary", async || {
        let reply = app.get_as(&person, CONVERSATIONS).await;
        reply.header("x-served-role") == "primary"
    })
    .await;
    let mut locking = superuser.begin().await.unwrap();
    locking
        .execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let reads = futures::future::join_all((0..12).map(|number| {
        let path = format!("{MEMORIES}?limit={}", 1 + number);
        let (app, person) = (&app, &person);
        async move { app.get_as(person, &path).await }
    }));
    let writes = async {
        let mut statuses = Vec::new();
        for _ in 0..5 {
            let write = app
                .post_as(&person, CONVERSATIONS, json!({"title": "meanwhile"}))
                .await;
            statuses.push(write.status.as_u16());
        }
        statuses
    };
    let (reads, writes) = tokio::join!(reads, writes);
    let refused = app.metric("tanka_database_fallback_reads_refused_total").await;
    locking.rollback().await.unwrap();
    for replica in ["pg-replica-1", "pg-replica-2"] {
        control("resume", replica);
    }
    assert_eq!(writes, [201; 5]);
    for read in &reads {
        assert_eq!(refusal(read), ("unavailable".to_owned(), 1));
    }
    assert!(refused > 0, "{refused}");
    until("everything is well again", async || {
        app.deep().await.status == 200
    })
    .await;
}

/// Without Redis everything is answered, limits are still kept by each server, and it is used again when it is back.
#[tokio::test]
async fn without_redis_everything_is_answered() {
    const MEMBERS: [&str; 3] = ["redis-0", "redis-1", "redis-2"];
    let app = TestApp::builder()
        .alone()
        .config("rateLimit: {requestsPerMinute: 60, burst: 50, loginPerMinute: 1000, signupPerMinute: 10000}")
        .start()
        .await;
    let (person, hasty) = (app.person().await, app.person().await);
    for redis in MEMBERS {
        control("kill", redis);
    }
    until("Redis is missed", async || {
        app.metric("tanka_redis_up").await == 0
    })
    .await;
    let write = app
        .post_as(&person, CONVERSATIONS, json!({"title": "Here"}))
        .await;
    let read = app.get_after(&person, CONVERSATIONS, &write).await;
    let login = app.login(&person.email, &person.password).await;
    let ready = app.get("/ready").await;
    let mut limited = None;
    for _ in 0..70 {
        let reply = app.get_as(&hasty, CONVERSATIONS).await;
        if reply.status == 429 {
            limited = Some(reply);
            break;
        }
    }
    for redis in MEMBERS {
        control("start", redis);
    }
    assert_eq!((write.status.as_u16(), read.status.as_u16()), (201, 200));
    assert_eq!((login.status.as_u16(), ready.status.as_u16()), (200, 200));
    let limited = limited.expect("the limit holds without Redis");
    assert_eq!(limited.json()["code"], "too_many");
    until("Redis is used again", async || {
        app.metric("tanka_redis_up").await == 1
    })
    .await;
    until("everything is well again", async || {
        app.deep().await.status == 200
    })
    .await;
}

/// F04, F05: whoever waits for a service that hangs waits alone. Far more requests than the server has threads are on their way to it, and
/// others are answered before them.
#[tokio::test]
async fn a_service_that_hangs_holds_up_nobody_else() {
    let app = std::sync::Arc::new(TestApp::builder().alone().start().await);
    let person = app.person().await;
    for service in ["pg-primary", "redis-0"] {
        control("pause", service);
        let writes: Vec<_> = (0..40)
            .map(|_| {
                let (app, person) = (app.clone(), person.clone());
                tokio::spawn(async move {
                    app.post_as(&person, CONVERSATIONS, json!({"title": "Here"}))
                        .await
                })
            })
            .collect();
        for _ in 0..20 {
            app.get("/health").await.expect(200);
        }
        let waiting = writes.iter().filter(|write| !write.is_finished()).count();
        control("resume", service);
        println!("{waiting} writes waited for {service} while health was told");
        if service == "pg-primary" {
            assert_eq!(waiting, writes.len(), "no write can be done without it");
        }
        for write in writes {
            let reply = write.await.unwrap();
            assert!([201, 503].contains(&reply.status.as_u16()), "{reply:?}");
        }
    }
    until("everything is well again", async || {
        app.deep().await.status == 200
    })
    .await;
}
