//! Watch caches of the objects that platforms consist of, and the signal that one of them has changed.

mod optional;
pub mod packed;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::TankaPlatform;
use crds::names;
use futures::stream::{BoxStream, SelectAll, select_all};
use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, DynamicObject, TypeMeta};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::optional::{Discovery, Optional};
use self::packed::{Packed, platform_of};
use super::object::{Key, Kind};
use super::observe::apis::Apis;
use super::pending::Pending;
use crate::connections::{Connections, Seat};

/// The watched resource: an object that cannot be read stops nothing else.
pub type Guarded = DeserializeGuard<TankaPlatform>;

/// Annotation that named the class of an Ingress before there was a field for it.
pub const LEGACY_CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Annotation of the IngressClass that is taken where none is named.
pub const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";
/// Longer than the first lists take.
const FILL_DEADLINE: Duration = Duration::from_secs(10);

/// Watch caches, a set for each namespace that holds a platform: nowhere else may the operator read.
pub struct Caches {
    connections: Connections,
    pending: Pending,
    shared: Arc<Shared>,
    namespaces: Mutex<HashMap<String, Arc<NamespaceCache>>>,
}

/// What all namespaces have in common.
struct Shared {
    discovery: Discovery,
    /// Kinds that belong to no namespace.
    cluster: Optional,
    /// Ingresses by namespace: who else routes a host.
    ingresses: Mutex<HashMap<String, Store<Packed>>>,
    _watches: Watches,
}

/// Caches of all watched kinds in one namespace. They are kept up to date as long as this lives.
pub struct NamespaceCache {
    stores: BTreeMap<Kind, Store<Packed>>,
    optional: Optional,
    shared: Arc<Shared>,
    _watches: Watches,
    _seat: Seat,
}

/// A task that ends with its owner.
struct Watches(JoinHandle<()>);

