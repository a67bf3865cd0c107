//! What the server says of itself while it is loaded: how much of what was asked the cache knew, how long statements took, how many
//! connections were in use, how far the replicas were behind, and its memory.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::catalogue::{Does, Scenario};
use crate::benchmark::exposition::Exposition;
use crate::benchmark::report::Report;
use crate::benchmark::server::Server;
use crate::services::postgres::Cluster;

const POLL: Duration = Duration::from_secs(1);
const STATEMENTS: &str = "tanka_database_statement_duration_seconds";
const VALIDATION: &str = "tanka_access_tokens_validation_seconds";
const LOOKUPS: &str = "tanka_cache_lookups_total";
const POOL: &str = "tanka_database_pool_connections";
/// Seconds until the later replica has replayed what was written; a replica that does not stream is infinitely late.
const REPLAY: &str =
    "SELECT CASE WHEN count(*) < 2 THEN 'inf' ELSE coalesce(max(extract(epoch FROM replay_lag)), 0)::text END
                        FROM pg_stat_replication WHERE state = 'streaming'";

/// What was seen.
#[derive(Debug)]
pub struct Behind {
    before: Exposition,
    after: Exposition,
    /// Connections in use in the mean, and how many there may be.
    used: (f64, f64),
    /// Seconds, at the most.
    lag: f64,
    /// Resident bytes before and after.
    resident: (u64, u64),
    /// Seconds of the processor.
    processor: f64,
}

/// What was seen on the way.
#[derive(Debug, Default)]
struct Looks {
    times: f64,
    used: f64,
    most: f64,
    lag: f64,
}

impl Looks {
    /// Looks again and again; a look that fails is left out.
    async fn go_on(&mut self, server: &Server, postgres: &Cluster) {
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if let Ok(said) = server.exposition().await {
                self.used += said.sum(POOL, &["state=\"used\""]);
                self.most = self.most.max(said.sum(POOL, &["state=\"max\""]));
                self.times += 1.0;
            }
            if let Ok(text) = postgres.query(0, REPLAY).await {
                self.lag = self.lag.max(text.parse().unwrap_or(f64::INFINITY));
            }
        }
    }
}

impl Behind {
    /// Watches until `work` ends; answers what it answers, too.
    pub async fn watch<T>(
        server: &Server,
        postgres: &Cluster,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(T, Self)> {
        let before = server.exposition().await?;
        let (resident, processor) = (server.resident()?, server.processor()?);
        let mut seen = Looks::default();
        let done = tokio::select! {
            done = work => done?,
            () = seen.go_on(server, postgres) => bail!("nobody looks any more"),
        };
        let behind = Self {
            before,
            after: server.exposition().await?,
            used: (seen.used / f64::max(seen.times, 1.0), seen.most),
            lag: seen.lag,
            resident: (resident, server.resident()?),
            processor: server.processor()? - processor,
        };
        Ok((done, behind))
    }

    /// The share of what was asked that the cache knew, in hundredths; none if nothing was asked.
    fn hit_rate(&self) -> Option<f64> {
        let since = |labels: &[&str]| self.after.sum(LOOKUPS, labels) - self.before.sum(LOOKUPS, labels);
        let (all, missed) = (since(&[]), since(&["outcome=\"miss\""]));
        (all > 0.0).then(|| (all - missed) / all * 100.0)
    }

    /// As rows of the report.
    pub fn report(&self, report: &mut Report, name: &str, scenario: &Scenario) {
        if let Some(rate) = self.hit_rate() {
            // Accounts come for the first time: nothing is known of them.
            let judged = (scenario.does != Does::Accounts).then_some(rate > 90.0);
            report.row(
                &format!("{name}: cache"),
                &format!("{rate:.1} % hits"),
                "over 90 %",
                judged,
            );
        }
        let quantile = |metric: &str, share: f64| self.after.quantile_since(&self.before, metric, share);
        if let Some(p95) = quantile(STATEMENTS, 0.95) {
            let found = format!("95 of 100 within {} ms", p95 * 1e3);
            report.row(
                &format!("{name}: statements"),
                &found,
                "10 ms",
                Some(p95 <= 0.010),
            );
        }
        if let Some(p95) = quantile(VALIDATION, 0.95) {
            let found = format!("95 of 100 within {} ms", p95 * 1e3);
            report.row(
                &format!("{name}: validation of tokens"),
                &found,
                "5 ms",
                Some(p95 <= 0.005),
            );
        }
        let (used, most) = self.used;
        let found = format!("{used:.1} of {most} in the mean");
        report.row(
            &format!("{name}: connections in use"),
            &found,
            "under 80 %",
            Some(used < most * 0.8),
        );
        let found = format!("{:.0} ms at the most", self.lag * 1e3);
        report.row(
            &format!("{name}: replicas behind"),
            &found,
            "100 ms",
            Some(self.lag < 0.1),
        );
        report.row(&format!("{name}: resident"), &self.memory(), "", None);
    }

    fn memory(&self) -> String {
        let mebibytes = |bytes: u64| bytes >> 20;
        let (before, after) = self.resident;
        format!(
            "{} MiB before, {} MiB after; {:.1} s of a core",
            mebibytes(before),
            mebibytes(after),
            self.processor
        )
    }

    /// For the raw output.
    pub fn raw(&self) -> Value {
        json!({
            "hit_rate": self.hit_rate(), "used": self.used.0, "lag_seconds": self.lag, "resident_before": self.resident.0,
            "resident_after": self.resident.1, "processor_seconds": self.processor,
        })
    }
}
