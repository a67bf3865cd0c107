//! Carrying out typed actions: requests to Patroni, to pods and to volumes. What takes long runs beside the looks, one at a time for
//! each platform, and what was tried is remembered for as long as it matters. All of that memory can be lost.

mod ground;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crds::names::{self, Component};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy,
};
use kube::{Client, Error, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::build::secrets;
use super::deadline::bounded;
use super::object::Kind;
use super::observe::World;
use super::observe::commands::{Commands, Tried};
use super::observe::secrets::Credentials;
use super::plan::actions::Action;
use super::validate::Platform;
use crate::metrics::{Cause, Metrics};

/// Time to reach a pod.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Time for Patroni to answer a change of its settings.
const SHORT: Duration = Duration::from_secs(3);
/// Time for Patroni to carry out a switchover (it gives up after 20 s itself) or a restart.
const LONG: Duration = Duration::from_secs(75);
/// How long a primary that is restarted in place may take before a replica takes over, in seconds.
const RESTART_TIMEOUT: u32 = 60;
/// How long tries are remembered.
const MEMORY: Duration = Duration::from_mins(30);
/// No honest answer is larger.
const MAX_ANSWER: usize = 1 << 20;

/// Carries actions out.
pub struct Commander {
    client: Client,
    metrics: Metrics,
    patroni: Patroni,
    ledgers: Arc<Mutex<HashMap<(String, String), Ledger>>>,
    running: TaskTracker,
}

#[derive(Default)]
struct Ledger {
    running: Option<String>,
    tried: BTreeMap<String, Entry>,
}

struct Entry {
    times: u32,
    at: Timestamp,
    failure: Option<String>,
}

/// Where one of Patroni's members is asked, and as whom.
#[derive(Clone)]
struct Patroni {
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

/// What a long action asks Patroni for.
struct Order {
    address: String,
    path: &'static str,
    body: Value,
}

impl Commander {
    /// A commander that changes Kubernetes through `client`.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let http = HttpClient::builder(hyper_util::rt::TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Self {
            client,
            metrics,
            patroni: Patroni { http },
            ledgers: Arc::default(),
            running: TaskTracker::new(),
        }
    }

    /// What was tried lately for a platform.
    pub fn commands(&self, platform: &Platform, now: Timestamp) -> Commands {
        let mut ledgers = self.ledgers();
        let Some(ledger) = ledgers.get_mut(&place(platform)) else {
            return Commands::default();
        };
        ledger
            .tried
            .retain(|_, entry| age(entry.at, now) < MEMORY || ledger.running.is_some());
        Commands {
            running: ledger.running.clone(),
            tried: ledger
                .tried
                .iter()
                .map(|(name, entry)| {
                    let tried = Tried {
                        times: entry.times,
                        ago: age(entry.at, now),
                        failure: entry.failure.clone(),
                    };
                    (name.clone(), tried)
                })
                .collect(),
        }
    }

    /// Carries actions out as far as possible. A refusal is remembered and told by the next look.
    ///
    /// # Errors
    /// Only where the API server cannot be reached or failed itself.
    pub async fn carry_out(
        &self,
        platform: &Platform,
        world: &World,
        actions: Vec<Action>,
        credentials: &Credentials,
        now: Timestamp,
    ) -> Result<(), Error> {
        for action in actions {
            if !ground::is_own(platform, world, &action) || ground::is_lost(platform, world, &action) {
                continue;
            }
            let name = action.name();
            tracing::info!(platform.name, platform.namespace, action = name, "acts");
            self.enter(platform, &name, now);
            let outcome = match &action {
                Action::SetParameters { patch } => {
                    self.set_parameters(platform, world, patch, credentials).await
                }
                Action::Restart { .. } | Action::Switchover { .. } | Action::Reinitialize { .. } => {
                    self.start(platform, world, &action, credentials);
                    continue;
                }
                Action::DeletePod {
                    name,
                    uid,
                    relying_on,
                } => self.delete_pod(platform, name, uid, relying_on).await?,
                Action::ResizeVolume { claim, uid, size } => self.resize(platform, claim, uid, size).await?,
                Action::OrphanStatefulSet { name, uid } => self.orphan(platform, name, uid).await?,
                Action::DiscardState { name, uid } => self.discard_state(platform, name, uid).await?,
            };
            if let Err(words) = &outcome {
                tracing::warn!(
                    platform.name,
                    platform.namespace,
                    action = name,
                    error = words,
                    "an action failed"
                );
            }
            self.settle(&place(platform), &name, outcome);
        }
        Ok(())
    }

    fn ledgers(&self) -> MutexGuard<'_, HashMap<(String, String), Ledger>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, platform: &Platform, name: &str, now: Timestamp) {
        let mut ledgers = self.ledgers();
        let ledger = ledgers.entry(place(platform)).or_default();
        let entry = ledger.tried.entry(name.to_owned()).or_insert(Entry {
            times: 0,
            at: now,
            failure: None,
        });
        entry.times += 1;
        entry.at = now;
    }

    fn settle(&self, place: &(String, String), name: &str, outcome: Outcome) {
        settle(&mut self.ledgers(), place, name, outcome);
    }

    async fn set_parameters(
        &self,
        platform: &Platform,
        world: &World,
        patch: &Value,
        credentials: &Credentials,
    ) -> Outcome {
        let primary = world.primary().map(|member| member.name.as_str());
        let asked = primary.and_then(|name| address(world, name));
        let address = asked
            .or_else(|| {
                world
                    .pods_of(Component::Postgres)
                    .find_map(|pod| address(world, &pod.name))
            })
            .ok_or("no instance can be asked")?;
        let order = Order {
            address,
            path: "/config",
            body: patch.clone(),
        };
        self.patroni
            .send(Method::PATCH, &order, &password(platform, credentials)?, SHORT)
            .await
    }

    /// Starts what Patroni takes its time for.
    fn start(&self, platform: &Platform, world: &World, action: &Action, credentials: &Credentials) {
        let (member, path, body) = match action {
            Action::Restart { member } => (
                member,
                "/restart",
                json!({"restart_pending": true, "timeout": RESTART_TIMEOUT}),
            ),
            Action::Switchover { from, to } => {
                let mut body = json!({"leader": from});
                if let Some(to) = to {
                    body["candidate"] = json!(to);
                }
                (from, "/switchover", body)
            }
            Action::Reinitialize { member } => (member, "/reinitialize", json!({"force": true})),
            _ => return,
        };
        let (place, name) = (place(platform), action.name());
        let ready = address(world, member)
            .ok_or_else(|| format!("{member} has no address"))
            .and_then(|address| Ok((address, password(platform, credentials)?)));
        let (address, password) = match ready {
            Ok(ready) => ready,
            Err(words) => return self.settle(&place, &name, Err(words)),
        };
        if let Some(ledger) = self.ledgers().get_mut(&place) {
            ledger.running = Some(name.clone());
        }
        let order = Order { address, path, body };
        let (patroni, ledgers) = (self.patroni.clone(), Arc::clone(&self.ledgers));
        self.running.spawn(async move {
            let outcome = patroni.send(Method::POST, &order, &password, LONG).await;
            match &outcome {
                Ok(()) => tracing::info!(action = name, "Patroni has done it"),
                Err(words) => tracing::warn!(action = name, error = words, "Patroni has not done it"),
            }
            let mut ledgers = ledgers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(ledger) = ledgers.get_mut(&place) {
                ledger.running = None;
            }
            settle(&mut ledgers, &place, &name, outcome);
        });
    }

    /// Deletes a pod after one more look past the caches: it must still be the same, and so must those that are relied on.
    async fn delete_pod(
        &self,
        platform: &Platform,
        name: &str,
        uid: &str,
        relying_on: &[(String, String)],
    ) -> Result<Outcome, Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &platform.namespace);
        let Some(pod) = bounded(api.get_opt(name)).await? else {
            return Ok(Ok(()));
        };
        if pod.uid().as_deref() != Some(uid) || pod.metadata.deletion_timestamp.is_some() {
            return Ok(Ok(()));
        }
        for (other, uid) in relying_on {
            let stands = bounded(api.get_opt(other))
                .await?
                .is_some_and(|pod| pod.uid().as_ref() == Some(uid) && is_ready(&pod));
            if !stands {
                return Ok(Err(format!("pod {name} stays, because {other} is not ready")));
            }
        }
        let parameters = DeleteParams {
            preconditions: Some(identity(uid)),
            ..DeleteParams::default()
        };
        self.metrics.write(Kind::Pod, Cause::Upkeep);
        answer(bounded(api.delete(name, &parameters)).await.map(drop))
    }

    async fn resize(
        &self,
        platform: &Platform,
        claim: &str,
        uid: &str,
        size: &str,
    ) -> Result<Outcome, Error> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &platform.namespace);
        let patch = json!({"metadata": {"uid": uid}, "spec": {"resources": {"requests": {"storage": size}}}});
        let parameters = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.metrics.write(Kind::PersistentVolumeClaim, Cause::Upkeep);
        let patched = bounded(api.patch(claim, &parameters, &Patch::Merge(patch))).await;
        answer(patched.map(drop))
    }

    async fn orphan(&self, platform: &Platform, name: &str, uid: &str) -> Result<Outcome, Error> {
        let parameters = DeleteParams {
            preconditions: Some(identity(uid)),
            propagation_policy: Some(PropagationPolicy::Orphan),
            ..DeleteParams::default()
        };
        self.metrics.write(Kind::StatefulSet, Cause::Upkeep);
        let api = self.api(platform, Kind::StatefulSet);
        answer(bounded(api.delete(name, &parameters)).await.map(drop))
    }

    /// Deletes one of Patroni's `ConfigMaps`, if past the caches there still is neither a volume nor a StatefulSet that it tells of.
    async fn discard_state(&self, platform: &Platform, name: &str, uid: &str) -> Result<Outcome, Error> {
        let set = names::component(&platform.name, Component::Postgres);
        let exists = bounded(self.api(platform, Kind::StatefulSet).get_opt(&set))
            .await?
            .is_some();
        let claims = self.api(platform, Kind::PersistentVolumeClaim);
        let labels = format!("{}={}", names::PLATFORM_LABEL, platform.name);
        let prefix = format!("data-{set}-");
        let held = bounded(claims.list(&ListParams::default().labels(&labels)))
            .await?
            .items
            .iter()
            .any(|claim: &DynamicObject| claim.name_any().starts_with(&prefix));
        if exists || held {
            return Ok(Err(format!("{name} stays, because its data exists")));
        }
        let parameters = DeleteParams {
            preconditions: Some(identity(uid)),
            ..DeleteParams::default()
        };
        self.metrics.write(Kind::ConfigMap, Cause::Upkeep);
        let api = self.api(platform, Kind::ConfigMap);
        answer(bounded(api.delete(name, &parameters)).await.map(drop))
    }

    fn api(&self, platform: &Platform, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &platform.namespace, &kind.api_resource())
    }
}

