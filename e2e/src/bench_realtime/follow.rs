//! Clients that go from one server to the next, whatever ends under them, checked message by message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::raw::Raw;
use super::team::Team;
use crate::client::Client as Http;
use crate::history::{History, Place, Reader, Summary};

const PATIENCE: Duration = Duration::from_mins(2);
/// A client that finds no server waits at least so long, and up to twice as long.
const AGAIN: Duration = Duration::from_millis(100);

/// What all clients share.
#[derive(Debug)]
pub struct Run {
    /// What happened.
    pub history: History,
    channel: String,
    path: String,
    addresses: Vec<String>,
    /// Offset at which clients are done.
    last: AtomicI64,
    settle: AtomicBool,
    connected: AtomicI64,
}

struct Client {
    number: usize,
    token: String,
    run: Arc<Run>,
    reader: Reader,
}

#[derive(Deserialize)]
struct Event<'a> {
    epoch: &'a str,
    offset: i64,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    content: &'a str,
}

impl Client {
    /// Follows the channel until the run settles; answers how long it was without a connection at the longest.
    async fn follow(mut self) -> Duration {
        let mut server = self.number % self.run.addresses.len();
        let (mut lost, mut longest) = (None::<Instant>, Duration::ZERO);
        loop {
            if let Ok(socket) = self.connect(server).await {
                if let Some(lost) = lost.take() {
                    longest = longest.max(lost.elapsed());
                }
                self.run.connected.fetch_add(1, Ordering::Relaxed);
                if self.listen(socket).await {
                    self.reader.settled();
                    return longest;
                }
                lost = Some(Instant::now());
                self.run.connected.fetch_sub(1, Ordering::Relaxed);
            } else {
                let spread = u32::try_from(self.number % 100).unwrap_or(0);
                sleep(AGAIN + AGAIN * spread / 100).await;
            }
            server = (server + 1) % self.run.addresses.len();
        }
    }

    async fn connect(&mut self, server: usize) -> Result<Raw> {
        let mut socket = Raw::open(&self.run.addresses[server], "/api/v1/ws").await?;
        let channel = &self.run.channel;
        let mut first = json!({"type": "connect", "token": self.token, "channels": [channel]});
        if let Some(place) = self.reader.place() {
            first["resume"] = json!({channel: {"offset": place.offset, "epoch": place.epoch}});
        }
        socket.say(&first.to_string()).await?;
        let answer: serde_json::Value = serde_json::from_str(&socket.hear().await?)?;
        let places = answer["channels"].as_array().context("refused")?;
        let place = places
            .iter()
            .find(|place| place["channel"] == *channel)
            .context("refused")?;
        let head = Place {
            epoch: place["epoch"].as_str().unwrap_or_default().to_owned(),
            offset: place["offset"].as_i64().context("no offset")?,
        };
        self.reader.subscribed(head, place["recovered"] == true);
        Ok(socket)
    }

    /// Reads until the connection is lost or everything has come; answers whether it has.
    async fn listen(&mut self, mut socket: Raw) -> bool {
        let Self { run, reader, .. } = self;
        let part = format!(r#""channel":"{}""#, run.channel);
        loop {
            let done = |reader: &Reader| {
                let last = run.last.load(Ordering::Relaxed);
                run.settle.load(Ordering::Relaxed) && reader.place().is_some_and(|place| place.offset >= last)
            };
            if done(reader) {
                return true;
            }
            let read = socket.read(|text| {
                if !String::from_utf8_lossy(&text[..text.len().min(200)]).contains(&part) {
                    return;
                }
                if let Ok(event) = serde_json::from_slice::<Event<'_>>(text) {
                    let place = Place {
                        epoch: event.epoch.to_owned(),
                        offset: event.offset,
                    };
                    reader.delivered(place, event.data.content);
                }
            });
            if let Ok(false) = timeout(Duration::from_secs(1), read).await {
                return false;
            }
        }
    }
}

