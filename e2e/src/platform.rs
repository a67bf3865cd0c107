//! A platform on a cluster, looked at as a person would.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cluster::Cluster;

/// A platform by namespace and name.
#[derive(Debug, Clone)]
pub struct Platform<'a> {
    /// Where it is.
    pub cluster: &'a Cluster,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl<'a> Platform<'a> {
    /// A platform that has the name of its namespace.
    pub fn new(cluster: &'a Cluster, name: &str) -> Self {
        Self {
            cluster,
            namespace: name.to_owned(),
            name: name.to_owned(),
        }
    }

    /// kubectl in its namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.namespace.as_str()];
        all.extend(arguments);
        self.cluster.get(&all).await
    }

    /// The object as it is stored.
    pub async fn read(&self) -> Result<Value> {
        let text = self
            .kubectl(&["get", "tankaplatform", &self.name, "-o", "json"])
            .await?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// One of its conditions.
    pub async fn condition(&self, kind: &str) -> Result<Option<Value>> {
        let object = self.read().await?;
        let conditions = object["status"]["conditions"].as_array();
        Ok(conditions.and_then(|all| all.iter().find(|condition| condition["type"] == kind).cloned()))
    }

    /// Waits until it says `Ready=True` with nothing missing; answers with the time that took.
    pub async fn ready(&self, deadline: Duration) -> Result<Duration> {
        let what = format!("{} to be ready", self.name);
        let outcome = Cluster::wait(&what, deadline, || async {
            let ready = self.condition("Ready").await?.unwrap_or_default();
            Ok(ready["status"] == "True" && ready["reason"] == "AllReady")
        });
        match outcome.await {
            Ok(time) => Ok(time),
            Err(error) => {
                let status = self
                    .kubectl(&["get", "tankaplatform,pods", "-o", "wide"])
                    .await
                    .unwrap_or_default();
                let ready = self.condition("Ready").await.ok().flatten().unwrap_or_default();
                Err(error.context(format!("{status}\nReady says: {}", ready["message"])))
            }
        }
    }

    /// Name of the pod that takes writes, as the status tells it.
    pub async fn primary(&self) -> Result<String> {
        let object = self.read().await?;
        let name = object["status"]["postgres"]["primary"]
            .as_str()
            .context("status names no primary")?;
        Ok(name.to_owned())
    }
}
