//! A connection that breaks at COMMIT. Whether the write happened cannot be known then, and the answer says so, unless the request brings
//! the key that makes repeating it safe.

use std::sync::{Arc, Mutex};

use axum::http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::app::{Person, TestApp, until};
use crate::cache::{LIST, contents};
use crate::services::{connect, instances};

/// What gets lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// The COMMIT itself: nothing has happened.
    Commit,
    /// The answer to it: everything has.
    Answer,
}

/// In the transaction that writes this text, that gets lost.
type Trap = Arc<Mutex<Option<(String, Lost)>>>;

/// The way of a server to the primary.
struct Line {
    port: u16,
    trap: Trap,
}

impl Line {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = Self {
            port: listener.local_addr().unwrap().port(),
            trap: Trap::default(),
        };
        let trap = line.trap.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, trap.clone()));
            }
        });
        line
    }

    /// All instances, the primary by this line.
    fn instances(&self) -> Value {
        let mut all = instances();
        all[0] = ("127.0.0.1".to_owned(), self.port);
        let list: Vec<Value> = all
            .iter()
            .enumerate()
            .map(|(index, (host, port))| json!({"name": format!("pg-{index}"), "host": host, "port": port}))
            .collect();
        Value::from(list)
    }

    fn lose(&self, lost: Lost, text: &str) {
        *self.trap.lock().unwrap() = Some((text.to_owned(), lost));
    }
}

/// Carries a connection until one side closes it or the trap springs.
async fn carry(mut client: TcpStream, trap: Trap) {
    let (host, port) = instances().swap_remove(0);
    let Ok(mut server) = TcpStream::connect((host, port)).await else {
        return;
    };
    let (mut asked, mut told) = (vec![0_u8; 1 << 16], vec![0_u8; 1 << 16]);
    let mut said = Vec::new();
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(count @ 1..) = read else { return };
                said.extend_from_slice(&asked[..count]);
                let lost = sprung(&trap, &mut said);
                if lost == Some(Lost::Commit) || server.write_all(&asked[..count]).await.is_err() {
                    return;
                }
                if lost == Some(Lost::Answer) {
                    // It has happened once the primary says so.
                    let _ = server.read(&mut told).await;
                    return;
                }
            }
            read = server.read(&mut told) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&told[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Whether the trap springs: what was said last is the COMMIT of the transaction in question. It springs once.
fn sprung(trap: &Trap, said: &mut Vec<u8>) -> Option<Lost> {
    let mut trap = trap.lock().unwrap();
    let Some((text, lost)) = &*trap else {
        said.clear();
        return None;
    };
    let (written, lost) = (find(said, text.as_bytes())?, *lost);
    find(&said[written..], b"COMMIT")?;
    *trap = None;
    Some(lost)
}

fn find(all: &[u8], part: &[u8]) -> Option<usize> {
    all.windows(part.len()).position(|window| window == part)
}

/// How many memories with a text the database holds of a person.
async fn kept(person: &Person, text: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM memories WHERE user_id = $1 AND content = $2")
        .bind(person.user_id.parse::<Uuid>().unwrap())
        .bind(text)
        .fetch_one(&mut connect("postgres", 0).await)
        .await
        .unwrap()
}

/// Without a key nobody may repeat the write, so the answer is that its outcome is unknown. What did happen is seen soon.
#[tokio::test]
async fn a_write_whose_commit_is_lost_has_an_unknown_outcome() {
    let line = Line::start().await;
    let app = TestApp::builder()
        .database_key("instances", line.instances())
        .start()
        .await;
    let person = app.person().await;
    let list = app.get_as(&person, LIST).await.expect(200);
    assert!(contents(&list).is_empty(), "and that is cached now");
    let unknown = "tanka_database_writes_total{outcome=\"unknown\"}";
    for (lost, text, count) in [(Lost::Commit, "never said", 0), (Lost::Answer, "said unheard", 1)] {
        let before = app.metric(unknown).await;
        line.lose(lost, text);
        let reply = app
            .post_as(&person, LIST, json!({"content": text}))
            .await
            .expect(503);
        assert_eq!(reply.json()["code"], "outcome_unknown", "{lost:?}");
        assert_eq!(
            reply.header("retry-after"),
            "",
            "nobody is asked to do it twice: {lost:?}"
        );
        assert_eq!(kept(&person, text).await, count, "{lost:?}");
        assert!(app.metric(unknown).await > before, "{lost:?}");
    }
    until("what happened is seen", async || {
        contents(&app.get_as(&person, LIST).await.expect(200)) == ["said unheard"]
    })
    .await;
    app.post_as(&person, LIST, json!({"content": "and on"}))
        .await
        .expect(201);
}

/// With a key the server repeats the write itself: nobody notices, and it has its effect once.
#[tokio::test]
async fn a_write_with_a_key_has_one_effect_whatever_is_lost_at_its_commit() {
    let line = Line::start().await;
    let app = TestApp::builder()
        .database_key("instances", line.instances())
        .start()
        .await;
    let person = app.person().await;
    for (lost, text, replayed) in [
        (Lost::Commit, "said again", ""),
        (Lost::Answer, "said once", "true"),
    ] {
        line.lose(lost, text);
        let key = [("idempotency-key", text)];
        let write = async || {
            let body = json!({"content": text});
            app.as_with(&person, Method::POST, LIST, &key, Some(body)).await
        };
        let reply = write().await.expect(201);
        assert!(line.trap.lock().unwrap().is_none(), "{lost:?}: it was lost");
        assert_eq!(reply.header("idempotency-replayed"), replayed, "{lost:?}");
        assert_eq!(write().await.expect(201).json(), reply.json(), "{lost:?}");
        assert_eq!(kept(&person, text).await, 1, "{lost:?}");
    }
}
