//! What answers in the pods: Patroni's REST API, a Sentinel, and the API's deep check.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crds::names;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

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
            let running = pods.filter(|(_, pod)| ready(pod) && !deleting(pod));
            self.members
                .insert(component, running.map(|(_, pod)| name(pod).to_owned()).collect());
        }
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
                merge(&mut self.config, body);
                (200, self.config.clone())
            }
            ("POST", "/switchover") => self.switch_over(body),
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

    fn cluster(&self) -> Value {
        let member = |member: &String| {
            let leads = Some(member) == self.leader.as_ref();
            json!({
                "name": member, "timeline": self.timeline, "lag": 0,
                "role": if leads { "leader" } else { "quorum_standby" },
                "state": if leads { "running" } else { "streaming" },
            })
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

    fn sentinel(&self, command: &[String]) -> String {
        let upper: Vec<String> = command.iter().map(|word| word.to_uppercase()).collect();
        let words: Vec<&str> = upper.iter().map(String::as_str).collect();
        let Some(primary) = &self.redis_primary else {
            return "-ERR No such master with that name\r\n".to_owned();
        };
        let set = primary.rsplit_once('-').map_or(primary.as_str(), |(set, _)| set);
        let host = format!("{primary}.{set}.{}.svc", self.namespace);
        let replicas = self.members["redis"].len() - 1;
        match words.as_slice() {
            ["SENTINEL", "MASTER", _] => {
                let count = replicas.to_string();
                array(&[
                    "name",
                    names::REDIS_MASTER_NAME,
                    "ip",
                    &host,
                    "port",
                    "6379",
                    "flags",
                    "master",
                    "num-slaves",
                    &count,
                ])
            }
            ["SENTINEL", "REPLICAS", _] => {
                let replica = array(&["flags", "slave", "master-link-status", "ok"]);
                format!("*{replicas}\r\n{}", replica.repeat(replicas))
            }
            ["SENTINEL", "CKQUORUM", _] => "+OK enough Sentinels can be reached\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
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

fn array(words: &[&str]) -> String {
    use std::fmt::Write as _;
    words
        .iter()
        .fold(format!("*{}\r\n", words.len()), |mut text, word| {
            let _ = write!(text, "${}\r\n{word}\r\n", word.len());
            text
        })
}

/// Serves Patroni's and the API's HTTP.
pub async fn http(listener: TcpListener, pod: String, operands: Arc<Mutex<Operands>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (pod, operands) = (pod.clone(), operands.clone());
        tokio::spawn(async move {
            let Some(mood) = listen(&operands).await else {
                return;
            };
            let service = service_fn(|request: Request<Incoming>| {
                let (pod, operands) = (pod.clone(), operands.clone());
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body
                        .collect()
                        .await
                        .map(http_body_util::Collected::to_bytes)
                        .unwrap_or_default();
                    let body = serde_json::from_slice(&body).unwrap_or_default();
                    let (code, answer) =
                        operands
                            .lock()
                            .unwrap()
                            .answer(&pod, &parts.method, parts.uri.path(), &body);
                    let text = if mood == Mood::Garbage {
                        "{\"members\": [7".to_owned()
                    } else {
                        answer.to_string()
                    };
                    let response = Response::builder()
                        .status(code)
                        .body(Full::new(Bytes::from(text)));
                    Ok::<_, Infallible>(response.unwrap())
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

/// Serves a Sentinel's protocol.
pub async fn sentinel(listener: TcpListener, operands: Arc<Mutex<Operands>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let operands = operands.clone();
        tokio::spawn(async move {
            let Some(mood) = listen(&operands).await else {
                return;
            };
            let mut socket = BufReader::new(socket);
            while let Some(command) = command(&mut socket).await {
                let answer = if mood == Mood::Garbage {
                    "?\r\n".to_owned()
                } else {
                    operands.lock().unwrap().sentinel(&command)
                };
                if socket.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Waits out a silence; nobody listens where connections are closed.
async fn listen(operands: &Mutex<Operands>) -> Option<Mood> {
    loop {
        let mood = operands.lock().unwrap().mood;
        match mood {
            Mood::Closed => return None,
            Mood::Silent => sleep(Duration::from_millis(50)).await,
            mood => return Some(mood),
        }
    }
}

/// One command: an array of strings with their lengths.
async fn command(socket: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let count = header(socket, '*').await?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let mut word = vec![0; header(socket, '$').await? + 2];
        socket.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(words)
}

async fn header(socket: &mut BufReader<TcpStream>, mark: char) -> Option<usize> {
    let mut line = String::new();
    socket.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(mark)?.parse().ok()
}
