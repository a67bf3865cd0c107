//! The rows of the table, each measured in turns of both sides.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::time::sleep;

use super::load::{Found, Load};
use super::{Length, Sides};
use crate::benchmark::report::Report;
use crate::services::Platform;

/// Tables that the list of conversations reads.
const READ: [&str; 2] = ["conversations", "messages"];
/// What the API calls itself in PostgreSQL.
const OURS: &str = "tanka-api";

/// What is wanted of a route.
#[derive(Debug)]
pub struct Goals {
    /// In words.
    pub words: &'static str,
    /// Times the rate of the peer.
    pub ratio: f64,
}

/// The 99th percentile that is wanted at equal load.
const TENTH: &str = "at most a tenth of the peer's";

/// A route at both sides: as much as comes through, and then both at half of what the peer can do.
pub async fn route(
    report: &mut Report,
    sides: &Sides<'_>,
    (what, connections): (&str, usize),
    load: &Load,
    goals: &Goals,
) -> Result<()> {
    let (ours, peers) = (
        load.of(&sides.tokens).over(connections),
        load.of(&sides.peer_tokens).over(connections),
    );
    let (mut own, mut other, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..sides.length.rounds {
        own.push(ours.run_all(&sides.api.address, sides.length.seconds).await?);
        other.push(peers.run_all(&sides.peer.address, sides.length.seconds).await?);
        bare.push(ours.run_all(&sides.floor.address, sides.length.seconds).await?);
    }
    let (own_rate, other_rate, bare_rate) = (rate(&own), rate(&other), rate(&bare));
    let ratio = own_rate / other_rate;
    report.row(
        &format!("{what}, {connections} connections: answers/s"),
        &format!(
            "{own_rate:.0}; {other_rate:.0} of the peer: {ratio:.1} times; a bare server {bare_rate:.0}: {:.0} % of it",
            own_rate / bare_rate * 100.0
        ),
        goals.words,
        Some(ratio >= goals.ratio),
    );
    report.row(
        &format!("{what}, {connections} connections: p99 while that goes on"),
        &format!(
            "{:.2} ms; {:.2} ms of the peer; {:.2} ms of the bare server",
            p99(&own),
            p99(&other),
            p99(&bare)
        ),
        "",
        None,
    );
    equal(report, sides, what, (&ours, &peers), other_rate / 2.0).await
}

/// Both sides at the same load, which both bear.
async fn equal(
    report: &mut Report,
    sides: &Sides<'_>,
    what: &str,
    (ours, peers): (&Load, &Load),
    load: f64,
) -> Result<()> {
    let (mut own, mut other) = (Vec::new(), Vec::new());
    let seconds = sides.length.seconds;
    for _ in 0..sides.length.rounds {
        own.push(ours.at(load).run_all(&sides.api.address, seconds).await?);
        other.push(peers.at(load).run_all(&sides.peer.address, seconds).await?);
    }
    report.row(
        &format!("{what}, {:.0} requests/s at each side: p99", rate(&own)),
        &format!(
            "{:.2} ms; {:.2} ms of the peer: {:.1} times",
            p99(&own),
            p99(&other),
            p99(&other) / p99(&own)
        ),
        TENTH,
        Some(p99(&own) * 10.0 <= p99(&other)),
    );
    Ok(())
}

/// Connections to PostgreSQL while lists are read as quickly as possible.
pub async fn connections(
    report: &mut Report,
    sides: &Sides<'_>,
    platform: &Platform,
    load: &Load,
) -> Result<()> {
    let load = load.of(&sides.tokens).over(256);
    let running = load.run_all(&sides.api.address, sides.length.seconds);
    tokio::pin!(running);
    let mut most = 0;
    let found = loop {
        tokio::select! {
            found = &mut running => break found?,
            counted = count(platform) => most = most.max(counted?),
        }
    };
    report.row(
        "connections to PostgreSQL, all three instances, under 256 connections that read lists",
        &format!("{most}, at {:.0} answers/s", found.rate()),
        "at most 8",
        Some(most <= 8),
    );
    Ok(())
}

async fn count(platform: &Platform) -> Result<u64> {
    let mut all = 0;
    for index in 0..crate::services::postgres::SERVERS {
        let statement = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{OURS}'");
        all += platform.postgres.query(index, &statement).await?.parse::<u64>()?;
    }
    sleep(Duration::from_millis(100)).await;
    Ok(all)
}

/// Lists with row-level security and without it.
pub async fn row_level_security(
    report: &mut Report,
    sides: &Sides<'_>,
    platform: &Platform,
    load: &Load,
) -> Result<()> {
    let load = load.of(&sides.tokens).over(64);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..sides.length.rounds {
        with.push(load.run_all(&sides.api.address, sides.length.seconds).await?);
        switch(platform, "DISABLE").await?;
        let found = load.run_all(&sides.api.address, sides.length.seconds).await;
        switch(platform, "ENABLE").await?;
        without.push(found?);
    }
    let lower = (1.0 - rate(&with) / rate(&without)) * 100.0;
    report.row(
        "lists with row-level security, and without",
        &format!(
            "{:.0} answers/s, {:.0} answers/s: {lower:.1} % lower",
            rate(&with),
            rate(&without)
        ),
        "at most 20 % lower",
        Some(lower <= 20.0),
    );
    Ok(())
}

async fn switch(platform: &Platform, action: &str) -> Result<()> {
    let statements: Vec<String> = READ
        .iter()
        .map(|table| format!("ALTER TABLE {table} {action} ROW LEVEL SECURITY"))
        .collect();
    platform.postgres.query(0, &statements.join("; ")).await?;
    // Replicas follow within a moment, and what they have planned is planned anew.
    sleep(Duration::from_secs(1)).await;
    Ok(())
}

/// Cached reads alone, and beside a hundred people who log in.
pub async fn storm(report: &mut Report, sides: &Sides<'_>, read: &Load, login: &Load) -> Result<()> {
    for (who, address, tokens, goal) in [
        ("the API", &sides.api.address, &sides.tokens, true),
        ("the peer", &sides.peer.address, &sides.peer_tokens, false),
    ] {
        let read = read.of(tokens).over(64);
        let (mut quiet, mut beside, mut logins) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..sides.length.rounds {
            quiet.push(read.run_all(address, sides.length.seconds).await?);
            // As if each waited for a fifth of a second before the next attempt: far more than can be hashed.
            let crowd = login.over(100).at(500.0);
            let (found, crowd) = tokio::join!(
                read.run_all(address, sides.length.seconds),
                crowd.run(address, sides.length.seconds + 1)
            );
            beside.push(found?);
            logins.push(crowd?);
        }
        let times = p99(&beside) / p99(&quiet);
        let refused: u64 = logins.iter().map(|found| found.refused).sum();
        report.row(
            &format!("cached reads of {who} beside 100 logins in flight: p99"),
            &format!(
                "{:.2} ms, alone {:.2} ms: {times:.1} times; {:.0} answers/s, alone {:.0}; {:.0} logins/s, {refused} told to come again",
                p99(&beside),
                p99(&quiet),
                rate(&beside),
                rate(&quiet),
                rate(&logins)
            ),
            if goal { "at most 15 ms" } else { "" },
            goal.then(|| p99(&beside) <= 15.0),
        );
    }
    Ok(())
}

/// What a process at rest holds, and how soon it is ready.
pub fn rest(report: &mut Report, resident: u64, mut ready: Vec<Duration>) {
    report.row(
        "resident memory at rest",
        &format!(
            "{:.1} MiB",
            f64::from(u32::try_from(resident >> 10).unwrap_or(u32::MAX)) / 1_024.0
        ),
        "under 40 MiB",
        Some(resident < 40 << 20),
    );
    ready.sort_unstable();
    let median = ready[ready.len() / 2];
    let all: Vec<_> = ready.iter().map(|time| time.as_millis().to_string()).collect();
    report.row(
        "from start to ready",
        &format!("{} ms, the median of {} ms", median.as_millis(), all.join(", ")),
        "under 500 ms",
        Some(median < Duration::from_millis(500)),
    );
}

/// Keeps what a route was measured with.
pub fn note(report: &mut Report, length: Length) {
    report.raw(json!({"rounds": length.rounds, "seconds": length.seconds, "generator": "wrk, 1 thread"}));
}

fn rate(found: &[Found]) -> f64 {
    median(found.iter().map(Found::rate).collect())
}

fn p99(found: &[Found]) -> f64 {
    median(found.iter().map(Found::p99_ms).collect())
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
