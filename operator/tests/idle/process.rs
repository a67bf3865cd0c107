//! The operator as it is shipped, seen from outside.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Ticks of the kernel's clock for processes in a second.
const TICKS: u64 = 100;
/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(10);

/// An operator that runs. It is killed when this is dropped.
pub struct Operator {
    process: Child,
    port: u16,
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Operator {
    /// Starts the program that `TANKA_OPERATOR` names.
    pub async fn start(kubeconfig: &Path) -> Self {
        let program = std::env::var("TANKA_OPERATOR")
            .expect("TANKA_OPERATOR names the program: run `make bench-operator`");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let process = Command::new(program)
            .env("KUBECONFIG", kubeconfig)
            .args([
                "--namespace",
                "default",
                "--log",
                "warn",
                "--listen",
                &format!("127.0.0.1:{port}"),
            ])
            .stdout(Stdio::inherit())
            .spawn()
            .unwrap();
        let operator = Self { process, port };
        wait("the operator to answer", async || {
            operator.metrics().await.is_some()
        })
        .await;
        operator
    }

    async fn metrics(&self) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let request = b"GET /metrics HTTP/1.1\r\nhost: operator\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    /// The sum of all samples whose names begin so.
    async fn sum(&self, name: &str) -> u64 {
        let text = self.metrics().await.unwrap_or_default();
        let samples = text.lines().filter(|line| line.starts_with(name));
        let values = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
        let sum = values.sum::<f64>() as u64;
        sum
    }

    /// Writes so far, by its own count.
    pub async fn writes(&self) -> u64 {
        self.sum("tanka_apiserver_writes_total").await
    }

    /// Waits until it leads.
    pub async fn leads(&self) {
        wait("the operator to lead", async || {
            self.sum("tanka_operator_leader").await == 1
        })
        .await;
    }

    /// Waits until it has looked at so many platforms.
    pub async fn has_looked(&self, platforms: usize) {
        wait("a look at every platform", async || {
            self.sum("tanka_reconcile_duration_seconds_count").await >= platforms as u64
        })
        .await;
    }

    fn status(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most resident memory that it ever had, in KiB.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Processor time so far.
    pub fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 1_000 / TICKS)
    }
}

/// Waits for a condition.
pub async fn wait(what: &str, condition: impl AsyncFn() -> bool) {
    let begun = std::time::Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
