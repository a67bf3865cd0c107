//! The programs that people install Tanka with, and the one that plays many users, built from their Go modules at pinned versions.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::paths::Paths;
use crate::process::Call;

/// The first build of helm on a small machine.
const BUILD_DEADLINE: Duration = Duration::from_mins(40);
/// Rendering, and installing with waiting.
const DEADLINE: Duration = Duration::from_mins(5);

/// helm, kustomize, Argo CD's judgement of health, and k6.
#[derive(Debug, Clone)]
pub struct Tools {
    folder: PathBuf,
    repo: PathBuf,
    home: PathBuf,
}

impl Tools {
    /// Builds them, or finds what was built.
    pub async fn build(paths: &Paths) -> Result<Self> {
        let output = Call::new(paths.repo.join("e2e/tools/build"), BUILD_DEADLINE)
            .env("TANKA_CACHE", &paths.cache)
            .output()
            .await?;
        let folder = output
            .lines()
            .last()
            .context("the build of the tools printed no path")?;
        Ok(Self {
            folder: folder.trim().into(),
            repo: paths.repo.clone(),
            home: paths.state.join("helm"),
        })
    }

    /// Root of the repository.
    pub fn repo(&self) -> &Path {
        &self.repo
    }

    /// A folder for what is made on the way.
    pub fn scratch(&self) -> &Path {
        &self.home
    }

    /// helm, which knows nothing of this machine's own repositories, plugins and clusters.
    pub fn helm(&self) -> Call {
        let call = self.call("helm");
        ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"]
            .into_iter()
            .fold(call, |call, variable| call.env(variable, &self.home))
            .env("KUBECONFIG", "/dev/null")
    }

    /// k6, which asks nobody for extensions.
    pub fn k6(&self, deadline: Duration) -> Call {
        let mut call = Call::new(self.folder.join("k6"), deadline).dir(&self.repo);
        // What a person has set for k6 elsewhere, such as where results go, is not meant for this.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("K6_") {
                call = call.env_remove(&name);
            }
        }
        call.env("K6_AUTO_EXTENSION_RESOLUTION", "false")
            .env("K6_NO_USAGE_REPORT", "true")
            .env("XDG_CONFIG_HOME", &self.home)
    }

    /// What a folder with a kustomization says.
    pub async fn kustomize(&self, folder: &str) -> Result<String> {
        self.call("kustomize").args(["build", folder]).output().await
    }

    /// What Argo CD makes of an object's status by a health check in Lua.
    pub async fn argo_health(&self, script: &Path, object: &serde_json::Value) -> Result<serde_json::Value> {
        let answer = self
            .call("argo-health")
            .arg(script)
            .input(object.to_string())
            .output()
            .await?;
        Ok(serde_json::from_str(&answer)?)
    }

    fn call(&self, program: &str) -> Call {
        Call::new(self.folder.join(program), DEADLINE).dir(&self.repo)
    }
}
