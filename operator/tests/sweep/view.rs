//! What is really on the API server, followed by watches that no fault touches: the puppet acts on it, the oracles judge it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::sync::watch;

/// Resources that a platform can consist of, with group, version and kind.
pub const RESOURCES: [(&str, &str, &str, &str); 16] = [
    ("tankaplatforms", "tanka.dev", "v1alpha1", "TankaPlatform"),
    ("secrets", "", "v1", "Secret"),
    ("configmaps", "", "v1", "ConfigMap"),
    ("services", "", "v1", "Service"),
    ("serviceaccounts", "", "v1", "ServiceAccount"),
    ("pods", "", "v1", "Pod"),
    ("persistentvolumeclaims", "", "v1", "PersistentVolumeClaim"),
    ("roles", "rbac.authorization.k8s.io", "v1", "Role"),
    ("rolebindings", "rbac.authorization.k8s.io", "v1", "RoleBinding"),
    ("statefulsets", "apps", "v1", "StatefulSet"),
    ("deployments", "apps", "v1", "Deployment"),
    ("jobs", "batch", "v1", "Job"),
    (
        "horizontalpodautoscalers",
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
    ),
    ("poddisruptionbudgets", "policy", "v1", "PodDisruptionBudget"),
    ("networkpolicies", "networking.k8s.io", "v1", "NetworkPolicy"),
    ("ingresses", "networking.k8s.io", "v1", "Ingress"),
];

/// Plural of the resource, and name.
pub type Key = (&'static str, String);
/// Objects of one namespace.
pub type Objects = BTreeMap<Key, Arc<Value>>;

/// How the API server is asked for a resource.
pub fn resource(plural: &str) -> ApiResource {
    let (plural, group, version, kind) = RESOURCES
        .into_iter()
        .find(|row| row.0 == plural)
        .unwrap_or_else(|| panic!("{plural} is no resource of a platform"));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

struct Space {
    objects: Objects,
    version: watch::Sender<u64>,
    /// Data of each Secret as it was first seen, by uid and by name.
    secrets: BTreeMap<String, Value>,
    changed_secrets: BTreeSet<String>,
}

/// All namespaces that were opened.
pub struct View {
    spaces: Mutex<HashMap<String, Space>>,
}

impl View {
    /// Follows everything, for as long as the process lives.
    pub fn start(client: &Client) -> Arc<Self> {
        let view = Arc::new(Self {
            spaces: Mutex::default(),
        });
        for (plural, ..) in RESOURCES {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(plural));
            let view = view.clone();
            tokio::spawn(async move {
                let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
                let mut listed = BTreeSet::new();
                while let Some(event) = events.next().await {
                    match event {
                        Ok(watcher::Event::Init) => listed.clear(),
                        Ok(watcher::Event::InitApply(object)) => {
                            listed.insert(object.uid());
                            view.put(plural, object);
                        }
                        Ok(watcher::Event::InitDone) => view.forget_unlisted(plural, &listed),
                        Ok(watcher::Event::Apply(object)) => view.put(plural, object),
                        Ok(watcher::Event::Delete(object)) => view.remove(plural, &object),
                        Err(error) => eprintln!("the harness's watch of {plural}: {error}"),
                    }
                }
            });
        }
        view
    }

    /// Begins to remember a namespace; before anything is made in it.
    pub fn open(&self, namespace: &str) {
        let space = Space {
            objects: Objects::new(),
            version: watch::Sender::new(0),
            secrets: BTreeMap::new(),
            changed_secrets: BTreeSet::new(),
        };
        self.spaces.lock().unwrap().insert(namespace.to_owned(), space);
    }

    /// Forgets it.
    pub fn close(&self, namespace: &str) {
        self.spaces.lock().unwrap().remove(namespace);
    }

    /// Moves with every change in the namespace.
    pub fn changes(&self, namespace: &str) -> watch::Receiver<u64> {
        self.spaces.lock().unwrap()[namespace].version.subscribe()
    }

    /// Everything in the namespace, now.
    pub fn objects(&self, namespace: &str) -> Objects {
        let spaces = self.spaces.lock().unwrap();
        spaces
            .get(namespace)
            .map(|space| space.objects.clone())
            .unwrap_or_default()
    }

    /// Names of Secrets whose values were not always the same.
    pub fn changed_secrets(&self, namespace: &str) -> BTreeSet<String> {
        self.spaces.lock().unwrap()[namespace].changed_secrets.clone()
    }

    fn put(&self, plural: &'static str, object: DynamicObject) {
        self.change(object, |space, name, object| {
            if plural == "secrets" {
                let first = space
                    .secrets
                    .entry(name.clone())
                    .or_insert_with(|| object["data"].clone());
                if *first != object["data"] {
                    space.changed_secrets.insert(name.clone());
                }
            }
            space.objects.insert((plural, name), Arc::new(object));
        });
    }

    fn remove(&self, plural: &'static str, object: &DynamicObject) {
        self.change(object.clone(), |space, name, _| {
            space.objects.remove(&(plural, name));
        });
    }

    fn change(&self, object: DynamicObject, act: impl FnOnce(&mut Space, String, Value)) {
        let Some(namespace) = object.namespace() else {
            return;
        };
        let mut spaces = self.spaces.lock().unwrap();
        if let Some(space) = spaces.get_mut(&namespace) {
            let name = object.name_any();
            act(space, name, serde_json::to_value(object).unwrap());
            space.version.send_modify(|version| *version += 1);
        }
    }

    fn forget_unlisted(&self, plural: &'static str, listed: &BTreeSet<Option<String>>) {
        for space in self.spaces.lock().unwrap().values_mut() {
            space.objects.retain(|key, object| {
                key.0 != plural || listed.contains(&object["metadata"]["uid"].as_str().map(str::to_owned))
            });
            space.version.send_modify(|version| *version += 1);
        }
    }
}
