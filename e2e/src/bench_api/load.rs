//! Load by `wrk`: one thread, a fixed number of connections, a fixed time; each connection sends its next request when it has the answer
//! of the one before, or after a pause.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::paths::Paths;
use crate::process::Call;

/// Longer than any answer may take.
const ANSWER: &str = "30s";
/// Before anything is timed.
const WARM: u64 = 1;

/// A request that is sent again and again.
#[derive(Debug, Clone)]
pub struct Load {
    script: PathBuf,
    path: &'static str,
    tokens: String,
    bodies: Vec<Value>,
    connections: usize,
    pause: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Deserialize)]
pub struct Found {
    requests: u64,
    micros: u64,
    /// Of a hundred answers, 99 came within so many microseconds.
    p99: u64,
    /// Answers that were refusals.
    pub refused: u64,
    broken: u64,
    /// Refusals by status, of requests with bodies.
    statuses: BTreeMap<String, u64>,
}

impl Found {
    /// Answers a second that were none of a refusal.
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
    pub fn rate(&self) -> f64 {
        self.requests.saturating_sub(self.refused) as f64 / (self.micros as f64 / 1e6)
    }

    /// Milliseconds of the 99th percentile.
    #[expect(clippy::cast_precision_loss, reason = "an hour has 2^32 microseconds")]
    pub fn p99_ms(&self) -> f64 {
        self.p99 as f64 / 1e3
    }
}

impl Load {
    /// Reads of a path.
    pub fn get(paths: &Paths, path: &'static str) -> Self {
        Self {
            script: paths.repo.join("e2e/load/request.lua"),
            path,
            tokens: String::new(),
            bodies: Vec::new(),
            connections: 1,
            pause: Duration::ZERO,
        }
    }

    /// The same with bodies, in turns, as nobody yet.
    pub fn post(paths: &Paths, path: &'static str, bodies: Vec<Value>) -> Self {
        Self {
            bodies,
            ..Self::get(paths, path)
        }
    }

    /// The same as people, in turns.
    pub fn of(&self, tokens: &[String]) -> Self {
        Self {
            tokens: tokens.join(","),
            ..self.clone()
        }
    }

    /// Over so many connections.
    pub fn over(&self, connections: usize) -> Self {
        Self {
            connections,
            ..self.clone()
        }
    }

    /// With pauses, so that all connections together send about so many requests a second, as long as answers are quick.
    pub fn at(&self, rate: f64) -> Self {
        let connections = f64::from(u32::try_from(self.connections).unwrap_or(u32::MAX));
        Self {
            pause: Duration::from_secs_f64(connections / rate.max(0.01)),
            ..self.clone()
        }
    }

    /// Sends it to a server for some seconds, after a moment that does not count.
    pub async fn run(&self, address: &str, seconds: u64) -> Result<Found> {
        self.send(address, WARM).await?;
        let found = self.send(address, seconds).await?;
        ensure!(
            found.broken == 0,
            "{} requests broke off or had no answer",
            found.broken
        );
        Ok(found)
    }

    /// Fails where one was refused.
    pub async fn run_all(&self, address: &str, seconds: u64) -> Result<Found> {
        let found = self.run(address, seconds).await?;
        ensure!(
            found.refused == 0,
            "{} of {} to {address} were refused: {:?}",
            found.refused,
            found.requests,
            found.statuses
        );
        Ok(found)
    }

    async fn send(&self, address: &str, seconds: u64) -> Result<Found> {
        let deadline = Duration::from_secs(seconds + 60);
        let bodies: Vec<String> = self.bodies.iter().map(Value::to_string).collect();
        let text = Call::new("wrk", deadline)
            .args(["--threads", "1", "--timeout", ANSWER, "--connections"])
            .arg(self.connections.to_string())
            .arg("--duration")
            .arg(format!("{seconds}s"))
            .arg("--script")
            .arg(&self.script)
            .arg(format!("http://{address}{}", self.path))
            .env("LOAD_METHOD", if self.bodies.is_empty() { "GET" } else { "POST" })
            .env("LOAD_BODIES", bodies.join("\n"))
            .env("LOAD_TOKENS", &self.tokens)
            .env("LOAD_PAUSE_MS", self.pause.as_millis().to_string())
            .output()
            .await?;
        let line = text.lines().rev().find(|line| line.starts_with('{'));
        let found: Found = serde_json::from_str(line.context("wrk printed no result")?)?;
        ensure!(found.requests > 0, "no request was answered");
        Ok(found)
    }
}
