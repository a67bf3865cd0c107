//! The place of a scenario: a namespace of its own on a cluster on which the operator stands.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::subject::Subject;
use crate::cluster::Cluster;
use crate::kubernetes::Kubernetes;

/// Name of the platform in each namespace.
pub const PLATFORM: &str = "acme";
/// A namespace with a platform in it is gone after that.
const GONE_WITHIN: Duration = Duration::from_mins(3);
/// Pause between two looks at the cluster.
pub const PACE: Duration = Duration::from_millis(100);

/// A namespace, and what was measured in it.
pub struct Ground<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Its API server.
    pub kubernetes: &'a Kubernetes,
    /// The namespace.
    pub namespace: String,
    figures: Mutex<Vec<String>>,
}

impl<'a> Ground<'a> {
    /// Makes the namespace, anew if an interrupted run has left it.
    pub async fn open(cluster: &'a Cluster, kubernetes: &'a Kubernetes, namespace: &str) -> Result<Self> {
        let ground = Self {
            cluster,
            kubernetes,
            namespace: namespace.to_owned(),
            figures: Mutex::default(),
        };
        ground.remove().await?;
        let manifest = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}\n"
        );
        cluster.apply(&manifest).await?;
        Ok(ground)
    }

    /// Deletes the namespace with everything in it.
    pub async fn close(self) -> Result<()> {
        self.remove().await
    }

    async fn remove(&self) -> Result<()> {
        let timeout = format!("--timeout={}s", GONE_WITHIN.as_secs());
        self.cluster
            .kubectl(GONE_WITHIN + Duration::from_secs(10))
            .args([
                "delete",
                "namespace",
                &self.namespace,
                "--ignore-not-found",
                &timeout,
            ])
            .run()
            .await
    }

    /// Notes something that was measured.
    pub fn note(&self, figure: impl Into<String>) {
        self.figures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(figure.into());
    }

    /// What was measured.
    pub fn figures(&self) -> Vec<String> {
        self.figures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Path of the objects of a kind in the namespace; `group` is `v1`, `apps/v1` and the like.
    pub fn path(&self, group: &str, plural: &str) -> String {
        let root = if group == "v1" { "api" } else { "apis" };
        format!("/{root}/{group}/namespaces/{}/{plural}", self.namespace)
    }

    /// Path of one object.
    pub fn object(&self, group: &str, plural: &str, name: &str) -> String {
        format!("{}/{name}", self.path(group, plural))
    }

    /// Creates the platform.
    pub async fn platform(&self, spec: &Value) -> Result<Subject<'_>> {
        self.platform_named(PLATFORM, spec).await
    }

    /// Creates a platform of another name.
    pub async fn platform_named(&self, name: &str, spec: &Value) -> Result<Subject<'_>> {
        let object = json!({
            "apiVersion": "tanka.dev/v1alpha1",
            "kind": "TankaPlatform",
            "metadata": {"name": name},
            "spec": spec,
        });
        self.kubernetes
            .create(&self.path("tanka.dev/v1alpha1", "tankaplatforms"), &object)
            .await?;
        Ok(Subject::new(self, name))
    }

    /// Creates the platform and waits until it is ready.
    pub async fn ready_platform(&self, spec: &Value) -> Result<Subject<'_>> {
        let subject = self.platform(spec).await?;
        let took = subject.ready().await?;
        self.note(format!("ready after {:.1} s", took.as_secs_f64()));
        Ok(subject)
    }

    /// kubectl in the namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.namespace.as_str()];
        all.extend(arguments);
        self.cluster.get(&all).await
    }

    /// Applies a manifest in the namespace.
    pub async fn apply(&self, manifest: &str) -> Result<()> {
        self.cluster
            .kubectl(Duration::from_mins(1))
            .args(["-n", &self.namespace, "apply", "-f", "-"])
            .input(manifest)
            .run()
            .await
    }

    /// Runs a line of shell in a pod's container.
    pub async fn shell(&self, pod: &str, container: &str, line: &str) -> Result<String> {
        self.kubectl(&["exec", pod, "-c", container, "--", "bash", "-ec", line])
            .await
    }

    /// Asks PostgreSQL in a pod as its superuser.
    pub async fn sql(&self, pod: &str, statement: &str) -> Result<String> {
        let line = format!(
            "PGPASSWORD=$PATRONI_SUPERUSER_PASSWORD psql -XqAt -v ON_ERROR_STOP=1 -h 127.0.0.1 -U postgres tanka -c \"{statement}\""
        );
        Ok(self.shell(pod, "postgres", &line).await?.trim().to_owned())
    }
}

/// Waits until `check` says yes; answers with the time that took.
pub async fn until<F>(what: &str, deadline: Duration, check: impl FnMut() -> F) -> Result<Duration>
where
    F: Future<Output = Result<bool>>,
{
    let begun = Instant::now();
    until_since(begun, what, deadline, check).await
}

/// The same, with the time counted from an earlier moment. An error of `check` is a no, and is told in the end.
pub async fn until_since<F>(
    begun: Instant,
    what: &str,
    deadline: Duration,
    mut check: impl FnMut() -> F,
) -> Result<Duration>
where
    F: Future<Output = Result<bool>>,
{
    loop {
        let last = check().await;
        let took = begun.elapsed();
        if matches!(last, Ok(true)) {
            return Ok(took);
        }
        if took >= deadline {
            let complaint = format!("{what} did not happen within {} s", deadline.as_secs_f64());
            return Err(match last {
                Err(error) => error.context(complaint),
                Ok(_) => anyhow::anyhow!(complaint),
            });
        }
        sleep(PACE).await;
    }
}
