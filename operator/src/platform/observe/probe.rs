//! Reading of the world: caches, a few uncached requests, and short questions to the pods themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::names::{self, Component};
use crds::platform::DeletionPolicy;
use futures::future::{join_all, select_ok};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::deep::Deep;
use super::external::Checked;
use super::patroni::Cluster;
use super::pods::Pod;
use super::secrets::Credentials;
use super::sentinel::{self, Sentinel, View, pod_name};
use super::state::StateMap;
use super::{World, edge, pods, secrets as held};
use crate::platform::build::{ingress, metadata, postgres_access, secrets};
use crate::platform::cache::NamespaceCache;
use crate::platform::deadline::bounded;
use crate::platform::object::{Key, Kind};
use crate::platform::validate::{Cache, Database, Platform};

/// Time for one question to a pod.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Time for the API's deep check, which itself waits two seconds for a write.
const DEEP_TIMEOUT: Duration = Duration::from_secs(3);
/// Pods that are asked for it at the same time.
const DEEP_CHECKS: usize = 3;
/// No honest answer is larger.
const MAX_ANSWER: usize = 1 << 20;

/// Reads the world. Holds connections to nothing.
#[derive(Clone)]
pub struct Probe {
    client: kube::Client,
    http: HttpClient<HttpConnector, Empty<Bytes>>,
    /// Uid and generation of each platform for which the owners of Patroni's ConfigMaps were seen to be right.
    settled: Arc<Mutex<Settled>>,
}

/// Uid and generation by namespace and name.
type Settled = HashMap<(String, String), (String, i64)>;

