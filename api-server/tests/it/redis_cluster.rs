//! A Redis Cluster in place of the platform's own Redis: three primaries with a replica each.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, Value};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::app::{TestApp, until};
use crate::cache::{contents, remember};
use crate::recovery::Run;
use crate::services::{control, variable};

fn addresses() -> Vec<String> {
    variable("TANKA_TEST_REDIS_CLUSTER")
        .split(',')
        .map(ToOwned::to_owned)
        .collect()
}

/// URL of one of its servers.
pub fn url(server: usize) -> String {
    format!(
        "redis://:{}@{}",
        variable("TANKA_TEST_REDIS_PASSWORD"),
        addresses()[server]
    )
}

async fn server(number: usize) -> MultiplexedConnection {
    let client = Client::open(url(number)).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// Two processes that know one server of the cluster.
struct Pair {
    apps: [TestApp; 2],
    _directory: TempDir,
}

impl Pair {
    async fn start(known: usize, alone: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("redis-url");
        std::fs::write(&file, url(known)).unwrap();
        let settings = json!({"urlFile": file});
        let first = TestApp::builder().redis(settings.clone());
        let first = if alone { first.alone() } else { first };
        let apps = [
            first.start().await,
            TestApp::builder().redis(settings).guest().start().await,
        ];
        let pair = Self {
            apps,
            _directory: directory,
        };
        pair.wait_for("tanka_realtime_subscribed").await;
        pair.wait_for("tanka_cache_subscribed").await;
        pair
    }

    async fn wait_for(&self, metric: &str) {
        until(metric, async || {
            let [app, other] = &self.apps;
            app.metric(metric).await + other.metric(metric).await == 2
        })
        .await;
    }

    fn servers(&self) -> Vec<String> {
        self.apps
            .iter()
            .map(|app| app.running.address.to_string())
            .collect()
    }
}

/// Both processes listen to a channel at the server of its slot, nobody at another one, and there are no classic channels.
async fn one_server_alone_delivers(channel: &str) {
    let channel = format!("tanka:event:{channel}");
    let mut listening = Vec::new();
    for number in 0..3 {
        let mut connection = server(number).await;
        let ask = |kind: &str, what: &str| redis::cmd("PUBSUB").arg(kind).arg(what).to_owned();
        let classic: Vec<String> = ask("CHANNELS", "tanka:*")
            .query_async(&mut connection)
            .await
            .unwrap();
        assert_eq!(classic, Vec::<String>::new());
        let counts: (String, i64) = ask("SHARDNUMSUB", &channel)
            .query_async(&mut connection)
            .await
            .unwrap();
        listening.push(counts.1);
    }
    listening.sort_unstable();
    assert_eq!(listening, [0, 0, 2]);
}

/// F43: events and invalidations go through sharded channels, each at the one server that holds its slot. Everything that is kept in
/// Redis works in a cluster: entries of the cache are found by the other process, writes replace them there, everybody who is connected
/// anywhere is listed.
#[tokio::test]
async fn all_that_redis_does_a_cluster_does() {
    const LIST: &str = "/api/v1/memories";
    let pair = Pair::start(1, false).await;
    let [app, other] = &pair.apps;
    let person = app.person().await;
    let run = Run::start(app, &person, &pair.servers(), 4).await;
    for number in 1..=20 {
        assert!(run.say(app, &person, &pair.servers()[number % 2], number).await);
    }
    one_server_alone_delivers(&run.channel).await;
    until("all connections are listed on both sides", async || {
        let mut seen = Vec::new();
        for app in &pair.apps {
            let listing = app
                .get_as(&person, "/api/v1/tenant/connections")
                .await
                .expect(200)
                .json();
            seen.push((
                listing["nodes"].as_array().unwrap().len(),
                listing["total"].clone(),
            ));
        }
        seen.iter().all(|(nodes, total)| *nodes == 2 && *total == 4)
    })
    .await;
    run.finish(app, &person).await;

    let first = remember(app, &person, "tea").await.expect(201);
    until("the list is cached here", async || {
        app.get_after(&person, LIST, &first)
            .await
            .expect(200)
            .header("x-cache")
            == "hit"
    })
    .await;
    let found = other.get_after(&person, LIST, &first).await.expect(200);
    assert_eq!(found.header("x-cache"), "hit", "through Redis");
    remember(app, &person, "coffee").await.expect(201);
    until("the other process has heard", async || {
        contents(&other.get_as(&person, LIST).await) == ["coffee", "tea"]
    })
    .await;
}

/// The server that the configuration names ends, and its replica takes over: nothing is lost, repeated or reordered, no client notices,
/// and no entry of the cache from before is believed afterwards.
#[tokio::test]
async fn a_server_of_a_cluster_that_dies_costs_nobody_an_event() {
    let pair = Pair::start(0, true).await;
    let [app, _] = &pair.apps;
    let person = app.person().await;
    let history = || {
        app.running
            .app
            .redis()
            .get()
            .map(|connected| connected.replication_id.clone())
    };
    let before = history().unwrap();
    let run = Run::start(app, &person, &pair.servers(), 20).await;
    for number in 1..=200 {
        if number == 60 {
            spawn_blocking(|| control("kill", "cluster-0")).await.unwrap();
        }
        assert!(run.say(app, &person, &pair.servers()[number % 2], number).await);
    }
    pair.wait_for("tanka_redis_up").await;
    pair.wait_for("tanka_realtime_subscribed").await;
    let mut promoted = server(3).await;
    let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut promoted).await.unwrap();
    assert_eq!(
        role[0],
        Value::BulkString("master".into()),
        "its replica is the primary now"
    );
    assert_ne!(history().unwrap(), before, "the cache begins anew");
    for number in 201..=250 {
        assert!(run.say(app, &person, &pair.servers()[number % 2], number).await);
    }
    let slowest = run.finish(app, &person).await;
    assert_eq!(slowest, Duration::ZERO, "nobody lost the connection");

    // As it was, for the tests that follow.
    spawn_blocking(|| control("start", "cluster-0")).await.unwrap();
    let give_back = || {
        let mut command = redis::cmd("CLUSTER");
        command.arg("FAILOVER");
        command
    };
    until("the old primary is one again", async || {
        let Ok(client) = Client::open(url(0)) else {
            return false;
        };
        let Ok(mut old) = client.get_multiplexed_async_connection().await else {
            return false;
        };
        let Ok(role) = redis::cmd("ROLE").query_async::<Vec<Value>>(&mut old).await else {
            return false;
        };
        if role.first() == Some(&Value::BulkString("master".into())) {
            return true;
        }
        let _ = give_back().query_async::<()>(&mut old).await;
        false
    })
    .await;
    pair.wait_for("tanka_redis_up").await;
}
