//! A process that hangs: stopped by a signal, from outside its pod, and continued when the value is dropped. Works where the
//! cluster's processes are this machine's, which they are on a local cluster.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::ground::Ground;

/// Stopped processes.
#[derive(Debug)]
pub struct Frozen {
    processes: Vec<u32>,
}

impl Frozen {
    /// Stops the processes of a pod whose command line contains a word.
    pub async fn process(ground: &Ground<'_>, pod: &str, word: &str) -> Result<Self> {
        let pod_object = ground.kubernetes.get(&ground.object("v1", "pods", pod)).await?;
        let uid = pod_object["metadata"]["uid"]
            .as_str()
            .context("a pod without uid")?;
        let processes: Vec<u32> = of_pod(uid)
            .into_iter()
            .filter(|id| command_line(*id).contains(word))
            .collect();
        ensure!(
            !processes.is_empty(),
            "pod {pod} has no process with {word:?} in its command line on this machine"
        );
        send("-STOP", &processes)?;
        Ok(Self { processes })
    }

    /// Stops all processes of a pod.
    pub async fn pod(ground: &Ground<'_>, pod: &str) -> Result<Self> {
        Self::process(ground, pod, "").await
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // What has been killed meanwhile needs no signal.
        let _ = send("-CONT", &self.processes);
    }
}

fn send(signal: &str, processes: &[u32]) -> Result<()> {
    let output = Command::new("kill")
        .arg(signal)
        .args(processes.iter().map(u32::to_string))
        .output()
        .context("failed to start kill")?;
    ensure!(
        output.status.success(),
        "kill {signal}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Processes of a pod: their cgroup carries its uid.
fn of_pod(uid: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mark = format!("/pod{uid}/");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|id| {
            let groups = fs::read_to_string(format!("/proc/{id}/cgroup")).unwrap_or_default();
            groups.lines().any(|line| line.contains(&mark))
        })
        .collect()
}

fn command_line(id: u32) -> String {
    fs::read_to_string(format!("/proc/{id}/cmdline"))
        .unwrap_or_default()
        .replace('\0', " ")
}
