//! Everything that decisions rest on, as one value: what the caches hold, and what Patroni, Sentinel and the API say about
//! themselves right now. Reading is in `probe`; here is what is read.

pub mod apis;
pub mod commands;
pub mod deep;
pub mod edge;
pub mod external;
pub mod patroni;
pub mod pods;
pub mod probe;
pub mod secrets;
pub mod sentinel;
pub mod silence;
pub mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crds::names::Component;
use jiff::Timestamp;
use serde_json::Value;

use self::apis::Apis;
use self::commands::Commands;
use self::deep::Deep;
use self::edge::Edge;
use self::external::Checked;
use self::patroni::{Cluster, Member};
use self::pods::{Pod, Problem};
use self::secrets::Reference;
use self::sentinel::Sentinel;
use self::state::StateMap;
use super::object::{Key, Kind};

/// The observed world of one platform.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    /// When this was observed.
    pub now: Timestamp,
    /// Live objects of the platform, by kind and name, as the watch caches hold them. Secrets and Patroni's ConfigMaps, which are
    /// read by name, are here with their metadata alone.
    pub objects: BTreeMap<Key, Value>,
    /// Its pods.
    pub pods: Vec<Pod>,
    /// Secrets of the names that the platform needs, with the keys in them.
    pub secrets: BTreeMap<String, BTreeSet<String>>,
    /// State of the keys that the spec names, by Secret and key.
    pub references: BTreeMap<(String, String), Reference>,
    /// What a migration says that waits for external services.
    pub checked: Option<Checked>,
    /// Pods that a quota or a policy refused to create, by component.
    pub refusals: BTreeMap<String, String>,
    /// Objects whose pods they are.
    pub refused: BTreeSet<Key>,
    /// Objects of a needed name that belong to somebody else, and requests that the API server refused, with its words.
    pub rejected: BTreeMap<Key, Rejection>,
    /// Objects that were changed in this look, or could not be: what their status says of pods is not about the spec. Filled in by
    /// carrying a plan out, for what is done after it.
    pub moved: BTreeSet<Key>,
    /// What Patroni says; `None` while no member answers.
    pub patroni: Option<Cluster>,
    /// What a Sentinel says; `None` while none answers.
    pub sentinel: Option<Sentinel>,
    /// Which optional APIs the cluster has.
    pub apis: Apis,
    /// What is around the way in.
    pub edge: Edge,
    /// What the API's own check says; `None` while no pod is ready, an error when none answered.
    pub deep: Option<Result<Deep, String>>,
    /// Replicas that do not stream although there is a primary, and for how long that has been seen.
    pub silent: BTreeMap<String, Duration>,
    /// What was asked of Patroni and of volumes lately, and what runs still.
    pub commands: Commands,
    /// `ConfigMaps` in which Patroni keeps its state; `None` when this look did not ask for them.
    pub patroni_state: Option<Vec<StateMap>>,
}

/// Why an object could not be made what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// Somebody else's object has the name.
    Foreign,
    /// The API server refused the request.
    Refused(String),
    /// It held credentials that nobody remembers and that something still holds.
    CredentialsLost,
}

impl World {
    /// Pods of a component that are not on their way out.
    pub fn pods_of(&self, component: Component) -> impl Iterator<Item = &Pod> {
        self.pods
            .iter()
            .filter(move |pod| pod.component == component.as_str() && !pod.deleting)
    }

    /// The member that takes writes. Patroni's word alone is not enough: a pod that is on its way out takes none, although the others
    /// still name it until it has let go of its lock.
    pub fn primary(&self) -> Option<&Member> {
        let primary = self.patroni.as_ref()?.primary()?;
        self.pods_of(Component::Postgres)
            .any(|pod| pod.name == primary.name)
            .then_some(primary)
    }

    /// Replicas that stream and whose pods are there: Patroni remembers one that is gone until its lease has ended.
    pub fn streaming(&self) -> impl Iterator<Item = &Member> {
        let cluster = self.patroni.as_ref();
        let members = cluster.into_iter().flat_map(Cluster::streaming);
        members.filter(|member| {
            self.pods_of(Component::Postgres)
                .any(|pod| pod.name == member.name)
        })
    }

    /// Replicas of Redis whose link is up and whose pods are ready: Sentinels remember one that is gone for a while.
    pub fn linked(&self) -> impl Iterator<Item = &String> {
        let linked = self.sentinel.iter().flat_map(|view| &view.linked);
        linked.filter(|name| {
            self.pods_of(Component::Redis)
                .any(|pod| pod.name == **name && pod.ready)
        })
    }

    /// The volume that a pod of a StatefulSet waits for, and where that should come from: the scheduler says neither.
    fn unbound_volume(&self, pod: &str) -> Option<String> {
        let (key, claim) = self.objects.iter().find(|(key, claim)| {
            key.kind == Kind::PersistentVolumeClaim
                && key.name.ends_with(&format!("-{pod}"))
                && claim["status"]["phase"] == "Pending"
        })?;
        Some(match claim["spec"]["storageClassName"].as_str() {
            Some(class) => format!("{key} is not bound by storage class \"{class}\""),
            None => format!("{key} names no storage class and the cluster has no default"),
        })
    }

    /// The first thing that keeps a component's pods from running.
    pub fn problem_of(&self, component: Component) -> Option<Problem> {
        let of_pods = self.pods_of(component).find_map(|pod| {
            let problem = pod.problem.clone()?;
            let volume = self.unbound_volume(&pod.name);
            Some(
                match volume.filter(|_| problem.reason == crds::conditions::Reason::VolumePending) {
                    Some(volume) => Problem {
                        message: format!("{volume}; {}", problem.message),
                        ..problem
                    },
                    None => problem,
                },
            )
        });
        of_pods.or_else(|| {
            let message = self.refusals.get(component.as_str())?.clone();
            Some(Problem {
                reason: crds::conditions::Reason::PodsRefused,
                message,
            })
        })
    }
}
