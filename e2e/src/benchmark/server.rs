//! Servers of processes of their own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::exposition::Exposition;
use crate::client::Client;
use crate::dev::Folder;
use crate::services::ports;

const PATIENCE: Duration = Duration::from_mins(2);
const SCRAPE: Duration = Duration::from_secs(2);
/// Between two looks at whether a server is ready: shorter than what is measured with it.
const POLL: Duration = Duration::from_millis(5);

/// A server.
#[derive(Debug)]
pub struct Server {
    /// `HOST:PORT` of the API.
    pub address: String,
    /// From the start of the process until it was ready.
    pub started_in: Duration,
    ops: String,
    binary: PathBuf,
    arguments: Vec<OsString>,
    child: Child,
}

impl Server {
    /// Starts one with the greatest limits of requests, and waits until it is ready.
    pub async fn start(folder: &Folder, binary: &Path) -> Result<Self> {
        let plenty = json!({"requestsPerMinute": 1_000_000, "burst": 100_000, "loginPerMinute": 10_000, "signupPerMinute": 10_000});
        Self::start_with(folder, binary, json!({"rateLimit": plenty})).await
    }

    /// Starts one with these sections of its configuration, and waits until it is ready.
    pub async fn start_with(folder: &Folder, binary: &Path, mut sections: Value) -> Result<Self> {
        sections["logLevel"] = json!("error");
        let config = folder.config(&sections)?;
        let free = ports::free(2)?;
        let (address, ops) = (format!("127.0.0.1:{}", free[0]), format!("127.0.0.1:{}", free[1]));
        let mut arguments: Vec<OsString> = ["serve", "--listen", &address, "--ops-listen", &ops]
            .map(OsString::from)
            .into();
        arguments.extend(["--config".into(), config.into()]);
        arguments.extend(["--pepper-file".into(), folder.pepper()?.into()]);
        let mut server = Self {
            child: spawn(binary, &arguments)?,
            started_in: Duration::ZERO,
            binary: binary.to_owned(),
            arguments,
            address,
            ops,
        };
        server.ready().await?;
        Ok(server)
    }

    /// Starts it again where it was, after its end.
    pub async fn again(&mut self) -> Result<()> {
        self.child = spawn(&self.binary, &self.arguments)?;
        self.ready().await
    }

    async fn ready(&mut self) -> Result<()> {
        let client = Client::new(&self.address);
        let started = Instant::now();
        while !client
            .get("/ready", &[])
            .await
            .is_ok_and(|ready| ready.status == 200)
        {
            ensure!(started.elapsed() < PATIENCE, "the API is not ready in time");
            sleep(POLL).await;
        }
        self.started_in = started.elapsed();
        Ok(())
    }

    /// Resident bytes.
    pub fn resident(&self) -> Result<u64> {
        resident(self.child.id().context("the API has ended")?)
    }

    /// Seconds of processor time so far.
    pub fn processor(&self) -> Result<f64> {
        processor(self.child.id().context("the API has ended")?)
    }

    /// As `kill -9` does.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("failed to kill the API")
    }

    /// As Kubernetes ends a container; answers when it has ended, and fails if it did not end well.
    pub async fn terminate(&mut self) -> Result<()> {
        let id = self.child.id().context("the API has ended")?;
        let told = Command::new("kill").args(["-TERM", &id.to_string()]).status();
        ensure!(told.await?.success(), "the API could not be told to end");
        let ended = timeout(PATIENCE, self.child.wait()).await??;
        ensure!(ended.success(), "the API ended with {ended}");
        Ok(())
    }

    /// What it says of itself.
    pub async fn exposition(&self) -> Result<Exposition> {
        let text = timeout(SCRAPE, scrape(&self.ops)).await;
        Ok(Exposition::parse(&text.context("the metrics do not come")??))
    }

    /// The port of the API.
    pub fn port(&self) -> Result<u16> {
        let (_, port) = self.address.rsplit_once(':').context("no port")?;
        Ok(port.parse()?)
    }
}

fn spawn(binary: &Path, arguments: &[OsString]) -> Result<Child> {
    Command::new(binary)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("failed to start the API")
}

/// Resident bytes of a process.
pub fn resident(id: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_ascii_whitespace().next());
    Ok(kibibytes.context("no VmRSS")?.parse::<u64>()? * 1_024)
}

/// Seconds of processor time of a process; the kernel counts hundredths.
pub fn processor(id: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no stat")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u32>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("no times")?;
    Ok(f64::from(user + system) / 100.0)
}

async fn scrape(ops: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(ops).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {ops}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
