//! `kill -9` of one of two servers under thousands of clients.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::follow::{Followers, Outcome};
use super::tally::percentile;
use super::team::Team;
use crate::benchmark::report::Report;
use crate::benchmark::server::Server;
use crate::history::Summary;

/// Messages that are written before and after the kill, and pause between two.
const EACH_SIDE: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Kills the second server; answers when clients are connected again and everything is checked.
pub async fn kill(
    report: &mut Report,
    team: &Team,
    first: &Server,
    mut second: Server,
    count: usize,
) -> Result<()> {
    // An epoch to begin with.
    let addresses = vec![first.address.clone(), second.address.clone()];
    let followers = Followers::start(team, addresses, count).await?;
    write(team, &followers, 0).await?;
    second.kill().await?;
    let killed = Instant::now();
    write(team, &followers, EACH_SIDE).await?;
    sleep(Duration::from_secs(5).saturating_sub(killed.elapsed())).await;
    let connected = followers.connected();
    let Outcome { without, verdict } = followers.finish(team, &team.owner).await?;
    let mut tenths = vec![0_u64; 1_200];
    for longest in &without {
        tenths[usize::try_from(longest.as_millis() / 100)?.min(1_199)] += 1;
    }
    let (lost, within) = (without.len(), tenths[..50].iter().sum::<u64>());
    ensure!(lost > 0, "nobody lost a connection");
    report.raw(json!({"killed": lost, "connected_after_5_s": connected, "tenths": tenths, "verdict": format!("{verdict:?}")}));
    let p99 = percentile(&tenths, 99);
    report.row(
        &format!("`kill -9` of one of two servers with {count} clients"),
        &format!(
            "{within} of the {lost} that lost their connection were back within 5 s; p99 {}.{} s",
            p99 / 10,
            p99 % 10
        ),
        "99 % within 5 s",
        Some(within * 100 >= u64::try_from(lost)? * 99),
    );
    judge(report, "the same, message by message", &verdict);
    Ok(())
}

/// A row of what the checker says.
pub fn judge(report: &mut Report, what: &str, verdict: &Result<Summary>) {
    let (found, met) = match verdict {
        Ok(summary) => (
            format!(
                "0 lost, 0 doubled, 0 out of order of {} deliveries of {} messages; {} times not recovered",
                summary.delivered, summary.acknowledged, summary.unrecovered
            ),
            summary.unrecovered == 0,
        ),
        Err(error) => (
            format!("{error:#}")
                .lines()
                .take(2)
                .collect::<Vec<_>>()
                .join("; "),
            false,
        ),
    };
    report.row(what, &found, "0 lost, 0 doubled, 0 out of order", Some(met));
}

async fn write(team: &Team, followers: &Followers, from: usize) -> Result<()> {
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in from..from + EACH_SIDE {
        ticks.tick().await;
        ensure!(
            followers.run.say(&team.owner, &format!("message {number}")).await,
            "message {number} was not written"
        );
    }
    Ok(())
}
