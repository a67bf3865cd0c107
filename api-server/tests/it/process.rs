//! The real program, as a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;

use serde_json::Value;
use tempfile::TempDir;

use crate::app::until_some;

/// A server.
pub struct Process {
    child: Mutex<Child>,
    /// Its log.
    pub log: PathBuf,
}

impl Process {
    /// Starts it with a configuration; its log is in the folder.
    pub fn serve(directory: &TempDir, config: &Path) -> Self {
        let pepper = directory.path().join("pepper");
        std::fs::write(&pepper, [42; 32]).unwrap();
        let log = directory.path().join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_tanka-api"))
            .arg("serve")
            .arg("--config")
            .arg(config)
            .arg("--pepper-file")
            .arg(pepper)
            .args(["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self {
            child: Mutex::new(child),
            log,
        }
    }

    /// Its log up to now, a JSON object for each line.
    pub fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        // The last line may be in the middle of being written.
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Where its API is, once it serves.
    pub async fn url(&self) -> String {
        let address = until_some("the process serves", async || {
            let line = self
                .lines()
                .into_iter()
                .find(|line| line["message"] == "serving")?;
            Some(line["address"].as_str().unwrap().to_owned())
        })
        .await;
        format!("http://{address}")
    }

    /// Bytes of one kind of its memory, by the kernel's name for it: `VmRSS` now, `VmHWM` at the most.
    pub fn memory(&self, kind: &str) -> u64 {
        let id = self.child.lock().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(kind)).unwrap();
        let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kibibytes * 1024
    }

    /// As `kill -9` does it.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to end as Kubernetes does.
    pub fn terminate(&self) {
        let id = self.child.lock().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Its exit status, if it has ended.
    pub fn ended(&self) -> Option<std::process::ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(child) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a command to its end.
pub async fn command(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tanka-api"));
    command.args(arguments).env("TANKA_CONFIG", config);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// What a command that succeeds prints.
pub async fn printed(config: &Path, arguments: &[&str]) -> String {
    let output = command(config, arguments).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, errors) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}{errors}");
    out
}
