//! Steps that must never be taken, whatever goes wrong: judged at the moment in which a request is carried out.

use std::sync::{Arc, Mutex};

use crds::names;
use serde_json::Value;

use crate::call::Call;
use crate::incarnation::PLATFORM;
use crate::puppet::Operands;
use crate::view::{Objects, View};

/// Judges the requests to one namespace.
pub struct Referee {
    namespace: String,
    view: Arc<View>,
    operands: Arc<Mutex<Operands>>,
    /// Whether an autoscaler owns the number of pods from beginning to end.
    autoscaled: bool,
    fouls: Mutex<Vec<String>>,
}

impl Referee {
    /// Judges by what is really there.
    pub fn new(namespace: &str, view: Arc<View>, operands: Arc<Mutex<Operands>>, autoscaled: bool) -> Self {
        Self {
            namespace: namespace.to_owned(),
            view,
            operands,
            autoscaled,
            fouls: Mutex::default(),
        }
    }

    /// Judges a request that is about to be carried out.
    pub fn judge(&self, call: &Call, body: &Value) {
        if !call.writes() {
            return;
        }
        let world = self.view.objects(&self.namespace);
        if let Some(foul) = self.foul(call, body, &world) {
            self.fouls.lock().unwrap().push(foul);
        }
    }

    /// Forgets what was before the workload.
    pub fn clear(&self) {
        self.fouls.lock().unwrap().clear();
    }

    /// What was done wrong so far.
    pub fn fouls(&self) -> Vec<String> {
        let mut fouls = self.fouls.lock().unwrap().clone();
        for secret in self.view.changed_secrets(&self.namespace) {
            fouls.push(format!("the values of Secret {secret} changed"));
        }
        fouls
    }

    fn foul(&self, call: &Call, body: &Value, world: &Objects) -> Option<String> {
        let (verb, name) = (call.identity.verb, call.identity.name.as_str());
        if call.namespace.as_deref() != Some(self.namespace.as_str()) {
            return Some(format!(
                "{verb} {} {name} outside the namespace",
                call.identity.resource
            ));
        }
        match (verb, call.identity.resource.as_str()) {
            ("patch", "secrets") if changes_owners_alone(body) => None,
            ("patch" | "update" | "delete", "secrets") => Some(format!("{verb} of Secret {name}")),
            ("delete", resource) if body["preconditions"]["uid"].as_str().is_none() => {
                Some(format!("delete of {resource} {name} without the uid"))
            }
            ("delete", "persistentvolumeclaims") if retains(world) => {
                Some(format!("delete of volume {name}, which is to be retained"))
            }
            ("delete", "pods") | ("create", "pods/eviction") => self.foul_of_deletion(name, world),
            ("patch", "deployments") if self.takes_replicas(call, body) => Some(format!(
                "spec.replicas of {name} is sent although an autoscaler owns it"
            )),
            ("patch", "statefulsets") => shrinks(name, body, world),
            _ => None,
        }
    }

    fn takes_replicas(&self, call: &Call, body: &Value) -> bool {
        self.autoscaled
            && call.manager.as_deref() == Some(names::FIELD_MANAGER)
            && !body["spec"]["replicas"].is_null()
    }

    fn foul_of_deletion(&self, name: &str, world: &Objects) -> Option<String> {
        let set = names::component(PLATFORM, names::Component::Postgres);
        let wanted = world.get(&("statefulsets", set.clone()))?["spec"]["replicas"].as_u64()?;
        let pod = world.get(&("pods", name.to_owned()))?;
        if pod["metadata"]["labels"][names::COMPONENT_LABEL] != "postgres" || wanted < 2 {
            return None;
        }
        let operands = self.operands.lock().unwrap();
        let others = operands.instances().iter().filter(|other| *other != name).count() as u64;
        if others + 1 < wanted {
            return Some(format!("{name} is deleted while another instance is not there"));
        }
        (operands.leader() == Some(name) && others == 0)
            .then(|| format!("primary {name} is deleted without a healthy replica"))
    }
}

/// Whether a patch, tied to one object, says nothing but whose it is.
fn changes_owners_alone(body: &Value) -> bool {
    let only = |value: &Value, allowed: &[&str]| {
        value
            .as_object()
            .is_some_and(|fields| fields.keys().all(|field| allowed.contains(&field.as_str())))
    };
    only(body, &["metadata"])
        && only(&body["metadata"], &["uid", "resourceVersion", "ownerReferences"])
        && body["metadata"]["uid"].is_string()
}

fn retains(world: &Objects) -> bool {
    let platform = world.get(&("tankaplatforms", PLATFORM.to_owned()));
    platform.is_none_or(|platform| platform["spec"]["deletionPolicy"] != "Delete")
}

/// A StatefulSet that gets fewer members although the platform, as it is stored now, does not ask for that.
fn shrinks(name: &str, body: &Value, world: &Objects) -> Option<String> {
    let sent = body["spec"]["replicas"].as_u64()?;
    let live = world.get(&("statefulsets", name.to_owned()))?["spec"]["replicas"].as_u64()?;
    let spec = &world.get(&("tankaplatforms", PLATFORM.to_owned()))?["spec"];
    let wanted = if name.ends_with("postgres") {
        &spec["postgres"]["managed"]["instances"]
    } else {
        &spec["redis"]["managed"]["replicas"]
    };
    (sent < live && wanted.as_u64()? >= live)
        .then(|| format!("{name} shrinks from {live} to {sent} although {wanted} are asked for"))
}
