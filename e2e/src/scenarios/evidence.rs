//! What is kept of a failed scenario: objects, events, logs and status of its namespace, and what the operator said.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::ground::Ground;

/// Lines of each log.
const LINES: &str = "--tail=400";

/// Writes everything into `scenarios/NAME` of the state folder, in place of what an earlier failure left.
pub async fn keep(state: &Path, ground: &Ground<'_>) -> Result<PathBuf> {
    let folder = state.join("scenarios").join(&ground.namespace);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let questions: [(&str, &[&str]); 6] = [
        ("platforms.yaml", &["get", "tankaplatforms", "-o", "yaml"]),
        (
            "objects.txt",
            &[
                "get",
                "all,pvc,configmaps,ingresses,networkpolicies,pdb",
                "-o",
                "wide",
            ],
        ),
        ("pods.yaml", &["get", "pods", "-o", "yaml"]),
        ("events.txt", &["get", "events", "--sort-by=.lastTimestamp"]),
        (
            "workloads.yaml",
            &["get", "statefulsets,deployments,jobs", "-o", "yaml"],
        ),
        (
            "operator.log",
            &[
                "-n",
                "tanka-system",
                "logs",
                "-l",
                "app.kubernetes.io/name=tanka-operator",
                LINES,
            ],
        ),
    ];
    for (file, question) in questions {
        write(&folder, file, ground.kubectl(question).await)?;
    }
    let pods = ground
        .kubectl(&["get", "pods", "-o", "name"])
        .await
        .unwrap_or_default();
    for pod in pods.lines() {
        let log = ground
            .kubectl(&["logs", pod, "--all-containers", "--prefix", LINES])
            .await;
        write(&folder, &format!("{}.log", pod.trim_start_matches("pod/")), log)?;
    }
    Ok(folder)
}

/// What could not be asked is evidence too.
fn write(folder: &Path, file: &str, answer: Result<String>) -> Result<()> {
    let text = answer.unwrap_or_else(|error| format!("{error:#}\n"));
    fs::write(folder.join(file), text).with_context(|| format!("failed to write {file}"))
}
