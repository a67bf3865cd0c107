//! What runs in the pods: Patroni with PostgreSQL, Redis with Sentinel, and the API's deep check.

mod redis;
pub mod serve;

use std::collections::{BTreeMap, BTreeSet};

use crds::names;
use hyper::Method;
use serde_json::{Value, json};

use super::{deleting, name, ready};
use crate::view::Objects;

/// How the pods answer the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    /// As they should.
    #[default]
    Honest,
    /// They take the question and never answer.
    Silent,
    /// They answer something that nobody can read.
    Garbage,
    /// They close the connection.
    Closed,
}

/// Parameters of PostgreSQL that take effect with a restart.
const RESTART_ONLY: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_wal_senders",
    "max_worker_processes",
    "shared_buffers",
];

/// The state of PostgreSQL and Redis in one namespace.
#[derive(Debug)]
pub struct Operands {
    namespace: String,
    /// How the pods answer.
    pub mood: Mood,
    /// Ready members of each set, by component.
    members: BTreeMap<&'static str, Vec<String>>,
    leader: Option<String>,
    timeline: i64,
    /// Patroni's dynamic configuration.
    config: Value,
    /// Parameters that instances wait for a restart with, by the uid of their pods: name, old and new value.
    pending: BTreeMap<String, BTreeMap<String, (Value, Value)>>,
    /// Uids of the pods of members.
    uids: BTreeMap<String, String>,
    redis_primary: Option<String>,
}

