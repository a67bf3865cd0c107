//! The cluster that tests and the demo run on, through the launcher in `e2e/cluster`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::process::{Child, Command};

use crate::paths::Paths;
use crate::process::Call;

/// The first build of Kubernetes on a small machine.
const BUILD_DEADLINE: Duration = Duration::from_hours(1);
/// Starting, stopping and loading images.
const DEADLINE: Duration = Duration::from_mins(10);

/// A cluster by name. It need not run.
#[derive(Debug, Clone)]
pub struct Cluster {
    launcher: PathBuf,
    name: String,
    state: PathBuf,
    repo: PathBuf,
    cache: PathBuf,
}

/// How a service inside the cluster is reached from here, for as long as this value lives at least.
#[derive(Debug)]
pub struct Endpoint {
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// Where the cluster has no door of its own, a forwarder that ends with us.
    _forwarder: Option<Child>,
}

/// Times of the last start.
#[derive(Debug, Clone, Deserialize)]
pub struct Boot {
    /// Seconds from nothing to all nodes ready and DNS answering.
    pub total_seconds: f64,
}

impl Cluster {
    /// Builds the launcher and everything that it runs; quick when nothing changed.
    pub async fn build(paths: &Paths, name: &str) -> Result<Self> {
        let script = paths.repo.join("e2e/cluster/build");
        let output = Call::new(script, BUILD_DEADLINE)
            .env("TANKA_CACHE", &paths.cache)
            .output()
            .await?;
        let launcher = output
            .lines()
            .last()
            .context("the build of the cluster printed no path")?
            .trim();
        Ok(Self {
            launcher: launcher.into(),
            name: name.to_owned(),
            state: paths.state.clone(),
            repo: paths.repo.clone(),
            cache: paths.cache.clone(),
        })
    }

    fn call(&self, deadline: Duration) -> Call {
        Call::new(&self.launcher, deadline)
            .env("CLUSTER_NAME", &self.name)
            .env("TANKA_STATE", &self.state)
            .env("TANKA_CACHE", &self.cache)
            .dir(&self.repo)
    }

    /// Starts it, or what is missing of it.
    pub async fn up(&self, options: &[&str]) -> Result<()> {
        self.call(DEADLINE).arg("up").args(options).run().await
    }

    /// Starts it with a number of nodes.
    pub async fn up_with_nodes(&self, nodes: u8) -> Result<()> {
        self.call(DEADLINE)
            .env("NODES", nodes.to_string())
            .arg("up")
            .run()
            .await
    }

    /// Lets the launcher show on the running cluster that everything works.
    pub async fn selftest(&self, options: &[&str]) -> Result<()> {
        self.call(Duration::from_mins(20))
            .arg("selftest")
            .args(options)
            .run()
            .await
    }

    /// Removes every trace of it.
    pub async fn down(&self) -> Result<()> {
        self.call(DEADLINE).arg("down").run().await
    }

    /// Whether it runs.
    pub async fn runs(&self) -> bool {
        self.call(DEADLINE).arg("status").succeeds().await
    }

    /// Takes down what the machine is like, for [`Self::check_clean`].
    pub async fn snapshot(&self, file: &Path) -> Result<()> {
        self.call(DEADLINE).arg("snapshot").arg(file).run().await
    }

    /// Fails if the machine is not as it was.
    pub async fn check_clean(&self, before: &Path) -> Result<()> {
        self.call(DEADLINE)
            .args(["check-clean", "--against"])
            .arg(before)
            .run()
            .await
    }

    /// Puts images into every node that lacks them.
    pub async fn load_images(&self, archives: impl IntoIterator<Item = &Path>) -> Result<()> {
        self.call(DEADLINE).arg("load-images").args(archives).run().await
    }

    /// Path of the kubeconfig.
    pub async fn kubeconfig(&self) -> Result<PathBuf> {
        Ok(self
            .call(DEADLINE)
            .arg("kubeconfig")
            .output()
            .await?
            .trim()
            .into())
    }