impl Probe {
    /// A probe that asks the API server through `client`.
    pub fn new(client: kube::Client) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(PROBE_TIMEOUT));
        let http = HttpClient::builder(hyper_util::rt::TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Self {
            client,
            http,
            settled: Arc::default(),
        }
    }

    /// Observes everything about one platform.
    ///
    /// # Errors
    /// Only the API server's; a pod that does not answer is an observation.
    #[tracing::instrument(skip_all)]
    pub async fn observe(
        &self,
        platform: &Platform,
        cache: &NamespaceCache,
        now: Timestamp,
    ) -> Result<(World, Credentials), kube::Error> {
        let objects = cache.objects(&platform.name);
        let pods: Vec<_> = objects
            .iter()
            .filter(|(key, _)| key.kind == Kind::Pod)
            .map(|(_, pod)| pods::reduce(pod, now))
            .collect();
        let mut world = World {
            now,
            objects,
            pods,
            apis: cache.apis(),
            edge: edge::look(platform, cache),
            ..World::default()
        };
        let (read, refusals, state, certificate) = tokio::try_join!(
            self.secrets(platform),
            self.refusals(platform, &world),
            self.patroni_state(platform),
            self.certificate(platform)
        )?;
        (world.refusals, world.refused) = refusals;
        world.edge.certificate = certificate;
        world.objects.extend(state);
        let values = take_in(platform, &mut world, read);
        let redis_secret = values.get(&names::component(&platform.name, Component::Redis));
        let password = redis_secret
            .and_then(|data| data.get(secrets::REDIS_PASSWORD))
            .cloned();
        (world.patroni, world.sentinel, world.checked) = tokio::join!(
            self.patroni(platform, &world),
            self.sentinel(platform, &world, password),
            self.checked(&world)
        );
        // Without a primary the check cannot succeed, and would only hold up the look that is to see the next one.
        if world.primary().is_some() || matches!(platform.database, Database::External(_)) {
            world.deep = self.deep(&world).await;
        }
        Ok((world, values))
    }

    /// Secrets that the platform made or names, by name.
    async fn secrets(&self, platform: &Platform) -> Result<BTreeMap<String, Secret>, kube::Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &platform.namespace);
        let mut found = BTreeMap::new();
        for name in held::names(platform) {
            if let Some(secret) = bounded(api.get_opt(&name)).await? {
                found.insert(name, secret);
            }
        }
        Ok(found)
    }

    /// Metadata of the ConfigMaps in which Patroni keeps its state. They change every other second, so they are not watched, and
    /// read only while their owners may not fit the deletion policy.
    async fn patroni_state(&self, platform: &Platform) -> Result<BTreeMap<Key, Value>, kube::Error> {
        let place = (platform.namespace.clone(), platform.name.clone());
        let seen = (platform.uid.clone(), platform.generation);
        let is_settled = || {
            let known = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&place) == Some(&seen)
        };
        let retain = platform.spec.deletion_policy == DeletionPolicy::Retain;
        if !matches!(platform.database, Database::Managed(_)) || (retain && is_settled()) {
            return Ok(BTreeMap::new());
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &platform.namespace);
        let selector = metadata::selector(platform, Component::Postgres);
        let selector: Vec<_> = selector
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        let parameters = ListParams::default().labels(&selector.join(","));
        let list = bounded(api.list_metadata(&parameters)).await?;
        let names = postgres_access::state(platform);
        let state: BTreeMap<Key, Value> = list
            .items
            .into_iter()
            .filter_map(|item| {
                let name = item.metadata.name.clone().filter(|name| names.contains(name))?;
                let metadata = serde_json::to_value(&item.metadata).ok()?;
                Some((Key::new(Kind::ConfigMap, name), json!({"metadata": metadata})))
            })
            .collect();
        if state
            .values()
            .all(|item| item["metadata"].get("ownerReferences").is_none())
        {
            let mut known = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(place, seen);
        }
        Ok(state)
    }

    /// What a migration says that waits for external services. No answer is no finding: it may work already.
    async fn checked(&self, world: &World) -> Option<Checked> {
        let pod = world
            .pods_of(Component::Migration)
            .find(|pod| pod.ip.is_some() && !pod.ended)?;
        let url = format!("http://{}:{}/check", pod.ip.as_ref()?, names::API_OPS_PORT);
        timeout(PROBE_TIMEOUT, self.get_json(&url)).await.ok()?.ok()
    }

    /// The `ConfigMaps` that an earlier Patroni has left behind.
    ///
    /// # Errors
    /// The API server's.
    pub async fn left_behind(&self, platform: &Platform) -> Result<Vec<StateMap>, kube::Error> {
        let scope = names::component(&platform.name, Component::Postgres);
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &platform.namespace);
        let selector = format!("{}={scope}", names::PATRONI_SCOPE_LABEL);
        let found = bounded(api.list(&ListParams::default().labels(&selector))).await?;
        let maps = found.items.into_iter().map(|map| StateMap {
            name: map.name_any(),
            uid: map.uid().unwrap_or_default(),
        });
        Ok(maps.collect())
    }

    /// Whether the Secret with the host's certificate exists. Its content is nobody's business here, so it is not read.
    async fn certificate(&self, platform: &Platform) -> Result<Option<bool>, kube::Error> {
        let Some(name) = ingress::certificate(platform).filter(|_| platform.spec.ingress.enabled) else {
            return Ok(None);
        };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &platform.namespace);
        Ok(Some(bounded(api.get_metadata_opt(&name)).await?.is_some()))
    }

    /// Why pods that should exist do not. Deployments say it in a condition, the others only in an event.
    async fn refusals(
        &self,
        platform: &Platform,
        world: &World,
    ) -> Result<(BTreeMap<String, String>, BTreeSet<Key>), kube::Error> {
        let mut refusals = BTreeMap::new();
        let mut refused = BTreeSet::new();
        for (key, object) in &world.objects {
            let component = object["metadata"]["labels"][names::COMPONENT_LABEL]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let message = match key.kind {
                Kind::Deployment => replica_failure(object),
                Kind::StatefulSet | Kind::Job if lacks_pods(world, object, &component) => {
                    self.failed_create(&platform.namespace, key.kind, &key.name)
                        .await?
                }
                _ => None,
            };
            if let Some(message) = message {
                refused.insert(key.clone());
                refusals.insert(component, format!("{key} cannot create its pods: {message}"));
            }
        }
        Ok((refusals, refused))
    }

    async fn failed_create(
        &self,
        namespace: &str,
        kind: Kind,
        name: &str,
    ) -> Result<Option<String>, kube::Error> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let fields = format!(
            "involvedObject.kind={},involvedObject.name={name},reason=FailedCreate",
            kind.as_str()
        );
        let events = bounded(api.list(&ListParams::default().fields(&fields).limit(50))).await?;
        let latest = events
            .items
            .into_iter()
            .max_by_key(|event| event.last_timestamp.clone().map(|time| time.0));
        Ok(latest.and_then(|event| event.message))
    }

    async fn patroni(&self, platform: &Platform, world: &World) -> Option<Cluster> {
        if !matches!(platform.database, Database::Managed(_)) {
            return None;
        }
        let pods = || world.pods_of(Component::Postgres);
        let url = |pod: &Pod, path: &str| {
            Some(format!(
                "http://{}:{}{path}",
                pod.ip.as_ref()?,
                names::PATRONI_PORT
            ))
        };
        for pod in pods() {
            let Some(address) = url(pod, "/cluster") else {
                continue;
            };
            let Ok(Ok(mut cluster)) = timeout(PROBE_TIMEOUT, self.get_json::<Cluster>(&address)).await else {
                continue;
            };
            let leader = cluster
                .leader()
                .and_then(|leader| pods().find(|pod| pod.name == leader.name));
            if let Some(address) = leader.and_then(|leader| url(leader, "/primary")) {
                cluster.writable = self.succeeds(&address).await;
            }
            if let Some(address) = url(pod, "/config") {
                let config = timeout(PROBE_TIMEOUT, self.get_json::<Value>(&address)).await;
                cluster.config = config.ok().and_then(Result::ok).filter(Value::is_object);
            }
            return Some(cluster);
        }
        None
    }

    /// Whether an address answers with a success.
    async fn succeeds(&self, url: &str) -> bool {
        let Ok(address) = url.parse() else { return false };
        let answer = timeout(PROBE_TIMEOUT, self.http.get(address)).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status().is_success()))
    }

    /// The first answer of any pod that serves; they are asked at the same time, since one may hang.
    async fn deep(&self, world: &World) -> Option<Result<Deep, String>> {
        let serving = world
            .pods_of(Component::Api)
            .filter(|pod| pod.ready)
            .filter_map(|pod| Some((pod, pod.ip.as_ref()?)));
        let questions = serving.take(DEEP_CHECKS).map(|(pod, ip)| {
            let url = format!("http://{ip}:{}/health/deep", names::API_OPS_PORT);
            let name = pod.name.clone();
            Box::pin(async move {
                let answer = timeout(DEEP_TIMEOUT, self.get_json(&url))
                    .await
                    .map_err(anyhow::Error::from)
                    .flatten();
                answer.map_err(|error| format!("pod {name} does not answer its deep check: {error}"))
            })
        });
        let questions: Vec<_> = questions.collect();
        if questions.is_empty() {
            return None;
        }
        Some(select_ok(questions).await.map(|(answer, _)| answer))
    }

    /// Reads JSON, whatever the status code: a failing check answers 503 with its findings.
    async fn get_json<T: DeserializeOwned>(&self, url: &str) -> anyhow::Result<T> {
        let response = self.http.get(url.parse()?).await?;
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!(error))?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    }

    async fn sentinel(
        &self,
        platform: &Platform,
        world: &World,
        password: Option<String>,
    ) -> Option<Sentinel> {
        if !matches!(platform.cache, Cache::Managed(_)) {
            return None;
        }
        let password = password?;
        let questions = world.pods_of(Component::Redis).map(|pod| {
            let password = &password;
            async move {
                let view = match &pod.ip {
                    Some(ip) => timeout(PROBE_TIMEOUT, ask_sentinel(ip, password)).await.ok(),
                    None => None,
                };
                (pod.name.clone(), view.and_then(Result::ok))
            }
        });
        let views: BTreeMap<_, _> = join_all(questions).await.into_iter().collect();
        let seen = sentinel::merge(&views, BTreeSet::new())?;
        let primary = world
            .pods_of(Component::Redis)
            .find(|pod| pod.name == seen.primary)
            .and_then(|pod| pod.ip.as_deref());
        let in_step = match primary {
            Some(ip) => timeout(PROBE_TIMEOUT, ask_primary(ip, &password))
                .await
                .ok()
                .and_then(Result::ok),
            None => None,
        };
        Some(Sentinel {
            in_step: in_step.unwrap_or_default(),
            ..seen
        })
    }
}