/// The clients of a run, on a thread of their own.
#[derive(Debug)]
pub struct Followers {
    /// What they share.
    pub run: Arc<Run>,
    clients: JoinSet<Duration>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Followers {
    fn drop(&mut self) {
        // A runtime cannot be dropped where others run.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// How long each client was without a connection at the longest, where it lost one.
    pub without: Vec<Duration>,
    /// What the checker says.
    pub verdict: Result<Summary>,
}

impl Followers {
    /// Connects so many clients to the room, over all servers in turn.
    pub async fn start(team: &Team, addresses: Vec<String>, count: usize) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let run = Arc::new(Run {
            history: History::default(),
            channel: team.channel(),
            path: format!("/api/v1/workrooms/{}/messages", team.room),
            addresses,
            last: AtomicI64::new(i64::MAX),
            settle: AtomicBool::new(false),
            connected: AtomicI64::new(0),
        });
        let mut followers = Self {
            run,
            clients: JoinSet::new(),
            runtime: Some(runtime),
        };
        for number in 0..count {
            followers.spawn(team, number)?;
            if number % 50 == 49 {
                followers.wait(i64::try_from(number)? - 49).await?;
            }
        }
        followers.wait(i64::try_from(count)?).await?;
        Ok(followers)
    }

    fn spawn(&mut self, team: &Team, number: usize) -> Result<()> {
        let run = &self.run;
        let client = Client {
            number,
            token: team.token(number).to_owned(),
            run: run.clone(),
            reader: run.history.reader(&format!("client {number}"), &run.channel),
        };
        let runtime = self.runtime.as_ref().context("no runtime")?;
        self.clients.spawn_on(client.follow(), runtime.handle());
        Ok(())
    }

    /// Waits until so many are connected.
    async fn wait(&self, wanted: i64) -> Result<()> {
        let started = Instant::now();
        while self.connected() < wanted {
            ensure!(
                started.elapsed() < PATIENCE,
                "only {} clients are connected",
                self.connected()
            );
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// How many are connected.
    pub fn connected(&self) -> i64 {
        self.run.connected.load(Ordering::Relaxed)
    }

    /// Writes a last message, waits until everybody has it, and judges.
    pub async fn finish(mut self, team: &Team, owner: &Http) -> Result<Outcome> {
        let started = Instant::now();
        let mut number = 0;
        // Whatever was broken mends in time.
        while !self.run.say(owner, &format!("the last {number}")).await {
            ensure!(started.elapsed() < PATIENCE, "nothing can be written any more");
            number += 1;
            sleep(Duration::from_millis(100)).await;
        }
        // Its offset is what a new client is told, as soon as a server that is asked knows it.
        let last = loop {
            if let Ok(last) = self.run.head(team).await {
                break last;
            }
            ensure!(started.elapsed() < PATIENCE, "nobody can connect any more");
            sleep(Duration::from_millis(100)).await;
        };
        self.run.last.store(last, Ordering::Relaxed);
        self.run.settle.store(true, Ordering::Relaxed);
        let mut without = Vec::new();
        while let Some(longest) = timeout(PATIENCE, self.clients.join_next())
            .await
            .context("clients do not come to rest")?
        {
            without.extend(Some(longest?).filter(|longest| *longest > Duration::ZERO));
        }
        Ok(Outcome {
            without,
            verdict: self.run.history.verdict(),
        })
    }
}

impl Run {
    /// Writes a message; answers whether it was acknowledged. What was not may have been written nevertheless.
    pub async fn say(&self, by: &Http, id: &str) -> bool {
        self.history.asked(&self.channel, id);
        let answer = by.post(&self.path, &json!({"content": id}), &[]).await;
        let written = answer.is_ok_and(|answer| answer.status == 201);
        if written {
            self.history.acknowledged(&self.channel, id);
        }
        written
    }

    /// Where the channel is.
    async fn head(&self, team: &Team) -> Result<i64> {
        for address in &self.addresses {
            let Ok(mut socket) = Raw::open(address, "/api/v1/ws").await else {
                continue;
            };
            let first =
                json!({"type": "connect", "token": team.token(usize::MAX / 2), "channels": [self.channel]});
            socket.say(&first.to_string()).await?;
            let answer: serde_json::Value = serde_json::from_str(&socket.hear().await?)?;
            let places = answer["channels"].as_array().context("refused")?;
            let place = places
                .iter()
                .find(|place| place["channel"] == self.channel)
                .context("refused")?;
            return place["offset"].as_i64().context("no offset");
        }
        bail!("no server answers")
    }
}
