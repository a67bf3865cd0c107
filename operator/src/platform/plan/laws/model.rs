//! A cluster in memory that does what plans say, as the API server and the controllers of Kubernetes would: what is applied is
//! stored, owners take their children with them, sets make pods, the autoscaler scales.

use std::collections::{BTreeMap, BTreeSet};

use crds::names::{self, Component};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::platform::build::secrets;
use crate::platform::diff::project;
use crate::platform::object::{Key, Kind, Object, is_ours};
use crate::platform::observe::deep::Deep;
use crate::platform::observe::patroni::{Cluster, Member};
use crate::platform::observe::pods::Pod;
use crate::platform::observe::sentinel::Sentinel;
use crate::platform::observe::{Rejection, World};
use crate::platform::plan::Plan;
use crate::platform::plan::actions::Action;
use crate::platform::plan::scaling::SEED_MANAGER;
use crate::platform::validate::Platform;

/// Time between two looks.
const LOOK: SignedDuration = SignedDuration::from_secs(1);
/// Looks that a pod needs until it is ready.
const START: u8 = 2;
/// Part of an image's name that makes migrations fail.
pub const FAILING: &str = "failing";

#[derive(Debug, Clone)]
struct Process {
    component: &'static str,
    owner: Key,
    uid: String,
    revision: String,
    starts: u8,
}

/// The cluster.
#[derive(Debug, Clone)]
pub struct Model {
    /// Everything that is stored, pods excepted.
    pub objects: BTreeMap<Key, Value>,
    pods: BTreeMap<String, Process>,
    primary: Option<String>,
    redis_primary: Option<String>,
    config: Value,
    rejected: BTreeMap<Key, Rejection>,
    now: Timestamp,
    serial: u32,
}

