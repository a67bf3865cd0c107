//! Watch caches of the objects that platforms consist of, and the signal that one of them has changed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::TankaPlatform;
use crds::names;
use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, DynamicObject, TypeMeta};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::object::{Key, Kind};
use super::pending::Pending;

/// The watched resource: an object that cannot be read stops nothing else.
pub type Guarded = DeserializeGuard<TankaPlatform>;

/// Longer than the first lists take.
const FILL_DEADLINE: Duration = Duration::from_secs(10);

/// Watch caches, a set for each namespace that holds a platform: nowhere else may the operator read.
pub struct Caches {
    client: Client,
    pending: Pending,
    namespaces: Mutex<HashMap<String, Arc<NamespaceCache>>>,
}

/// Caches of all watched kinds in one namespace. They are kept up to date as long as this lives.
pub struct NamespaceCache {
    stores: BTreeMap<Kind, Store<DynamicObject>>,
    watches: JoinHandle<()>,
}

impl Drop for NamespaceCache {
    fn drop(&mut self) {
        self.watches.abort();
    }
}

impl Caches {
    /// No namespace is watched yet.
    pub fn new(client: Client, pending: Pending) -> Self {
        Self {
            client,
            pending,
            namespaces: Mutex::default(),
        }
    }

    /// The caches of a namespace, filled. The first who asks makes the operator watch there.
    ///
    /// # Errors
    /// When they are not filled in time, because the API server is slow or refuses.
    pub async fn of(&self, namespace: &str) -> Result<Arc<NamespaceCache>, kube::Error> {
        let cache = Arc::clone(
            lock(&self.namespaces)
                .entry(namespace.to_owned())
                .or_insert_with(|| Arc::new(NamespaceCache::watch(&self.client, namespace, &self.pending))),
        );
        match timeout(FILL_DEADLINE, cache.ready()).await {
            Ok(true) => Ok(cache),
            _ => Err(kube::Error::Service(
                format!("the objects in namespace {namespace} could not be listed in time").into(),
            )),
        }
    }

    /// Stops to watch where no platform is left.
    pub fn keep_only(&self, namespaces: &HashSet<String>) {
        lock(&self.namespaces).retain(|namespace, _| namespaces.contains(namespace));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NamespaceCache {
    fn watch(client: &Client, namespace: &str, pending: &Pending) -> Self {
        let mut stores = BTreeMap::new();
        let mut changes = SelectAll::new();
        for kind in Kind::WATCHED {
            let (store, stream) = watch_kind(client.clone(), namespace, kind);
            stores.insert(kind, store);
            changes.push(stream);
        }
        let (namespace, pending) = (namespace.to_owned(), pending.clone());
        // One task for all kinds: it takes what they report, which is what fills the stores.
        let watches = tokio::spawn(changes.for_each(move |platform| {
            pending.mark((namespace.clone(), platform));
            ready(())
        }));
        Self { stores, watches }
    }

    /// Whether every cache has been filled once.
    async fn ready(&self) -> bool {
        for store in self.stores.values() {
            if store.wait_until_ready().await.is_err() {
                return false;
            }
        }
        true
    }

    /// All cached objects of a platform.
    pub fn objects(&self, platform: &str) -> BTreeMap<Key, Value> {
        let of_platform = |object: &DynamicObject| {
            object
                .labels()
                .get(names::PLATFORM_LABEL)
                .is_some_and(|name| name == platform)
        };
        let mut objects = BTreeMap::new();
        for (kind, store) in &self.stores {
            for object in store.state().into_iter().filter(|object| of_platform(object)) {
                if let Ok(value) = serde_json::to_value(&*object) {
                    objects.insert(Key::new(*kind, object.name_any()), value);
                }
            }
        }
        objects
    }
}

/// A store, and the names of the platforms whose objects in it change.
fn watch_kind(
    client: Client,
    namespace: &str,
    kind: Kind,
) -> (Store<DynamicObject>, BoxStream<'static, String>) {
    let resource = kind.api_resource();
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
    // Lists leave out of each item what the list itself says. Without it nothing that was listed would equal what we send, and a
    // process that has just started would send everything at every look.
    let types = TypeMeta {
        api_version: resource.api_version.clone(),
        kind: resource.kind.clone(),
    };
    let writer = reflector::store::Writer::new(resource);
    let store = writer.as_reader();
    let selector = format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY);
    let stream = watcher(api, watcher::Config::default().labels(&selector))
        .default_backoff()
        .modify(move |object| {
            object.types = Some(types.clone());
            // Who owns which field matters only where an autoscaler takes a field over.
            if kind != Kind::Deployment {
                object.metadata.managed_fields = None;
            }
        })
        .reflect(writer)
        .touched_objects()
        .inspect_err(move |error| tracing::warn!(%error, kind = kind.as_str(), "a watch was interrupted and is tried again"))
        .filter_map(|object| ready(object.ok().and_then(|object| object.labels().get(names::PLATFORM_LABEL).cloned())));
    (store, stream.boxed())
}
