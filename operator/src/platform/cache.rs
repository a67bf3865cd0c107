//! Watch caches of the objects that platforms consist of, and the signal that one of them has changed.

use std::collections::BTreeMap;

use crds::TankaPlatform;
use crds::names;
use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, DynamicObject};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;

use super::object::{Key, Kind};

/// The watched resource: an object that cannot be read stops nothing else.
pub type Guarded = DeserializeGuard<TankaPlatform>;

/// Caches of all watched kinds.
pub struct Caches {
    stores: BTreeMap<Kind, Store<DynamicObject>>,
}

/// Names of the platforms whose objects changed.
pub type Changes = SelectAll<BoxStream<'static, ObjectRef<Guarded>>>;

impl Caches {
    /// Starts to watch, in one namespace or in all. The caches fill while the returned stream is polled.
    pub fn watch(client: &Client, namespace: Option<&str>) -> (Self, Changes) {
        let mut stores = BTreeMap::new();
        let mut changes = SelectAll::new();
        for kind in Kind::WATCHED {
            let (store, stream) = watch_kind(client.clone(), namespace, kind);
            stores.insert(kind, store);
            changes.push(stream);
        }
        (Self { stores }, changes)
    }

    /// Whether every cache has been filled once.
    pub async fn ready(&self) -> bool {
        for store in self.stores.values() {
            if store.wait_until_ready().await.is_err() {
                return false;
            }
        }
        true
    }

    /// All cached objects of a platform.
    pub fn objects(&self, namespace: &str, platform: &str) -> BTreeMap<Key, Value> {
        let of_platform = |object: &DynamicObject| {
            object.metadata.namespace.as_deref() == Some(namespace)
                && object
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

fn watch_kind(
    client: Client,
    namespace: Option<&str>,
    kind: Kind,
) -> (Store<DynamicObject>, BoxStream<'static, ObjectRef<Guarded>>) {
    let resource = kind.api_resource();
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let writer = reflector::store::Writer::new(resource);
    let store = writer.as_reader();
    let selector = format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY);
    let stream = watcher(api, watcher::Config::default().labels(&selector))
        .default_backoff()
        .modify(move |object| {
            // Who owns which field matters only where an autoscaler takes a field over.
            if kind != Kind::Deployment {
                object.metadata.managed_fields = None;
            }
        })
        .reflect(writer)
        .touched_objects()
        .inspect_err(move |error| tracing::warn!(%error, kind = kind.as_str(), "a watch was interrupted and is tried again"))
        .filter_map(|object| async move {
            let object = object.ok()?;
            let platform = object.labels().get(names::PLATFORM_LABEL)?.clone();
            Some(ObjectRef::new(&platform).within(object.metadata.namespace.as_deref()?))
        });
    (store, stream.boxed())
}