/// Done, or why not.
type Outcome = Result<(), String>;

/// A refusal is an answer; that somebody was faster is as good as done.
fn answer(result: Result<(), Error>) -> Result<Outcome, Error> {
    match result {
        Ok(()) => Ok(Ok(())),
        Err(Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(Ok(())),
        Err(Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
            Ok(Err(status.message.clone()))
        }
        Err(error) => Err(error),
    }
}

/// Writes down how a try ended. Settings that were taken may be changed again at once. All else is remembered: a look that began
/// before the end would otherwise ask for the same once more.
fn settle(
    ledgers: &mut HashMap<(String, String), Ledger>,
    place: &(String, String),
    name: &str,
    outcome: Outcome,
) {
    let Some(ledger) = ledgers.get_mut(place) else {
        return;
    };
    match outcome {
        Ok(()) if name == "parameters" => {
            ledger.tried.remove(name);
        }
        outcome => {
            if let Some(entry) = ledger.tried.get_mut(name) {
                entry.failure = outcome.err();
            }
        }
    }
}

impl Patroni {
    /// Sends an order and waits for its end.
    async fn send(&self, method: Method, order: &Order, password: &str, patience: Duration) -> Outcome {
        let work = async {
            let credentials = BASE64_STANDARD.encode(format!("{}:{password}", secrets::PATRONI_USER));
            let request = Request::builder()
                .method(method)
                .uri(format!(
                    "http://{}:{}{}",
                    order.address,
                    names::PATRONI_PORT,
                    order.path
                ))
                .header(hyper::header::AUTHORIZATION, format!("Basic {credentials}"))
                .header(hyper::header::CONTENT_TYPE, "application/json")
                .body(Full::from(order.body.to_string()))
                .map_err(|error| error.to_string())?;
            let response = self
                .http
                .request(request)
                .await
                .map_err(|error| format!("Patroni could not be asked: {error}"))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| format!("the answer of Patroni broke off: {error}"))?
                .to_bytes();
            if status.is_success() {
                return Ok(());
            }
            let words: String = String::from_utf8_lossy(&body).chars().take(300).collect();
            Err(format!("{status}: {words}"))
        };
        timeout(patience, work)
            .await
            .unwrap_or_else(|_| Err("Patroni did not answer in time".to_owned()))
    }
}

fn address(world: &World, pod: &str) -> Option<String> {
    world
        .pods_of(Component::Postgres)
        .find(|candidate| candidate.name == pod)?
        .ip
        .clone()
}

fn password(platform: &Platform, credentials: &Credentials) -> Result<String, String> {
    let secret = names::component(&platform.name, Component::Postgres);
    credentials
        .get(&secret)
        .and_then(|values| values.get(secrets::PATRONI_PASSWORD))
        .cloned()
        .ok_or_else(|| format!("Secret {secret} has no key {}", secrets::PATRONI_PASSWORD))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

fn identity(uid: &str) -> Preconditions {
    Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    }
}

fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}

fn place(platform: &Platform) -> (String, String) {
    (platform.namespace.clone(), platform.name.clone())
}
