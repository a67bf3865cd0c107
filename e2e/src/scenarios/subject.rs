//! The platform that a scenario looks at, as the Kubernetes API shows it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::ground::{Ground, PACE, until, until_since};

/// How soon a condition must name a cause, and how soon it must be gone once the cause is.
pub const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// Ready for this long is ready to stay.
const STEADY: Duration = Duration::from_secs(3);
/// How long a small platform may take to be ready.
const READY_WITHIN: Duration = Duration::from_mins(4);

/// A platform under test.
pub struct Subject<'a> {
    /// Where it is.
    pub ground: &'a Ground<'a>,
    /// Its name.
    pub name: String,
}

/// What a condition has to say about something that is wrong.
#[derive(Debug, Clone)]
pub struct Complaint<'w> {
    /// The part that is affected.
    pub condition: &'w str,
    /// Its reason; where several are true, separated by `|`.
    pub reason: &'w str,
    /// What the message has to name: the object and the cause.
    pub words: Vec<&'w str>,
}

impl<'w> Complaint<'w> {
    /// Puts the three together.
    pub fn new(condition: &'w str, reason: &'w str, words: &[&'w str]) -> Self {
        Self {
            condition,
            reason,
            words: words.to_vec(),
        }
    }

    fn gives_reason(&self, condition: &Value) -> bool {
        self.reason.split('|').any(|reason| condition["reason"] == reason)
    }

    fn is_made_by(&self, condition: &Value) -> bool {
        let message = condition["message"].as_str().unwrap_or_default();
        condition["status"] == "False"
            && self.gives_reason(condition)
            && self.words.iter().all(|word| message.contains(word))
    }
}

impl<'a> Subject<'a> {
    /// A platform that exists.
    pub fn new(ground: &'a Ground<'a>, name: &str) -> Self {
        Self {
            ground,
            name: name.to_owned(),
        }
    }

    fn path(&self) -> String {
        self.ground
            .object("tanka.dev/v1alpha1", "tankaplatforms", &self.name)
    }

    /// The object as it is stored.
    pub async fn read(&self) -> Result<Value> {
        self.ground.kubernetes.get(&self.path()).await
    }

    /// What it says about itself.
    pub async fn status(&self) -> Result<Value> {
        Ok(self.read().await?["status"].take())
    }

    /// Changes the spec by a JSON merge patch.
    pub async fn change(&self, spec: Value) -> Result<()> {
        self.ground
            .kubernetes
            .merge(&self.path(), &json!({"spec": spec}))
            .await
            .map(drop)
    }

    /// Deletes it, and waits until it is gone.
    pub async fn delete(&self) -> Result<()> {
        self.ground.kubernetes.delete(&self.path()).await?;
        until("the platform to be gone", TOLD_WITHIN, || async {
            Ok(self.ground.kubernetes.find(&self.path()).await?.is_none())
        })
        .await
        .map(drop)
    }

    /// One of its conditions; null when it is absent.
    pub async fn condition(&self, kind: &str) -> Result<Value> {
        Ok(condition(&self.status().await?, kind).clone())
    }

    /// Waits until it says that everything is as it should be, about the spec as it is now.
    pub async fn ready(&self) -> Result<Duration> {
        let begun = Instant::now();
        self.ready_since(begun, READY_WITHIN).await
    }

    /// The same with a moment to count from, and a deadline.
    pub async fn ready_since(&self, begun: Instant, deadline: Duration) -> Result<Duration> {
        let outcome = until_since(begun, "Ready with nothing missing", deadline, || async {
            let platform = self.read().await?;
            let status = &platform["status"];
            let ready = condition(status, "Ready");
            Ok(status["observedGeneration"] == platform["metadata"]["generation"]
                && ready["status"] == "True"
                && ready["reason"] == "AllReady")
        });
        match outcome.await {
            Ok(took) => Ok(took),
            Err(error) => Err(error.context(self.summary().await)),
        }
    }

