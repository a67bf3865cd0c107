//! What clients see while Redis and PostgreSQL end under the servers: Redis restarted, Redis failed over with what it was told in between
//! lost, PostgreSQL failed over to a replica. One run, checked message by message.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::crash::judge;
use super::follow::Followers;
use super::team::Team;
use crate::benchmark::report::Report;
use crate::benchmark::server::Server;
use crate::client::Client;
use crate::services::Platform;

const CLIENTS: usize = 40;
const PATIENCE: Duration = Duration::from_mins(1);
/// Messages that are under way at a time.
const WRITERS: usize = 4;
const REDIS: [&str; 3] = ["redis-0", "redis-1", "redis-2"];

/// Runs it with so many messages, a fifth of them before each fault and after the last.
pub async fn run(
    report: &mut Report,
    team: &Team,
    servers: &[&Server],
    platform: &mut Platform,
    messages: usize,
) -> Result<()> {
    commits_are_on_two(platform).await?;
    let addresses = servers.iter().map(|server| server.address.clone()).collect();
    let followers = Followers::start(team, addresses, CLIENTS).await?;
    let writers: Vec<Client> = servers
        .iter()
        .map(|server| team.owner.at(&server.address))
        .collect();
    let mut refused = 0;
    for part in 0..5 {
        let (from, to) = (part * messages / 5, (part + 1) * messages / 5);
        let writing = write(&followers, &writers, from, to);
        let breaking = disturb(platform, part);
        let (failed, broken) = tokio::join!(writing, breaking);
        broken?;
        refused += failed;
    }
    let outcome = followers.finish(team, &writers[0]).await?;
    report.raw(json!({"losses": messages, "not_acknowledged": refused, "without_connection": format!("{:?}", outcome.without)}));
    let what = format!(
        "{messages} messages while Redis is restarted and failed over and PostgreSQL is failed over ({refused} not acknowledged)"
    );
    judge(report, &what, &outcome.verdict);
    Ok(())
}

/// Writes messages over all servers; answers how many were not acknowledged.
async fn write(followers: &Followers, writers: &[Client], from: usize, to: usize) -> usize {
    let lanes = (0..WRITERS).map(|lane| async move {
        let mut failed = 0;
        for number in (from..to).skip(lane).step_by(WRITERS) {
            let by = &writers[number / WRITERS % writers.len()];
            failed += usize::from(!followers.run.say(by, &format!("message {number}")).await);
        }
        failed
    });
    futures::future::join_all(lanes).await.into_iter().sum()
}

/// A write is answered when a replica has it too, as on a platform; what is not there cannot survive.
async fn commits_are_on_two(platform: &Platform) -> Result<()> {
    let settings = "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'";
    platform.postgres.query(0, settings).await?;
    platform
        .postgres
        .query(0, "SELECT pg_reload_conf()")
        .await
        .map(drop)
}

async fn disturb(platform: &mut Platform, part: usize) -> Result<()> {
    // In the middle of the writes of this part.
    sleep(Duration::from_millis(500)).await;
    match part {
        1 => {
            for name in REDIS {
                platform.stack.service(name)?.kill().await?;
            }
            sleep(Duration::from_secs(1)).await;
            for name in REDIS {
                platform.stack.service(name)?.start()?;
            }
            redis_is_back(platform).await.map(drop)
        }
        2 => {
            let primary = redis_is_back(platform).await?;
            // What the primary is told from now on, nobody else hears.
            for (_, name) in REDIS.iter().enumerate().filter(|(index, _)| *index != primary) {
                platform.stack.service(name)?.pause().await?;
            }
            sleep(Duration::from_secs(1)).await;
            platform.stack.service(REDIS[primary])?.kill().await?;
            for (_, name) in REDIS.iter().enumerate().filter(|(index, _)| *index != primary) {
                platform.stack.service(name)?.resume().await?;
            }
            let next = redis_is_back(platform).await?;
            ensure!(next != primary, "Redis was not failed over");
            platform.stack.service(REDIS[primary])?.start()
        }
        3 => fail_over(platform).await,
        _ => Ok(()),
    }
}

async fn redis_is_back(platform: &Platform) -> Result<usize> {
    let started = Instant::now();
    loop {
        if let Ok(Some(primary)) = platform.redis.primary().await
            && platform
                .redis
                .server(primary, &["ROLE"])
                .await
                .is_ok_and(|role| role.starts_with("master"))
        {
            return Ok(primary);
        }
        ensure!(started.elapsed() < PATIENCE, "Redis has no primary in time");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Kills the primary and promotes the replica that has more; the other one follows it.
async fn fail_over(platform: &mut Platform) -> Result<()> {
    platform.stack.service("pg-primary")?.kill().await?;
    let mut positions = Vec::new();
    for index in 1..=2 {
        let received = "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint";
        positions.push((
            platform.postgres.query(index, received).await?.parse::<u64>()?,
            index,
        ));
    }
    let (_, new) = positions.iter().copied().max().context("no replica")?;
    let other = 3 - new;
    platform
        .postgres
        .query(new, "SELECT pg_promote(true, 30)")
        .await?;
    let port = platform.postgres.query(new, "SHOW port").await?;
    let slot = platform.postgres.query(other, "SHOW primary_slot_name").await?;
    let make = format!("SELECT pg_create_physical_replication_slot('{slot}')");
    platform.postgres.query(new, &make).await?;
    let old = platform.postgres.query(other, "SHOW primary_conninfo").await?;
    let followed: Vec<String> = old
        .split_whitespace()
        .map(|part| {
            if part.starts_with("port=") {
                format!("port={port}")
            } else {
                part.to_owned()
            }
        })
        .collect();
    let follow = format!(
        "ALTER SYSTEM SET primary_conninfo = '{}'",
        followed.join(" ").replace('\'', "''")
    );
    platform.postgres.query(other, &follow).await?;
    platform
        .postgres
        .query(other, "SELECT pg_reload_conf()")
        .await
        .map(drop)
}