impl Operands {
    /// Nothing runs yet.
    pub fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            mood: Mood::Honest,
            members: BTreeMap::new(),
            leader: None,
            timeline: 0,
            config: json!({}),
            pending: BTreeMap::new(),
            uids: BTreeMap::new(),
            redis_primary: None,
        }
    }

    /// Takes in which pods run; elects where a primary is gone. Answers with labels that Patroni would set on its pods.
    pub fn look(&mut self, world: &Objects) -> Vec<(String, Value)> {
        let mut labels = Vec::new();
        for component in ["postgres", "redis"] {
            let pods = world.iter().filter(|((plural, _), pod)| {
                *plural == "pods" && pod["metadata"]["labels"][names::COMPONENT_LABEL] == component
            });
            let running: Vec<_> = pods.filter(|(_, pod)| ready(pod) && !deleting(pod)).collect();
            for (_, pod) in &running {
                let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
                self.uids.insert(name(pod).to_owned(), uid.to_owned());
            }
            let names = running.iter().map(|(_, pod)| name(pod).to_owned());
            self.members.insert(component, names.collect());
        }
        let uids: BTreeSet<&String> = self.uids.values().collect();
        self.pending.retain(|uid, _| uids.contains(uid));
        let elect = |current: &Option<String>, members: &[String]| {
            let stays = current.clone().filter(|leader| members.contains(leader));
            stays.or_else(|| members.first().cloned())
        };
        let leader = elect(&self.leader, &self.members["postgres"]);
        if leader.is_some() && leader != self.leader {
            self.timeline += 1;
        }
        self.leader = leader.or_else(|| self.leader.take());
        self.redis_primary = elect(&self.redis_primary, &self.members["redis"]);
        for member in &self.members["postgres"] {
            let role = if Some(member) == self.leader.as_ref() {
                "primary"
            } else {
                "replica"
            };
            let pod = &world[&("pods", member.clone())];
            if pod["metadata"]["labels"][names::PATRONI_ROLE_LABEL] != role {
                let patch = json!({"metadata": {"labels": {names::PATRONI_ROLE_LABEL: role}}});
                labels.push((member.clone(), patch));
            }
        }
        labels
    }

    /// Begins a new history: the first member leads.
    pub fn forget(&mut self) {
        self.leader = None;
        self.redis_primary = None;
        self.timeline = 0;
        self.config = json!({});
        self.pending.clear();
    }

    /// Name of the pod that takes writes.
    pub fn leader(&self) -> Option<&str> {
        let leader = self.leader.as_deref()?;
        self.members
            .get("postgres")?
            .iter()
            .find(|member| *member == leader)
            .map(String::as_str)
    }

    /// Instances that run.
    pub fn instances(&self) -> &[String] {
        self.members.get("postgres").map_or(&[], Vec::as_slice)
    }

    fn answer(&mut self, pod: &str, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        match (method.as_str(), path) {
            ("GET", "/cluster") => (200, self.cluster()),
            ("GET", "/primary") => (if self.leader() == Some(pod) { 200 } else { 503 }, json!({})),
            ("GET", "/config") => (200, self.config.clone()),
            ("PATCH", "/config") => {
                let before = self.config.clone();
                merge(&mut self.config, body);
                self.await_restarts(&before);
                (200, self.config.clone())
            }
            ("POST", "/restart") if self.instances().iter().any(|member| member == pod) => {
                self.pending.remove(&self.uids[pod]);
                (200, json!("restarted successfully"))
            }
            ("POST", "/restart") => (503, json!("postgres is not running")),
            ("POST", "/reinitialize") if self.leader() != Some(pod) => (200, json!("reinitialize started")),
            ("POST", "/reinitialize") => (503, json!("I am the leader, can not reinitialize")),
            ("POST", "/switchover") => self.switch_over(body),
            ("DELETE", "/switchover" | "/restart") => (404, json!("no such thing is scheduled")),
            ("GET", "/health/deep") => {
                let works = |works: bool| {
                    if works {
                        json!({"ok": true})
                    } else {
                        json!({"ok": false, "error": "nobody answers"})
                    }
                };
                let (database, cache) = (self.leader().is_some(), self.redis_primary.is_some());
                let checks =
                    json!({"write": works(database), "read": works(database), "redis": works(cache)});
                (if database && cache { 200 } else { 503 }, checks)
            }
            _ => (404, json!({})),
        }
    }

    /// Every instance that runs waits for a restart with what cannot be changed without one. At first there is nothing to differ from.
    fn await_restarts(&mut self, before: &Value) {
        for member in self.members["postgres"].clone() {
            let pending = self.pending.entry(self.uids[&member].clone()).or_default();
            for parameter in RESTART_ONLY {
                let path = format!("/postgresql/parameters/{parameter}");
                let (old, new) = (before.pointer(&path), self.config.pointer(&path));
                if let (Some(old), Some(new)) = (old, new)
                    && old != new
                {
                    let runs_with = pending
                        .remove(parameter)
                        .map_or_else(|| old.clone(), |(old, _)| old);
                    if runs_with != *new {
                        pending.insert(parameter.to_owned(), (runs_with, new.clone()));
                    }
                }
            }
        }
        self.pending.retain(|_, parameters| !parameters.is_empty());
    }

    fn cluster(&self) -> Value {
        let member = |member: &String| {
            let leads = Some(member) == self.leader.as_ref();
            let mut said = json!({
                "name": member, "timeline": self.timeline, "lag": 0,
                "role": if leads { "leader" } else { "quorum_standby" },
                "state": if leads { "running" } else { "streaming" },
            });
            if let Some(parameters) = self.pending.get(&self.uids[member]) {
                let reason = parameters
                    .iter()
                    .map(|(name, (old, new))| (name.clone(), json!({"old_value": old, "new_value": new})));
                said["pending_restart"] = json!(true);
                said["pending_restart_reason"] = reason.collect::<serde_json::Map<_, _>>().into();
            }
            said
        };
        json!({"members": self.instances().iter().map(member).collect::<Vec<_>>()})
    }

    fn switch_over(&mut self, body: &Value) -> (u16, Value) {
        let candidate = body["candidate"].as_str().map(str::to_owned);
        let others = self
            .instances()
            .iter()
            .find(|member| self.leader.as_ref() != Some(member));
        let next = candidate.or_else(|| others.cloned());
        match next.filter(|next| self.instances().contains(next)) {
            Some(next) => {
                self.timeline += 1;
                self.leader = Some(next);
                (200, json!("Successfully switched over"))
            }
            None => (412, json!("candidate does not exist")),
        }
    }
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
