//! A rolling restart of both servers under clients and writes, as Kubernetes does it: SIGTERM, and routing that looks at readiness.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::crash::judge;
use super::follow::{Followers, Outcome};
use super::tally::percentile;
use super::team::Team;
use crate::benchmark::report::Report;
use crate::benchmark::server::Server;
use crate::client::Client;

/// Pause between two messages.
const PAUSE: Duration = Duration::from_millis(50);
/// Time between two looks at readiness, and the limit of one.
const PROBE: Duration = Duration::from_secs(1);
/// Writes go on for so long after the last restart.
const AFTER: Duration = Duration::from_secs(3);

/// Restarts one server after the other while messages are written.
pub async fn roll(report: &mut Report, team: &Team, servers: [&mut Server; 2], count: usize) -> Result<()> {
    let addresses = servers.each_ref().map(|server| server.address.clone());
    let followers = Followers::start(team, addresses.to_vec(), count).await?;
    let routing = Routing::new(team, &addresses);
    let begun = Instant::now();
    let restarts = async {
        for server in servers {
            server.terminate().await?;
            server.again().await?;
        }
        let took = begun.elapsed();
        sleep(AFTER).await;
        anyhow::Ok(took)
    };
    let took = tokio::select! {
        took = restarts => took?,
        () = routing.watch() => Duration::ZERO,
        () = routing.write(&followers) => Duration::ZERO,
    };
    let (asked, failed) = routing.written();
    let Outcome { without, verdict } = followers.finish(team, &team.owner).await?;
    let mut tenths = vec![0_u64; 1_200];
    for longest in &without {
        tenths[usize::try_from(longest.as_millis() / 100)?.min(1_199)] += 1;
    }
    report.raw(json!({"restarted_after_ms": took.as_millis(), "asked": asked, "failed": failed, "tenths": tenths, "verdict": format!("{verdict:?}")}));
    let p99 = percentile(&tenths, 99);
    report.row(
        &format!("two servers restarted by SIGTERM, one after the other, with {count} clients and 20 messages a second"),
        &format!(
            "{failed} of {asked} writes failed; {} connections moved, p99 of the time without one {}.{} s; {:.1} s in all",
            without.len(),
            p99 / 10,
            p99 % 10,
            took.as_secs_f64()
        ),
        "0 failed",
        Some(failed == 0 && asked > 0),
    );
    judge(report, "the same, message by message", &verdict);
    Ok(())
}

/// Who is asked: the servers that were ready when they were looked at last, in turn.
struct Routing {
    servers: Vec<(Client, AtomicBool)>,
    turn: AtomicUsize,
    asked: AtomicUsize,
    failed: AtomicUsize,
}

impl Routing {
    fn new(team: &Team, addresses: &[String]) -> Self {
        let at = |address: &String| (team.owner.at(address), AtomicBool::new(true));
        Self {
            servers: addresses.iter().map(at).collect(),
            turn: AtomicUsize::default(),
            asked: AtomicUsize::default(),
            failed: AtomicUsize::default(),
        }
    }

    /// Looks at readiness, without end.
    async fn watch(&self) {
        let mut ticks = interval(PROBE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for (client, ready) in &self.servers {
                let answer = timeout(PROBE, client.get("/ready", &[])).await;
                let is = answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status == 200));
                ready.store(is, Ordering::Relaxed);
            }
        }
    }

    /// Writes, without end.
    async fn write(&self, followers: &Followers) {
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let ready: Vec<&Client> = self
                .servers
                .iter()
                .filter(|(_, ready)| ready.load(Ordering::Relaxed))
                .map(|(client, _)| client)
                .collect();
            let number = self.asked.fetch_add(1, Ordering::Relaxed);
            let written = match ready.get(turn % ready.len().max(1)) {
                Some(client) => followers.run.say(client, &format!("restart {number}")).await,
                None => false,
            };
            if !written {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn written(&self) -> (usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (read(&self.asked), read(&self.failed))
    }
}
