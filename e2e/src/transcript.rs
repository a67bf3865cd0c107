//! What a person would type, typed for real: each line is shown, run by a shell, and followed by what it printed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::process::Call;

/// Longer than any line of a transcript takes.
const DEADLINE: Duration = Duration::from_mins(5);

/// A session at a terminal, with variables.
#[derive(Debug)]
pub struct Transcript {
    variables: BTreeMap<String, String>,
}

impl Transcript {
    /// A session in which `kubectl` talks to the cluster.
    pub async fn start(cluster: &Cluster, state: &Path) -> Result<Self> {
        let path = std::env::var("PATH").unwrap_or_default();
        let variables = [
            (
                "KUBECONFIG".to_owned(),
                cluster.kubeconfig().await?.display().to_string(),
            ),
            (
                "PATH".to_owned(),
                format!("{}:{path}", state.join("bin").display()),
            ),
        ];
        Ok(Self {
            variables: variables.into(),
        })
    }

    /// Sets a variable, so that lines can use it without showing it.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    /// Says something to the reader.
    pub fn say(&self, text: &str) {
        println!("\n# {text}");
    }

    /// Shows and runs a line; answers with what it printed.
    pub async fn run(&self, line: &str) -> Result<String> {
        println!("$ {line}");
        let mut call = Call::new("sh", DEADLINE).args(["-c", line]);
        for (name, value) in &self.variables {
            call = call.env(name, value);
        }
        let output = call
            .output()
            .await
            .with_context(|| format!("this line failed: {line}"))?;
        for text in output.trim_end().lines() {
            println!("{text}");
        }
        Ok(output)
    }
}