/// Puts what may be known of Secrets into the world; answers the values of all that were read.
fn take_in(platform: &Platform, world: &mut World, read: BTreeMap<String, Secret>) -> Credentials {
    let made: BTreeSet<String> = secrets::requests(platform)
        .into_iter()
        .map(|request| request.name)
        .collect();
    let mut values = Credentials::new();
    for (name, secret) in read {
        let metadata = held::object(&secret);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_default();
        let data: BTreeMap<String, String> = secret
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, text(value.0)))
            .collect();
        if made.contains(&name) {
            world.objects.insert(held::key(&name), metadata);
            world.secrets.insert(name.clone(), data.keys().cloned().collect());
        }
        values.insert(name, data);
    }
    world.references = held::references(platform, &values);
    values.retain(|name, _| made.contains(name));
    values
}

fn replica_failure(deployment: &Value) -> Option<String> {
    let conditions = deployment["status"]["conditions"].as_array()?;
    let failure = conditions
        .iter()
        .find(|c| c["type"] == "ReplicaFailure" && c["status"] == "True")?;
    failure["message"].as_str().map(str::to_owned)
}

fn lacks_pods(world: &World, object: &Value, component: &str) -> bool {
    let finished =
        object["status"]["completionTime"].is_string() || object["status"]["conditions"].is_array();
    let wanted = object["spec"]["replicas"]
        .as_u64()
        .unwrap_or(u64::from(!finished));
    let present = world.pods.iter().filter(|pod| pod.component == component).count();
    (present as u64) < wanted
}

