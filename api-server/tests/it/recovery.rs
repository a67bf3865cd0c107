//! What clients see while processes and Redis end under them: checked event by event, by the checker of the load runs.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::Method;
use e2e::history::{History, Place, Reader};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::app::{PATIENCE, Person, TestApp, until, write_config};
use crate::services::control;
use crate::workrooms::workroom;

/// A server of its own process, which can be killed.
struct Process {
    child: Child,
    address: String,
    _directory: TempDir,
}

impl Process {
    async fn start(app: &TestApp) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = write_config(&directory, "");
        let pepper = directory.path().join("pepper");
        std::fs::write(&pepper, [42; 32]).unwrap();
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let (address, ops) = (free(), free());
        let child = Command::new(env!("CARGO_BIN_EXE_tanka-api"))
            .args(["serve", "--listen", &address, "--ops-listen", &ops, "--config"])
            .arg(config)
            .arg("--pepper-file")
            .arg(pepper)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let process = Self {
            child,
            address,
            _directory: directory,
        };
        until("the process is ready", async || {
            if TcpStream::connect(&process.address).await.is_err() {
                return false;
            }
            let url = format!("http://{}/ready", process.address);
            app.send(Method::GET, &url, &[], None).await.status == 200
        })
        .await;
        process
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A client that goes from one server to the next until it is told to settle.
struct Follower {
    token: String,
    channel: String,
    servers: Vec<String>,
    reader: Reader,
    settle: Arc<AtomicBool>,
    /// Offset that everybody has to reach.
    last: Arc<std::sync::atomic::AtomicI64>,
    /// From losing a connection to having another one.
    slowest: Duration,
}

impl Follower {
    async fn run(mut self, first: usize) -> Duration {
        let mut server = first;
        let mut lost: Option<Instant> = None;
        loop {
            if let Some(stream) = self.connect(server).await {
                if let Some(lost) = lost.take() {
                    self.slowest = self.slowest.max(lost.elapsed());
                }
                if self.listen(stream).await {
                    self.reader.settled();
                    return self.slowest;
                }
            }
            lost.get_or_insert_with(Instant::now);
            server = (server + 1) % self.servers.len();
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn connect(&mut self, server: usize) -> Option<Stream> {
        let url = format!("ws://{}/ws", self.servers[server]);
        let (mut stream, _) = timeout(PATIENCE, connect_async(url)).await.ok()?.ok()?;
        let mut first = json!({"type": "connect", "token": self.token, "channels": [self.channel]});
        if let Some(place) = self.reader.place() {
            let place = json!({"offset": place.offset, "epoch": place.epoch});
            first["resume"] = json!({self.channel.clone(): place});
        }
        stream.send(Message::text(first.to_string())).await.ok()?;
        let answer = timeout(PATIENCE, stream.next()).await.ok()??.ok()?;
        let answer: Value = serde_json::from_str(answer.to_text().ok()?).ok()?;
        let places = answer["channels"].as_array()?;
        let place = places.iter().find(|place| place["channel"] == self.channel)?;
        let head = Place {
            epoch: place["epoch"].as_str().unwrap_or_default().to_owned(),
            offset: place["offset"].as_i64()?,
        };
        self.reader
            .subscribed(head, place["recovered"].as_bool() == Some(true));
        Some(stream)
    }

    /// Reads until the connection is lost, or everything has come; answers whether it has.
    async fn listen(&mut self, mut stream: Stream) -> bool {
        loop {
            let done = self
                .reader
                .place()
                .is_some_and(|place| place.offset >= self.last.load(Ordering::SeqCst));
            if done && self.settle.load(Ordering::SeqCst) {
                return true;
            }
            let message = match timeout(Duration::from_millis(200), stream.next()).await {
                Err(_) => continue,
                Ok(Some(Ok(message))) => message,
                Ok(_) => return false,
            };
            let Message::Text(text) = message else {
                if matches!(message, Message::Close(_)) {
                    return false;
                }
                continue;
            };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["type"] != "event" || frame["channel"] != self.channel {
                continue;
            }
            let place = Place {
                epoch: frame["epoch"].as_str().unwrap().to_owned(),
                offset: frame["offset"].as_i64().unwrap(),
            };
            let id = frame["data"]["content"].as_str().unwrap();
            self.reader.delivered(place, id);
        }
    }
}

/// A run: one room, its readers, and a record of what was written.
pub struct Run {
    history: History,
    pub channel: String,
    room: String,
    settle: Arc<AtomicBool>,
    last: Arc<std::sync::atomic::AtomicI64>,
    followers: JoinSet<Duration>,
}

impl Run {
    /// Readers of a room, spread over servers.
    pub async fn start(app: &TestApp, person: &Person, servers: &[String], readers: usize) -> Self {
        let room = workroom(app, person, "Room").await;
        let channel = format!("workroom:{}:updates", room.rsplit_once('/').unwrap().1);
        let mut run = Self {
            history: History::default(),
            channel,
            room,
            settle: Arc::default(),
            last: Arc::new(i64::MAX.into()),
            followers: JoinSet::new(),
        };
        // An epoch to begin with.
        run.say(app, person, &servers[0], 0).await;
        for number in 0..readers {
            let follower = Follower {
                token: person.token.clone(),
                channel: run.channel.clone(),
                servers: servers.to_vec(),
                reader: run.history.reader(&format!("reader {number}"), &run.channel),
                settle: run.settle.clone(),
                last: run.last.clone(),
                slowest: Duration::ZERO,
            };
            run.followers.spawn(follower.run(number % servers.len()));
        }
        run
    }

    /// Writes a message through a server; what becomes of it when the server dies is not known.
    pub async fn say(&self, app: &TestApp, person: &Person, server: &str, number: usize) -> bool {
        let id = format!("message {number}");
        self.history.asked(&self.channel, &id);
        let url = format!("http://{server}{}/messages", self.room);
        let bearer = format!("Bearer {}", person.token);
        let headers = [("authorization", bearer.as_str())];
        let body = Some(json!({"content": id}));
        let answer = timeout(PATIENCE, app.try_send(Method::POST, &url, &headers, body)).await;
        let written = matches!(answer, Ok(Some(reply)) if reply.status == 201);
        if written {
            self.history.acknowledged(&self.channel, &id);
        }
        written
    }

    /// Writes a last message, waits until everybody has it, and judges. Answers how long the slowest reader was without a connection.
    pub async fn finish(mut self, app: &TestApp, person: &Person) -> Duration {
        let url = format!("{}/messages", self.room);
        self.history.asked(&self.channel, "the last");
        app.post_as(person, &url, json!({"content": "the last"}))
            .await
            .expect(201);
        self.history.acknowledged(&self.channel, "the last");
        let mut connection = crate::services::connect("postgres", 0).await;
        let last: i64 = sqlx::query_scalar("SELECT last_position FROM channels WHERE name = $1")
            .bind(&self.channel)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        self.last.store(last, Ordering::SeqCst);
        self.settle.store(true, Ordering::SeqCst);
        let mut slowest = Duration::ZERO;
        while let Some(followed) = timeout(PATIENCE, self.followers.join_next())
            .await
            .expect("readers have everything in time")
        {
            slowest = slowest.max(followed.unwrap());
        }
        let summary = self.history.verdict().unwrap();
        println!("{summary:?}, longest without a connection {slowest:?}");
        assert_eq!(summary.unrecovered, 0, "everybody was caught up");
        slowest
    }
}

/// H15, W-9: a process is killed that serves half of the readers and half of the writes. Nothing that was acknowledged is lost, nothing
/// comes twice or in another order, and all are back within 5 s.
#[tokio::test]
async fn a_killed_process_costs_nobody_an_event() {
    let app = TestApp::start().await;
    let mut process = Process::start(&app).await;
    let person = app.person().await;
    let servers = [app.running.address.to_string(), process.address.clone()];
    let run = Run::start(&app, &person, &servers, 30).await;
    let mut by_server = HashMap::from([(0, 0), (1, 0)]);
    for number in 1..=300 {
        if number == 150 {
            process.kill();
        }
        let written = run.say(&app, &person, &servers[number % 2], number).await;
        *by_server.entry(number % 2).or_default() += usize::from(written);
    }
    assert_eq!(by_server[&0], 150);
    assert!((70..=75).contains(&by_server[&1]), "{by_server:?}");
    // F41: what the dead process left in the registry ends with its lease.
    until("the dead process is not counted any more", async || {
        let listing = app
            .get_as(&person, "/api/v1/tenant/connections")
            .await
            .expect(200)
            .json();
        listing["nodes"].as_array().unwrap().len() == 1 && listing["total"] == 30
    })
    .await;
    let slowest = run.finish(&app, &person).await;
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

/// Redis ends and comes back, twice, while messages are written: nothing is lost, repeated or reordered, and no client notices.
#[tokio::test]
async fn redis_that_restarts_costs_nobody_an_event() {
    let app = TestApp::builder().alone().start().await;
    let other = TestApp::builder().guest().start().await;
    let person = app.person().await;
    let servers = [app.running.address.to_string(), other.running.address.to_string()];
    let run = Run::start(&app, &person, &servers, 20).await;
    let nodes = ["redis-0", "redis-1", "redis-2"];
    for number in 1..=400 {
        match number {
            80 | 240 => nodes.iter().for_each(|node| control("kill", node)),
            160 | 320 => nodes.iter().for_each(|node| control("start", node)),
            _ => {}
        }
        assert!(run.say(&app, &person, &servers[number % 2], number).await);
    }
    let slowest = run.finish(&app, &person).await;
    assert_eq!(slowest, Duration::ZERO, "nobody lost the connection");
    until("both servers are subscribed again", async || {
        app.metric("tanka_realtime_subscribed").await + other.metric("tanka_realtime_subscribed").await == 2
    })
    .await;
}
