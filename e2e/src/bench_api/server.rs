//! The API, as a process of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::client::Client;
use crate::dev::Folder;
use crate::services::ports;

const PATIENCE: Duration = Duration::from_mins(2);
/// Shorter than what is measured with it.
const POLL: Duration = Duration::from_millis(5);

/// A server; it ends with the value.
#[derive(Debug)]
pub struct Server {
    /// `HOST:PORT` of the API.
    pub address: String,
    /// From the start of the process until it was ready.
    pub started_in: Duration,
    child: Child,
}

impl Server {
    /// Starts one with the greatest limits of requests, and waits until it is ready.
    pub async fn start(folder: &Folder, binary: &Path) -> Result<Self> {
        let plenty = json!({"requestsPerMinute": 1_000_000, "burst": 100_000, "loginPerMinute": 10_000});
        let config = folder.config(&json!({"rateLimit": plenty, "logLevel": "error"}))?;
        let free = ports::free(2)?;
        let (address, ops) = (format!("127.0.0.1:{}", free[0]), format!("127.0.0.1:{}", free[1]));
        let begin = Instant::now();
        let child = Command::new(binary)
            .args(["serve", "--listen", &address, "--ops-listen", &ops, "--config"])
            .arg(config)
            .arg("--pepper-file")
            .arg(folder.pepper()?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start the API")?;
        let client = Client::new(&address);
        while !client
            .get("/ready", &[])
            .await
            .is_ok_and(|ready| ready.status == 200)
        {
            ensure!(begin.elapsed() < PATIENCE, "the API is not ready in time");
            sleep(POLL).await;
        }
        Ok(Self {
            address,
            started_in: begin.elapsed(),
            child,
        })
    }

    /// Resident bytes.
    pub fn resident(&self) -> Result<u64> {
        let id = self.child.id().context("the API has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_ascii_whitespace().next());
        Ok(kibibytes.context("no VmRSS")?.parse::<u64>()? * 1_024)
    }
}