impl Drop for Watches {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What went wrong with a watch last; `None` while it works.
type Trouble = Arc<Mutex<Option<String>>>;

impl Caches {
    /// No namespace is watched yet. `whole_cluster` says whether kinds that belong to no namespace may be watched. Must be called
    /// inside the runtime.
    pub fn new(connections: Connections, pending: Pending, whole_cluster: bool) -> Self {
        let client = &connections.requests;
        let discovery = Discovery::start(client.clone());
        let kinds = Kind::OPTIONAL
            .into_iter()
            .filter(|kind| kind.is_cluster_scoped() && whole_cluster);
        let (cluster, streams) = Optional::watch(client, None, kinds, &discovery);
        let watches = tokio::spawn(select_all(streams).for_each(|_| ready(())));
        let shared = Shared {
            discovery,
            cluster,
            ingresses: Mutex::default(),
            _watches: Watches(watches),
        };
        Self {
            connections,
            pending,
            shared: Arc::new(shared),
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
                .or_insert_with(|| {
                    Arc::new(NamespaceCache::watch(
                        self.connections.seat(),
                        namespace,
                        &self.pending,
                        &self.shared,
                    ))
                }),
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
        lock(&self.shared.ingresses).retain(|namespace, _| namespaces.contains(namespace));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NamespaceCache {
    fn watch(seat: Seat, namespace: &str, pending: &Pending, shared: &Arc<Shared>) -> Self {
        let mut stores = BTreeMap::new();
        let mut changes = SelectAll::new();
        for kind in Kind::WATCHED {
            let (store, stream) = watch_kind(seat.client.clone(), Some(namespace), kind, Trouble::default());
            if kind == Kind::Ingress {
                lock(&shared.ingresses).insert(namespace.to_owned(), store.clone());
            }
            stores.insert(kind, store);
            changes.push(stream);
        }
        let kinds = Kind::OPTIONAL
            .into_iter()
            .filter(|kind| !kind.is_cluster_scoped());
        let (optional, streams) = Optional::watch(&seat.client, Some(namespace), kinds, &shared.discovery);
        changes.extend(streams);
        let (namespace, pending) = (namespace.to_owned(), pending.clone());
        // One task for all kinds: it takes what they report, which is what fills the stores.
        let watches = tokio::spawn(changes.for_each(move |platform| {
            pending.mark((namespace.clone(), platform));
            ready(())
        }));
        Self {
            stores,
            optional,
            shared: Arc::clone(shared),
            _watches: Watches(watches),
            _seat: seat,
        }
    }

    /// Whether every cache has been filled once.
    async fn ready(&self) -> bool {
        for store in self.stores.values() {
            if store.wait_until_ready().await.is_err() {
                return false;
            }
        }
        self.optional.settled().await && self.shared.cluster.settled().await
    }

    /// Which optional APIs can be used now.
    pub fn apis(&self) -> Apis {
        self.optional.apis()
    }

    /// Ingresses of all namespaces that hold a platform, of whomever.
    pub fn ingresses(&self) -> Vec<Arc<Packed>> {
        lock(&self.shared.ingresses)
            .values()
            .flat_map(Store::state)
            .collect()
    }

    /// All objects of an optional kind, of whomever; `None` where they cannot be seen.
    pub fn whole(&self, kind: Kind) -> Option<Vec<Arc<Packed>>> {
        let caches = if kind.is_cluster_scoped() {
            &self.shared.cluster
        } else {
            &self.optional
        };
        caches.store(kind).map(|store| store.state())
    }

    /// All cached objects of a platform.
    pub fn objects(&self, platform: &str) -> BTreeMap<Key, Value> {
        let mut objects = BTreeMap::new();
        let optional = self.optional.stores();
        let stores = self.stores.iter().map(|(kind, store)| (*kind, store));
        for (kind, store) in stores.chain(optional.iter().map(|(kind, store)| (*kind, store))) {
            for object in store.state() {
                if object.platform() == Some(platform) {
                    objects.insert(Key::new(kind, object.name()), object.value());
                }
            }
        }
        objects
    }
}

/// A store, and the names of the platforms whose objects in it change.
fn watch_kind(
    client: Client,
    namespace: Option<&str>,
    kind: Kind,
    trouble: Trouble,
) -> (Store<Packed>, BoxStream<'static, String>) {
    let resource = kind.api_resource();
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let types = TypeMeta {
        api_version: resource.api_version.clone(),
        kind: resource.kind.clone(),
    };
    let mut writer = reflector::store::Writer::new(kind);
    let store = writer.as_reader();
    let mut config = watcher::Config::default();
    if !kind.is_watched_whole() {
        config = config.labels(&format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY));
    }
    let works = Arc::clone(&trouble);
    let stream = watcher(api, config)
        .default_backoff()
        .map_ok(move |event| {
            let event = packed(kind, &types, event);
            writer.apply_watcher_event(&event);
            event
        })
        .touched_objects()
        .inspect_ok(move |_| *lock(&works) = None)
        .inspect_err(move |error| {
            tracing::warn!(%error, kind = kind.as_str(), "a watch was interrupted and is tried again");
            *lock(&trouble) = Some(error.to_string());
        })
        .filter_map(|object| {
            ready(
                object
                    .ok()
                    .and_then(|object| object.platform().map(str::to_owned)),
            )
        });
    (store, stream.boxed())
}

/// What a watch tells, as the caches keep it. Lists leave out of each item what the list itself says; without `types` nothing that was
/// listed would equal what we send, and a process that has just started would send everything at every look.
fn packed(kind: Kind, types: &TypeMeta, event: watcher::Event<DynamicObject>) -> watcher::Event<Packed> {
    let pack = |mut object: DynamicObject| {
        object.types = Some(types.clone());
        slim(kind, &mut object);
        Packed::new(&object)
    };
    match event {
        watcher::Event::Apply(object) => watcher::Event::Apply(pack(object)),
        watcher::Event::Delete(object) => watcher::Event::Delete(pack(object)),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(object) => watcher::Event::InitApply(pack(object)),
        watcher::Event::InitDone => watcher::Event::InitDone,
    }
}

/// Leaves out what no decision needs.
fn slim(kind: Kind, object: &mut DynamicObject) {
    // Who owns which field matters only where an autoscaler takes a field over.
    if kind != Kind::Deployment {
        object.metadata.managed_fields = None;
    }
    if !kind.is_watched_whole() || platform_of(object).is_some() {
        return;
    }
    object
        .annotations_mut()
        .retain(|name, _| [LEGACY_CLASS_ANNOTATION, DEFAULT_CLASS_ANNOTATION].contains(&name.as_str()));
    let spec = object.data["spec"].take();
    object.data = match kind {
        Kind::Gateway => json!({"spec": {"listeners": spec["listeners"]}}),
        Kind::Ingress => {
            json!({"spec": {"ingressClassName": spec["ingressClassName"], "rules": spec["rules"]}})
        }
        _ => json!({"spec": {"controller": spec["controller"]}}),
    };
}
