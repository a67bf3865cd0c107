//! Plays, in one namespace, everything that a cluster has beside its API server: the controllers of StatefulSets, Deployments and
//! Jobs, the garbage collector, scheduler and kubelet, and in the pods Patroni, Sentinel and the API's deep check. Only here, where
//! no data is: whatever tests data runs the real programs.

mod collector;
mod deployments;
mod hands;
mod jobs;
mod kubelet;
mod operands;
mod sets;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kube::Client;
use serde_json::Value;
use tokio::task::JoinHandle;

use self::hands::Hands;
use self::kubelet::Serving;
pub use self::operands::{Mood, Operands};
use crate::view::{Objects, View};

/// Changes that come within this time are looked at together.
const BREATH: std::time::Duration = std::time::Duration::from_millis(15);

/// The puppet of one namespace. It stops when it is dropped.
pub struct Puppet {
    /// What answers in the pods.
    pub operands: Arc<Mutex<Operands>>,
    task: JoinHandle<()>,
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Puppet {
    /// Starts to play in a namespace that was opened in the view.
    pub fn start(client: Client, view: Arc<View>, namespace: &str) -> Self {
        let operands = Arc::new(Mutex::new(Operands::new(namespace)));
        let mut player = Player {
            hands: Hands::new(client, namespace),
            operands: operands.clone(),
            serving: BTreeMap::new(),
        };
        let mut changes = view.changes(namespace);
        let namespace = namespace.to_owned();
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(BREATH).await;
                changes.borrow_and_update();
                player.play(&view.objects(&namespace)).await;
                // What was refused, since the view was behind, is tried again although nothing more happens.
                let pause = tokio::time::sleep(std::time::Duration::from_millis(500));
                tokio::select! {
                    closed = changes.changed() => if closed.is_err() { return },
                    () = pause => {}
                }
            }
        });
        Self { operands, task }
    }
}

struct Player {
    hands: Hands,
    operands: Arc<Mutex<Operands>>,
    serving: BTreeMap<String, Serving>,
}

impl Player {
    async fn play(&mut self, world: &Objects) {
        collector::collect(&self.hands, world).await;
        for ((plural, _), object) in world {
            if deleting(object) {
                continue;
            }
            match *plural {
                "statefulsets" => sets::keep(&self.hands, world, object).await,
                "deployments" => deployments::keep(&self.hands, world, object).await,
                "jobs" => jobs::keep(&self.hands, world, object).await,
                _ => {}
            }
        }
        kubelet::keep(&self.hands, world, &mut self.serving, &self.operands).await;
        let labels = self.operands.lock().unwrap().look(world);
        for (pod, label) in labels {
            self.hands.merge("pods", &pod, &label).await;
        }
    }
}

/// Whether an object is on its way out.
fn deleting(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn owned_by(object: &Value, uid: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == *uid))
}

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// Pods of a controller that are not on their way out, in the order of their names.
fn pods_of<'a>(world: &'a Objects, owner: &'a Value) -> impl Iterator<Item = &'a Value> {
    let uid = &owner["metadata"]["uid"];
    world
        .iter()
        .filter(move |((plural, _), pod)| *plural == "pods" && owned_by(pod, uid) && !deleting(pod))
        .map(|(_, pod)| &**pod)
}

/// A digest of a pod template, as revisions are named by it.
fn revision(object: &Value) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let template = object["spec"]["template"].to_string();
    // The same in every namespace, so that runs can be compared.
    template.replace(namespace, "NAMESPACE").hash(&mut hasher);
    format!("{:08x}", hasher.finish() & 0xffff_ffff)
}
