//! Caches of kinds that a cluster may have or not. Discovery is asked again and again, so that a definition that is installed while
//! the operator runs is picked up, and one that is removed is let go of; no right beyond discovery is needed for that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use futures::stream::{self, BoxStream, StreamExt};
use kube::Client;
use kube::runtime::reflector::Store;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::packed::Packed;
use super::{Trouble, Watches, lock, watch_kind};
use crate::platform::deadline::bounded;
use crate::platform::object::Kind;
use crate::platform::observe::apis::{Apis, Availability};

/// Time between two questions to discovery. With a look every five seconds it bounds the time until a new API is used.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long the first look waits for caches that may never fill, because the operator may not read the kind.
const SETTLE: Duration = Duration::from_secs(5);

/// Whether each kind is served; absent while discovery has not been asked.
type Served = BTreeMap<Kind, bool>;

/// What the API server offers, asked again and again.
pub struct Discovery {
    served: watch::Receiver<Served>,
    _asking: Watches,
}

impl Discovery {
    /// Begins to ask. Must be called inside the runtime.
    pub fn start(client: Client) -> Self {
        let (announce, served) = watch::channel(Served::new());
        Self {
            served,
            _asking: Watches(tokio::spawn(ask(client, announce))),
        }
    }
}

/// Caches of optional kinds.
pub struct Optional {
    kinds: Vec<Kind>,
    served: watch::Receiver<Served>,
    open: watch::Sender<BTreeMap<Kind, Cache>>,
    settled: AtomicBool,
}

#[derive(Clone)]
struct Cache {
    store: Store<Packed>,
    trouble: Trouble,
}

impl Cache {
    fn is_filled(&self) -> bool {
        self.store.wait_until_ready().now_or_never().is_some()
    }
}

impl Optional {
    /// Watches what discovery names, in one namespace or in all, while the returned streams are polled. They yield names of platforms.
    pub fn watch(
        client: &Client,
        namespace: Option<&str>,
        kinds: impl Iterator<Item = Kind>,
        discovery: &Discovery,
    ) -> (Self, Vec<BoxStream<'static, String>>) {
        let optional = Self {
            kinds: kinds.collect(),
            served: discovery.served.clone(),
            open: watch::Sender::new(BTreeMap::new()),
            settled: AtomicBool::new(false),
        };
        let stream = |kind: &Kind| {
            let namespace = namespace.map(str::to_owned);
            follow(
                client.clone(),
                namespace,
                *kind,
                optional.served.clone(),
                optional.open.clone(),
            )
        };
        let streams = optional.kinds.iter().map(stream).collect();
        (optional, streams)
    }

    /// Waits, the first time, until discovery has answered for every kind and what it named has been read, or cannot be.
    pub async fn settled(&self) -> bool {
        if self.settled.load(Ordering::Relaxed) {
            return true;
        }
        let known = |served: &Served| self.kinds.iter().all(|kind| served.contains_key(kind));
        let Ok(served) = self
            .served
            .clone()
            .wait_for(known)
            .await
            .map(|served| served.clone())
        else {
            return false;
        };
        let present: BTreeSet<Kind> = served
            .into_iter()
            // What another cache watches never opens here.
            .filter_map(|(kind, is)| (is && self.kinds.contains(&kind)).then_some(kind))
            .collect();
        let filled = async {
            let opened = |open: &BTreeMap<Kind, Cache>| present.iter().all(|kind| open.contains_key(kind));
            let mut open = self.open.subscribe();
            let Ok(caches) = open.wait_for(opened).await.map(|caches| caches.clone()) else {
                return;
            };
            join_all(caches.values().map(|cache| cache.store.wait_until_ready())).await;
        };
        let _ = timeout(SETTLE, filled).await;
        self.settled.store(true, Ordering::Relaxed);
        true
    }

    /// What can be used now.
    pub fn apis(&self) -> Apis {
        let served = self.served.borrow();
        let open = self.open.borrow();
        let availability = |kind: &Kind| match open.get(kind) {
            Some(cache) if cache.is_filled() => Availability::Usable,
            Some(cache) => {
                let words = lock(&cache.trouble).clone();
                Availability::Unreadable(words.unwrap_or_else(|| "it has not been read yet".to_owned()))
            }
            None if served.get(kind) == Some(&true) => {
                Availability::Unreadable("it has not been read yet".to_owned())
            }
            None => Availability::Absent,
        };
        Apis::new(self.kinds.iter().map(|kind| (*kind, availability(kind))))
    }

    /// Filled caches, by kind.
    pub fn stores(&self) -> Vec<(Kind, Store<Packed>)> {
        let open = self.open.borrow();
        let filled = open.iter().filter(|(_, cache)| cache.is_filled());
        filled.map(|(kind, cache)| (*kind, cache.store.clone())).collect()
    }

    /// The cache of a kind, if it is filled.
    pub fn store(&self, kind: Kind) -> Option<Store<Packed>> {
        let open = self.open.borrow();
        open.get(&kind)
            .filter(|cache| cache.is_filled())
            .map(|cache| cache.store.clone())
    }
}

async fn ask(client: Client, announce: watch::Sender<Served>) {
    let mut groups: BTreeMap<String, Vec<Kind>> = BTreeMap::new();
    for kind in Kind::OPTIONAL {
        groups
            .entry(kind.api_resource().api_version)
            .or_default()
            .push(kind);
    }
    loop {
        for (group, kinds) in &groups {
            if let Some(plurals) = plurals(&client, group).await {
                announce.send_if_modified(|served| {
                    let mut changed = false;
                    for kind in kinds {
                        let is = plurals.contains(&kind.api_resource().plural);
                        changed |= served.insert(*kind, is) != Some(is);
                    }
                    changed
                });
            }
        }
        sleep(INTERVAL).await;
    }
}

/// What an API group serves; `None` when that could not be learnt, so that what is known stays.
async fn plurals(client: &Client, group: &str) -> Option<BTreeSet<String>> {
    match bounded(client.list_api_group_resources(group)).await {
        Ok(list) => Some(list.resources.into_iter().map(|resource| resource.name).collect()),
        Err(kube::Error::Api(status)) if [401, 403, 404].contains(&status.code) => Some(BTreeSet::new()),
        Err(error) => {
            tracing::debug!(%error, group, "discovery did not answer");
            None
        }
    }
}

/// Watches a kind whenever it is served.
fn follow(
    client: Client,
    namespace: Option<String>,
    kind: Kind,
    served: watch::Receiver<Served>,
    open: watch::Sender<BTreeMap<Kind, Cache>>,
) -> BoxStream<'static, String> {
    let next = move |mut served: watch::Receiver<Served>| {
        let (client, namespace, open) = (client.clone(), namespace.clone(), open.clone());
        async move {
            // The channel ends with the process.
            served
                .wait_for(|served| served.get(&kind) == Some(&true))
                .await
                .ok()?;
            tracing::info!(kind = kind.as_str(), "an optional API is there");
            let trouble = Trouble::default();
            let (store, changes) = watch_kind(client, namespace.as_deref(), kind, Arc::clone(&trouble));
            open.send_modify(|open| {
                open.insert(kind, Cache { store, trouble });
            });
            let mut gone = served.clone();
            let ended = async move {
                let _ = gone.wait_for(|served| served.get(&kind) == Some(&false)).await;
                tracing::info!(kind = kind.as_str(), "an optional API is gone");
                open.send_modify(|open| {
                    open.remove(&kind);
                });
            };
            Some((changes.take_until(ended.boxed()), served))
        }
    };
    stream::unfold(served, next).flatten().boxed()
}