    /// Opens the way to its API server that [`crate::kubernetes::Kubernetes`] uses: a proxy that ends with the value.
    pub fn proxy(&self) -> Result<Child> {
        Command::new(&self.launcher)
            .env("CLUSTER_NAME", &self.name)
            .env("TANKA_STATE", &self.state)
            .env("TANKA_CACHE", &self.cache)
            .args(["kubectl", "proxy", "--port=0"])
            .current_dir(&self.repo)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start kubectl proxy")
    }

    /// Where the launcher keeps what belongs to the cluster.
    pub fn folder(&self) -> PathBuf {
        self.state.join("clusters").join(&self.name)
    }

    /// A power failure of a node, by its number from 1.
    pub async fn kill_node(&self, node: u8) -> Result<()> {
        self.call(DEADLINE)
            .arg("kill-node")
            .arg(node.to_string())
            .run()
            .await
    }

    /// The node's return, with its disk.
    pub async fn start_node(&self, node: u8) -> Result<()> {
        self.call(DEADLINE)
            .arg("start-node")
            .arg(node.to_string())
            .run()
            .await
    }

    /// Times of the last start, where the launcher measured them.
    pub fn boot(&self) -> Result<Boot> {
        let file = self.folder().join("boot.json");
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// kubectl on this cluster.
    pub fn kubectl(&self, deadline: Duration) -> Call {
        self.call(deadline).arg("kubectl")
    }

    /// Runs kubectl with arguments and returns its output.
    pub async fn get(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl(Duration::from_mins(2))
            .args(arguments)
            .output()
            .await
    }

    /// Applies manifests.
    pub async fn apply(&self, manifests: &str) -> Result<String> {
        self.kubectl(Duration::from_mins(2))
            .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
            .input(manifests)
            .output()
            .await
    }

    /// Opens a way to a service. On a local cluster it stays open until the cluster ends.
    pub async fn expose(&self, namespace: &str, service: &str, port: u16) -> Result<Endpoint> {
        let ip = self
            .get(&[
                "-n",
                namespace,
                "get",
                "service",
                service,
                "-o",
                "jsonpath={.spec.clusterIP}",
            ])
            .await?;
        let target = format!("{}:{port}", ip.trim());
        let door = format!("{namespace}-{service}");
        match self
            .call(DEADLINE)
            .args(["expose", &door, &target])
            .output()
            .await
        {
            Ok(address) => Ok(Endpoint {
                address: address.trim().to_owned(),
                _forwarder: None,
            }),
            Err(error) if error.to_string().contains("works only on a local cluster") => {
                self.forward(namespace, service, port)
            }
            Err(error) => Err(error),
        }
    }

    fn forward(&self, namespace: &str, service: &str, port: u16) -> Result<Endpoint> {
        let local = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(&self.launcher)
            .env("CLUSTER_NAME", &self.name)
            .env("TANKA_STATE", &self.state)
            .env("TANKA_CACHE", &self.cache)
            .args([
                "kubectl",
                "-n",
                namespace,
                "port-forward",
                &format!("service/{service}"),
                &format!("{local}:{port}"),
            ])
            .current_dir(&self.repo)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start kubectl port-forward")?;
        Ok(Endpoint {
            address: format!("127.0.0.1:{local}"),
            _forwarder: Some(child),
        })
    }

    /// Waits until `check` says yes, asking every quarter of a second.
    pub async fn wait<F>(what: &str, deadline: Duration, mut check: impl FnMut() -> F) -> Result<Duration>
    where
        F: Future<Output = Result<bool>>,
    {
        let begun = tokio::time::Instant::now();
        let mut last = None;
        while begun.elapsed() < deadline {
            match check().await {
                Ok(true) => return Ok(begun.elapsed()),
                Ok(false) => {}
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        match last {
            Some(error) => {
                Err(error.context(format!("{what} did not happen within {} s", deadline.as_secs())))
            }
            None => bail!("{what} did not happen within {} s", deadline.as_secs()),
        }
    }
}
