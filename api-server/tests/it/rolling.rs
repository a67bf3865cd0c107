//! The cache while a Deployment rolls: new servers begin with what Redis holds, so nobody waits for an empty cache.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use sqlx::{Executor, Row};

use crate::app::{Person, TestApp, until};
use crate::cache::{LIST, contents, remember};
use crate::services::{Access, connect};

const PEOPLE: usize = 50;
/// Servers that a Deployment keeps.
const SERVERS: usize = 2;
/// Reads between two steps of the roll.
const BETWEEN: usize = 300;
/// A warm-up would look up what nobody has asked for, and help the new servers. Nothing ends by itself meanwhile.
const CONFIG: &str = "cache: {warmUp: {onStart: false}, ttl: {memories: 1h}}\ndrain: {timeout: 3s}";

/// What all readers share.
#[derive(Default)]
struct Roll {
    /// Who is ready, as a Service knows them.
    serving: Mutex<Vec<Arc<TestApp>>>,
    reads: AtomicUsize,
    done: AtomicBool,
}

impl Roll {
    fn joins(&self, app: &Arc<TestApp>) {
        self.serving.lock().unwrap().push(app.clone());
    }

    fn leaves(&self, app: &Arc<TestApp>) {
        self.serving
            .lock()
            .unwrap()
            .retain(|serving| !Arc::ptr_eq(serving, app));
    }

    fn server(&self, turn: usize) -> Arc<TestApp> {
        let serving = self.serving.lock().unwrap();
        serving[turn % serving.len()].clone()
    }

    /// Reads, person by person, at each server in turn, until told to stop. No read may fail.
    async fn read(&self, people: &[Person], first: usize) {
        let mut turn = first;
        while !self.done.load(Ordering::SeqCst) {
            let person = &people[turn / SERVERS % people.len()];
            let reply = self.server(turn).get_as(person, LIST).await.expect(200);
            assert_eq!(contents(&reply), [person.email.as_str()]);
            self.reads.fetch_add(1, Ordering::SeqCst);
            turn += 1;
        }
    }

    /// Waits for so many more reads.
    async fn more(&self, reads: usize) {
        let enough = self.reads.load(Ordering::SeqCst) + reads;
        until("reads go on", async || {
            self.reads.load(Ordering::SeqCst) >= enough
        })
        .await;
    }
}

async fn start() -> Arc<TestApp> {
    Arc::new(TestApp::builder().guest().config(CONFIG).start().await)
}

/// Somebody with a list that all servers have cached.
async fn newcomer(servers: &[Arc<TestApp>]) -> Person {
    let person = servers[0].person().await;
    let written = remember(&servers[0], &person, &person.email).await.expect(201);
    for server in servers {
        server.get_after(&person, LIST, &written).await.expect(200);
    }
    person
}

/// What a server has counted in its whole life: lookups, those of them that were hits, and those that Redis answered. Read from what it
/// would show; a server that has ended shows it to nobody.
fn lookups(app: &TestApp) -> (u64, u64, u64) {
    let text = app.running.app.metrics().encode().unwrap();
    let (mut all, mut hits, mut shared) = (0, 0, 0);
    for line in text.lines() {
        if let Some(series) = line.strip_prefix("tanka_cache_lookups_total{") {
            let (labels, count) = series.rsplit_once(' ').unwrap();
            let count: u64 = count.parse().unwrap();
            all += count;
            hits += count * u64::from(labels.contains("outcome=\"hit_"));
            shared += count * u64::from(labels.contains("outcome=\"hit_shared\""));
        }
    }
    (all, hits, shared)
}

/// A server that starts believes nothing of what was written within the last minute.
async fn a_minute_passes() {
    let age = "UPDATE cache_invalidations SET created_at = created_at - interval '2 minutes'";
    connect("postgres", 0).await.execute(age).await.unwrap();
    for instance in 0..3 {
        until("the age is everywhere", async || {
            let young =
                "SELECT count(*) FROM cache_invalidations WHERE created_at > now() - interval '1 minute'";
            let row = connect("postgres", instance)
                .await
                .fetch_one(young)
                .await
                .unwrap();
            row.get::<i64, _>(0) == 0
        })
        .await;
    }
}

/// J04, R01: two servers are replaced one after the other under steady reads. Nobody gets an error, and over the whole of it, old servers
/// and new ones, from the first empty cache on, more than 80 % of the lookups are hits.
#[tokio::test]
async fn a_rolling_restart_keeps_the_hit_rate() {
    let _access = Access::alone().await;
    let roll = Roll::default();
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        servers.push(start().await);
    }
    let people: Vec<Person> = futures::stream::iter(0..PEOPLE)
        .map(|_| newcomer(&servers))
        .buffer_unordered(4)
        .collect()
        .await;
    a_minute_passes().await;
    for server in &servers {
        roll.joins(server);
    }
    let mut all = servers.clone();
    let restart = async {
        for old in &servers {
            roll.more(BETWEEN).await;
            let new = start().await;
            roll.joins(&new);
            all.push(new);
            roll.more(BETWEEN).await;
            roll.leaves(old);
            assert!(old.running.drain().await, "it ended in time");
        }
        roll.more(BETWEEN).await;
        roll.done.store(true, Ordering::SeqCst);
    };
    let readers = futures::future::join_all((0..4).map(|reader| roll.read(&people, reader * 7)));
    tokio::join!(restart, readers);
    let (mut total, mut hits) = (0, 0);
    for (number, app) in all.iter().enumerate() {
        let (looked, hit, shared) = lookups(app);
        println!("server {number}: {looked} lookups, {hit} hits, {shared} of them in Redis");
        assert!(number < SERVERS || shared > 0, "a new server asks Redis");
        total += looked;
        hits += hit;
    }
    let reads = roll.reads.load(Ordering::SeqCst);
    println!("{hits} hits of {total} lookups, {reads} reads while all servers were replaced");
    assert!(total >= u64::try_from(reads).unwrap(), "every read is a lookup");
    assert!(hits * 5 > total * 4, "{hits} of {total}");
}