impl Model {
    /// Nothing is there.
    pub fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            pods: BTreeMap::new(),
            primary: None,
            redis_primary: None,
            config: json!({}),
            rejected: BTreeMap::new(),
            now: Timestamp::UNIX_EPOCH,
            serial: 0,
        }
    }

    fn uid(&mut self) -> String {
        self.serial += 1;
        format!("uid-{}", self.serial)
    }

    /// What the operator observes.
    pub fn world(&self, platform: &Platform) -> World {
        let keys =
            |request: &secrets::SecretRequest| request.keys.iter().map(|key| (*key).to_owned()).collect();
        let held = secrets::requests(platform);
        let held = held
            .iter()
            .filter(|request| self.objects.contains_key(&Key::new(Kind::Secret, &request.name)));
        let pods = self.pods.iter().map(|(name, process)| Pod {
            name: name.clone(),
            uid: process.uid.clone(),
            revision: Some(process.revision.clone()),
            component: process.component.to_owned(),
            ip: Some("10.0.0.7".to_owned()),
            ready: process.starts == 0,
            ..Pod::default()
        });
        World {
            now: self.now,
            objects: self.objects.clone(),
            pods: pods.collect(),
            secrets: held
                .map(|request| (request.name.clone(), keys(request)))
                .collect(),
            rejected: self.rejected.clone(),
            patroni: self.patroni(),
            sentinel: self.sentinel(),
            deep: self.deep(),
            ..World::default()
        }
    }

    /// Names of the pods of a component that are ready.
    pub fn ready(&self, component: Component) -> impl Iterator<Item = &String> {
        let of = move |process: &&Process| process.component == component.as_str() && process.starts == 0;
        self.pods
            .iter()
            .filter(move |(_, process)| of(process))
            .map(|(name, _)| name)
    }

    /// The pod that takes writes.
    pub fn primary(&self) -> Option<&String> {
        let primary = self.primary.as_ref()?;
        self.ready(Component::Postgres).find(|name| *name == primary)
    }

    /// Whether a write, a read, a round trip to Redis and an answer of the API work.
    pub fn works(&self) -> bool {
        self.primary().is_some()
            && self.ready(Component::Redis).next().is_some()
            && self.ready(Component::Api).next().is_some()
    }

    fn patroni(&self) -> Option<Cluster> {
        let members = self.ready(Component::Postgres).map(|name| {
            let leads = self.primary.as_ref() == Some(name);
            Member {
                name: name.clone(),
                role: if leads { "leader" } else { "quorum_standby" }.to_owned(),
                state: if leads { "running" } else { "streaming" }.to_owned(),
                timeline: Some(1),
                lag: Some(0),
                ..Member::default()
            }
        });
        let members: Vec<_> = members.collect();
        (!members.is_empty()).then(|| Cluster {
            members,
            writable: self.primary().is_some(),
            config: Some(self.config.clone()),
            ..Cluster::default()
        })
    }

    fn sentinel(&self) -> Option<Sentinel> {
        let primary = self.redis_primary.clone()?;
        let replicas = self.ready(Component::Redis).filter(|name| **name != primary);
        let in_step: BTreeSet<String> = replicas.cloned().collect();
        Some(Sentinel {
            primary_up: self.ready(Component::Redis).any(|name| *name == primary),
            primary,
            linked: in_step.clone(),
            in_step,
            ..Sentinel::default()
        })
    }

    fn deep(&self) -> Option<Result<Deep, String>> {
        self.ready(Component::Api).next()?;
        let says = |ok: bool| json!({"ok": ok, "error": if ok { Value::Null } else { json!("down") }});
        let (database, cache) = (
            self.primary().is_some(),
            self.ready(Component::Redis).next().is_some(),
        );
        let answer = json!({"write": says(database), "read": says(database), "redis": says(cache)});
        Some(Ok(serde_json::from_value(answer).expect("an answer of the API")))
    }

    /// Whether an object is what it should be already.
    pub fn is_done(&self, platform: &Platform, object: &Object) -> bool {
        let live = self.objects.get(&object.key);
        live.is_some_and(|live| {
            is_ours(live, &platform.name, &platform.uid) && project(live, &object.manifest) == object.manifest
        })
    }

    /// Whether the name of an object is somebody else's.
    pub fn is_taken(&self, platform: &Platform, key: &Key) -> bool {
        let live = self.objects.get(key);
        live.is_some_and(|live| !is_ours(live, &platform.name, &platform.uid))
    }

    /// Carries a plan out as `apply` and `command` do.
    pub fn carry_out(&mut self, platform: &Platform, plan: &Plan) {
        self.rejected.clear();
        for request in &plan.secrets {
            let mut metadata = request.metadata.clone();
            metadata["uid"] = json!(self.uid());
            metadata["resourceVersion"] = json!("1");
            let key = Key::new(Kind::Secret, &request.name);
            self.objects.insert(key, json!({"metadata": metadata}));
        }
        if let Some(replicas) = plan.seed_replicas {
            self.seed(platform, plan, replicas);
        }
        for object in &plan.objects {
            if self.is_taken(platform, &object.key) {
                self.rejected.insert(object.key.clone(), Rejection::Foreign);
            } else if !self.is_done(platform, object) {
                self.store(object);
            }
        }
        for tenure in &plan.tenures {
            if let Some(live) = self.objects.get_mut(&tenure.key) {
                live["metadata"]["ownerReferences"] = json!(tenure.owners);
            }
        }
        for deletion in &plan.deletions {
            if self
                .objects
                .get(&deletion.key)
                .is_some_and(|live| live["metadata"]["uid"] == *deletion.uid)
            {
                self.delete(&deletion.key);
            }
        }
        for action in &plan.actions {
            self.act(action);
        }
    }

    /// Stores what is applied. What others hold, as the autoscaler does a number of pods, stays.
    fn store(&mut self, object: &Object) {
        let before = self.objects.get(&object.key).cloned();
        let mut live = object.manifest.clone();
        let fields = before
            .as_ref()
            .map_or(Value::Null, |before| before["metadata"].clone());
        let uid = fields["uid"].as_str().map_or_else(|| self.uid(), str::to_owned);
        live["metadata"]["uid"] = json!(uid);
        live["metadata"]["resourceVersion"] = json!("1");
        live["metadata"]["generation"] = json!(fields["generation"].as_i64().unwrap_or(0) + 1);
        live["metadata"]["managedFields"] = fields["managedFields"].clone();
        if let Some(before) = &before {
            live["status"] = before["status"].clone();
            if object.key.kind == Kind::Deployment && object.manifest["spec"]["replicas"].is_null() {
                live["spec"]["replicas"] = before["spec"]["replicas"].clone();
            }
        }
        if object.key.kind == Kind::Deployment && !object.manifest["spec"]["replicas"].is_null() {
            hold_replicas(&mut live, names::FIELD_MANAGER);
        }
        self.objects.insert(object.key.clone(), live);
    }

    fn seed(&mut self, platform: &Platform, plan: &Plan, replicas: i32) {
        let key = Key::new(Kind::Deployment, names::component(&platform.name, Component::Api));
        if !self.objects.contains_key(&key)
            && let Some(wanted) = plan.objects.iter().find(|object| object.key == key)
        {
            self.store(wanted);
        }
        if let Some(live) = self.objects.get_mut(&key) {
            live["spec"]["replicas"] = json!(replicas);
            hold_replicas(live, SEED_MANAGER);
        }
    }

    /// Deletes an object with its children, and pods with their set.
    pub fn delete(&mut self, key: &Key) {
        let Some(gone) = self.objects.remove(key) else {
            return;
        };
        self.pods.retain(|_, process| process.owner != *key);
        let is_child = |live: &Value| {
            let owners = live["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == gone["metadata"]["uid"]))
        };
        let children: Vec<Key> = self
            .objects
            .iter()
            .filter(|(_, live)| is_child(live))
            .map(|(key, _)| key.clone())
            .collect();
        for child in children {
            self.delete(&child);
        }
    }

    /// Loses a pod, by its place among all.
    pub fn lose_pod(&mut self, place: usize) {
        let name = self.pods.keys().nth(place % self.pods.len().max(1)).cloned();
        if let Some(name) = name {
            self.pods.remove(&name);
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::SetParameters { patch } => merge(&mut self.config, patch),
            Action::Switchover { from, to } => {
                let other = self
                    .ready(Component::Postgres)
                    .find(|name| *name != from)
                    .cloned();
                self.primary = to.clone().or(other).or_else(|| self.primary.take());
            }
            Action::DeletePod { name, .. } => {
                self.pods.remove(name);
            }
            Action::ResizeVolume { claim, size, .. } => {
                if let Some(live) = self
                    .objects
                    .get_mut(&Key::new(Kind::PersistentVolumeClaim, claim))
                {
                    live["spec"]["resources"]["requests"]["storage"] = json!(size);
                    live["status"]["capacity"]["storage"] = json!(size);
                }
            }
            Action::OrphanStatefulSet { name, .. } => {
                self.objects.remove(&Key::new(Kind::StatefulSet, name));
            }
            Action::Restart { .. } | Action::Reinitialize { .. } | Action::DiscardState { .. } => {}
        }
    }

    /// Time passes: pods start, and every controller does its work.
    pub fn step(&mut self) {
        self.now += LOOK;
        for process in self.pods.values_mut() {
            process.starts = process.starts.saturating_sub(1);
        }
        for key in self.objects.keys().cloned().collect::<Vec<_>>() {
            match key.kind {
                Kind::StatefulSet => self.keep_set(&key),
                Kind::Deployment => self.keep_deployment(&key),
                Kind::Job => self.run_job(&key),
                Kind::HorizontalPodAutoscaler => self.autoscale(&key),
                _ => {}
            }
        }
        let elect = |current: &Option<String>, ready: Vec<String>| {
            let stays = current.clone().filter(|name| ready.contains(name));
            stays.or_else(|| ready.first().cloned())
        };
        self.primary = elect(&self.primary, self.ready(Component::Postgres).cloned().collect());
        self.redis_primary = elect(
            &self.redis_primary,
            self.ready(Component::Redis).cloned().collect(),
        );
    }

    fn keep_set(&mut self, key: &Key) {
        let live = self.objects[key].clone();
        let replicas = live["spec"]["replicas"].as_u64().unwrap_or(1);
        let revision = revision(&live);
        let component = [Component::Postgres, Component::Redis]
            .into_iter()
            .find(|component| live["metadata"]["labels"][names::COMPONENT_LABEL] == component.as_str())
            .map_or("", Component::as_str);
        let name = |ordinal: u64| format!("{}-{ordinal}", key.name);
        let wanted: Vec<String> = (0..replicas).map(name).collect();
        self.pods
            .retain(|pod, process| process.owner != *key || wanted.contains(pod));
        for pod in wanted {
            for template in live["spec"]["volumeClaimTemplates"]
                .as_array()
                .into_iter()
                .flatten()
            {
                self.bind(template, &pod);
            }
            if !self.pods.contains_key(&pod) {
                let process = Process {
                    component,
                    owner: key.clone(),
                    uid: self.uid(),
                    revision: revision.clone(),
                    starts: START,
                };
                self.pods.insert(pod, process);
            }
        }
        let generation = live["metadata"]["generation"].clone();
        self.objects.get_mut(key).expect("it is there")["status"] =
            json!({"observedGeneration": generation, "updateRevision": revision});
    }

    fn bind(&mut self, template: &Value, pod: &str) {
        let name = format!(
            "{}-{pod}",
            template["metadata"]["name"].as_str().unwrap_or_default()
        );
        let key = Key::new(Kind::PersistentVolumeClaim, name);
        if !self.objects.contains_key(&key) {
            let mut claim = template.clone();
            claim["metadata"]["uid"] = json!(self.uid());
            claim["metadata"]["resourceVersion"] = json!("1");
            claim["status"] = json!({"phase": "Bound", "capacity": claim["spec"]["resources"]["requests"]});
            self.objects.insert(key, claim);
        }
    }

    fn keep_deployment(&mut self, key: &Key) {
        let live = self.objects[key].clone();
        let replicas = live["spec"]["replicas"].as_u64().unwrap_or(1);
        let revision = revision(&live);
        let pods: Vec<String> = (0..replicas)
            .map(|n| format!("{}-{revision}-{n}", key.name))
            .collect();
        for pod in &pods {
            if !self.pods.contains_key(pod) {
                let process = Process {
                    component: Component::Api.as_str(),
                    owner: key.clone(),
                    uid: self.uid(),
                    revision: revision.clone(),
                    starts: START,
                };
                self.pods.insert(pod.clone(), process);
            }
        }
        // What served before goes when what comes is ready.
        let ready = pods.iter().filter(|pod| self.pods[*pod].starts == 0).count();
        if ready == pods.len() {
            self.pods
                .retain(|name, process| process.owner != *key || pods.contains(name));
        }
        let all = self.pods.values().filter(|process| process.owner == *key).count();
        self.objects.get_mut(key).expect("it is there")["status"] = json!({
            "observedGeneration": live["metadata"]["generation"],
            "replicas": all, "updatedReplicas": pods.len(), "readyReplicas": ready,
        });
    }

    fn run_job(&mut self, key: &Key) {
        let now = self.now.to_string();
        let live = self.objects.get_mut(key).expect("it is there");
        let image = live["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
        let fails = image.is_some_and(|image| image.contains(FAILING));
        let kind = if fails { "Failed" } else { "Complete" };
        if live["status"].is_null() {
            live["status"] = json!({"active": 1});
        } else if live["status"]["conditions"].is_null() {
            live["status"] = json!({"conditions": [{"type": kind, "status": "True", "message": "", "lastTransitionTime": now}]});
        }
    }

    fn autoscale(&mut self, key: &Key) {
        let bounds = self.objects[key]["spec"].clone();
        let target = Key::new(Kind::Deployment, &key.name);
        if let Some(live) = self.objects.get_mut(&target) {
            let replicas = live["spec"]["replicas"].as_i64().unwrap_or(1);
            let least = bounds["minReplicas"].as_i64().unwrap_or(1);
            let most = bounds["maxReplicas"].as_i64().unwrap_or(i64::MAX);
            let wanted = replicas.clamp(least, most);
            if wanted != replicas {
                self.scale(&target, wanted);
            }
        }
    }

    /// What an autoscaler writes.
    pub fn scale(&mut self, deployment: &Key, replicas: i64) {
        if let Some(live) = self.objects.get_mut(deployment) {
            live["spec"]["replicas"] = json!(replicas);
            hold_replicas(live, "kube-controller-manager");
        }
    }
}

fn hold_replicas(live: &mut Value, manager: &str) {
    live["metadata"]["managedFields"] =
        json!([{"manager": manager, "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
}

/// A JSON merge patch.
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (field, value) in patch {
                if value.is_null() {
                    target.remove(field);
                } else {
                    merge(target.entry(field.clone()).or_insert(json!({})), value);
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

fn revision(object: &Value) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    object["spec"]["template"].to_string().hash(&mut hasher);
    format!("{:08x}", hasher.finish() & 0xffff_ffff)
}