async fn connect(
    ip: &str,
    port: u16,
    password: &str,
) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
    let address = redis::ConnectionAddr::Tcp(ip.to_owned(), port);
    let settings = redis::RedisConnectionInfo::default().set_password(password);
    let info = redis::IntoConnectionInfo::into_connection_info(address)?.set_redis_settings(settings);
    // The whole question has a bound already; a shorter one for each part of it would call a busy member absent.
    let patient = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    redis::Client::open(info)?
        .get_multiplexed_async_connection_with_config(&patient)
        .await
}

/// Replicas that the primary itself counts as in step.
async fn ask_primary(ip: &str, password: &str) -> redis::RedisResult<BTreeSet<String>> {
    let mut connection = connect(ip, names::REDIS_PORT, password).await?;
    let info: String = redis::cmd("INFO")
        .arg("replication")
        .query_async(&mut connection)
        .await?;
    Ok(sentinel::online_replicas(&info))
}

async fn ask_sentinel(ip: &str, password: &str) -> redis::RedisResult<View> {
    let mut connection = connect(ip, names::SENTINEL_PORT, password).await?;
    let name = names::REDIS_MASTER_NAME;
    let master: BTreeMap<String, String> = redis::cmd("SENTINEL")
        .arg("MASTER")
        .arg(name)
        .query_async(&mut connection)
        .await?;
    let replicas: Vec<BTreeMap<String, String>> = redis::cmd("SENTINEL")
        .arg("REPLICAS")
        .arg(name)
        .query_async(&mut connection)
        .await?;
    let quorum: redis::RedisResult<String> = redis::cmd("SENTINEL")
        .arg("CKQUORUM")
        .arg(name)
        .query_async(&mut connection)
        .await;
    let down = |entry: &BTreeMap<String, String>| {
        let flags = entry.get("flags").map(String::as_str).unwrap_or_default();
        flags
            .split(',')
            .any(|flag| matches!(flag, "s_down" | "o_down" | "disconnected"))
    };
    let linked = |entry: &&BTreeMap<String, String>| {
        entry
            .get("master-link-status")
            .is_some_and(|status| status == "ok")
            && !down(entry)
    };
    Ok(View {
        epoch: master
            .get("config-epoch")
            .and_then(|epoch| epoch.parse().ok())
            .unwrap_or(0),
        primary: master
            .get("ip")
            .map(|address| pod_name(address))
            .unwrap_or_default(),
        quorum_problem: quorum.err().map(|error| error.to_string()),
        primary_up: !down(&master),
        replicas: replicas
            .iter()
            .filter(linked)
            .filter_map(|replica| replica.get("ip").map(|address| pod_name(address)))
            .collect(),
    })
}