    /// Waits until it is ready and stays so for a while: API pods find their way back one after the other.
    pub async fn settles(&self) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            let took = self.ready_since(begun, READY_WITHIN).await?;
            let steady = Instant::now();
            while steady.elapsed() < STEADY
                && condition(&self.status().await?, "Ready")["reason"] == "AllReady"
            {
                tokio::time::sleep(PACE).await;
            }
            if steady.elapsed() >= STEADY {
                return Ok(took);
            }
        }
    }

    /// Waits until a complaint is made, by the part's condition and by `Ready`; the time counts from `since`.
    pub async fn complains(
        &self,
        since: Instant,
        complaint: &Complaint<'_>,
        within: Duration,
    ) -> Result<Duration> {
        let what = format!(
            "{}={} with {:?}",
            complaint.condition, complaint.reason, complaint.words
        );
        let outcome = until_since(since, &what, within, || async {
            let status = self.status().await?;
            Ok(complaint.is_made_by(condition(&status, complaint.condition))
                && complaint.gives_reason(condition(&status, "Ready")))
        });
        match outcome.await {
            Ok(took) => Ok(took),
            Err(error) => Err(error.context(self.summary().await)),
        }
    }

    /// Waits until a complaint is no longer made; the time counts from `since`.
    pub async fn falls_silent(
        &self,
        since: Instant,
        complaint: &Complaint<'_>,
        within: Duration,
    ) -> Result<Duration> {
        let what = format!("an end of {}={}", complaint.condition, complaint.reason);
        let outcome = until_since(since, &what, within, || async {
            let status = self.status().await?;
            Ok(!conditions(&status).any(|c| c["status"] == "False" && complaint.gives_reason(c)))
        });
        match outcome.await {
            Ok(took) => Ok(took),
            Err(error) => Err(error.context(self.summary().await)),
        }
    }

    /// All conditions in short, for a failure.
    pub async fn summary(&self) -> String {
        let Ok(status) = self.status().await else {
            return "the platform cannot be read".to_owned();
        };
        let line = |condition: &Value| {
            let text = |field: &str| condition[field].as_str().unwrap_or_default();
            format!(
                "{}={} {}: {}",
                text("type"),
                text("status"),
                text("reason"),
                text("message")
            )
        };
        conditions(&status)
            .map(line)
            .collect::<Vec<_>>()
            .join("\n        ")
    }

    /// Name of the pod that takes writes, as the status tells it.
    pub async fn primary(&self) -> Result<String> {
        let status = self.status().await?;
        let name = status["postgres"]["primary"]
            .as_str()
            .context("status names no primary")?;
        Ok(name.to_owned())
    }

    /// Names of the other instances, in order.
    pub async fn replicas(&self) -> Result<Vec<String>> {
        let primary = self.primary().await?;
        let mut names = self.pod_names("postgres").await?;
        names.retain(|name| *name != primary);
        Ok(names)
    }

    /// Pods of a component that are not on their way out, by name.
    pub async fn pods(&self, component: &str) -> Result<Vec<Value>> {
        let path = format!(
            "{}?labelSelector=tanka.dev/platform={},app.kubernetes.io/component={component}",
            self.ground.path("v1", "pods"),
            self.name
        );
        let mut list = self.ground.kubernetes.get(&path).await?;
        let items = list["items"]
            .as_array_mut()
            .map(std::mem::take)
            .unwrap_or_default();
        let mut pods: Vec<_> = items
            .into_iter()
            .filter(|pod| pod["metadata"].get("deletionTimestamp").is_none())
            .collect();
        pods.sort_by_key(name);
        Ok(pods)
    }

    /// Their names.
    pub async fn pod_names(&self, component: &str) -> Result<Vec<String>> {
        Ok(self.pods(component).await?.iter().map(name).collect())
    }

    /// Identity and number of restarts of every pod: the same as before means that nothing was restarted.
    pub async fn incarnations(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for component in ["postgres", "redis", "api"] {
            for pod in self.pods(component).await? {
                let containers = pod["status"]["containerStatuses"].as_array();
                let restarts: i64 = containers
                    .into_iter()
                    .flatten()
                    .filter_map(|container| container["restartCount"].as_i64())
                    .sum();
                let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
                all.push(format!("{} {uid} {restarts}", name(&pod)));
            }
        }
        Ok(all)
    }

    /// Fails if a pod was restarted or replaced since.
    pub async fn unchanged_since(&self, before: &[String]) -> Result<()> {
        let after = self.incarnations().await?;
        ensure!(before == after, "pods were touched: {before:?} became {after:?}");
        Ok(())
    }

    /// Waits for something about its status.
    pub async fn status_says(
        &self,
        what: &str,
        within: Duration,
        check: impl Fn(&Value) -> bool,
    ) -> Result<Duration> {
        let outcome = until(what, within, || async { Ok(check(&self.status().await?)) });
        match outcome.await {
            Ok(took) => Ok(took),
            Err(error) => Err(error.context(self.summary().await)),
        }
    }
}

/// All conditions of a status.
pub fn conditions(status: &Value) -> impl Iterator<Item = &Value> {
    status["conditions"].as_array().into_iter().flatten()
}

/// One condition of a status; null when it is absent.
pub fn condition<'v>(status: &'v Value, kind: &str) -> &'v Value {
    conditions(status)
        .find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}

/// Name of an object.
pub fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
