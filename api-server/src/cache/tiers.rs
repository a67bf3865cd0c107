//! The way of a lookup through both tiers to the database, and of an invalidation back.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use crds::config::Config;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::counts::{CacheCounts, Outcome, of_kind};
use super::entry::{Content, Entry, life};
use super::flight::Flights;
use super::key::Key;
use super::kind::{Entity, Kind, Target};
use super::local::{Local, Stamp};
use super::news::Heard;
use super::shared::{Fill, LEASE, Look, Shared};
use crate::config::Live;
use crate::entropy;
use crate::redis_link::RedisLink;
use crate::routing::fleet::InvalidationSink;
use crate::routing::{Fleet, Position, Read, Scope, Served, StoreError, is_busy};
use crate::tally;

/// Share of the connections of this process that may compute answers at the same time; the others wait their turn, so that an empty cache
/// does not take every connection from what cannot be cached (F48).
const SHARE: u32 = 2;
/// Limit of one load, whatever the patience of whoever asked first.
const LOAD: Duration = Duration::from_secs(8);
/// First and longest pause while another process loads.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(40));
/// How long after its end an entry may be served when it cannot be computed anew.
const GRACE: Duration = Duration::from_secs(30);

/// A read whose answer may be cached.
pub trait Cached: Read + Clone + Send + 'static {
    /// What the answer is computed from.
    fn entity(&self, tenant: Option<Uuid>) -> Entity;

    /// What else the answer depends on.
    fn arguments(&self) -> impl Serialize;
}

/// Where an answer came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This process had it.
    Local,
    /// Redis had it.
    Shared,
    /// It was read from an instance of PostgreSQL.
    Database(Served),
    /// It could not be read, and one that has ended was served.
    Stale,
}

/// A cached answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As JSON.
    pub json: Bytes,
    /// Where it came from.
    pub source: Source,
}

impl Found {
    /// The answer as a value.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        Ok(serde_json::from_slice(&self.json)?)
    }
}

/// A load's failure, for all who wait for it.
#[derive(Debug, Clone)]
enum Failure {
    Unavailable(&'static str),
    Other(String),
}

/// What loads have to agree in to be one: nobody waits for a load that began before an invalidation, that need not see an own write, or that
/// only refreshes and so may give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flight {
    key: Key,
    stamp: Stamp,
    at_least: Option<Position>,
    refresh: bool,
}

type Loaded = Result<(Arc<Entry>, Source), Failure>;

/// The cache. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    local: Local,
    shared: Shared,
    heard: Heard,
    flights: Flights<Flight, Loaded>,
    loads: Semaphore,
    fleet: Fleet,
    live: Live,
    counts: CacheCounts,
}

impl Cache {
    /// An empty cache before a database.
    pub fn new(live: Live, fleet: Fleet, redis: RedisLink, counts: CacheCounts) -> Self {
        let config = live.get();
        let capacity = config.cache.l1_capacity.bytes();
        let loads = usize::try_from(config.database.pool_size / SHARE)
            .unwrap_or(1)
            .max(1);
        Self(Arc::new(Inner {
            local: Local::new(capacity),
            shared: Shared::new(redis, counts.clone()),
            heard: Heard::default(),
            flights: Flights::default(),
            loads: Semaphore::new(loads),
            fleet,
            live,
            counts,
        }))
    }

    /// The tier in this process.
    pub fn local(&self) -> &Local {
        &self.0.local
    }

    /// The tier in Redis.
    pub fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// The database behind it.
    pub fn fleet(&self) -> &Fleet {
        &self.0.fleet
    }

    /// What is counted.
    pub fn counts(&self) -> &CacheCounts {
        &self.0.counts
    }

    /// The configuration.
    pub fn config(&self) -> Arc<Config> {
        self.0.live.get()
    }

    /// Which invalidations are known.
    pub(super) fn heard(&self) -> &Heard {
        &self.0.heard
    }

    /// Reads through the cache, as a value.
    pub async fn get<R>(&self, scope: &Scope, read: &R) -> Result<(R::Output, Source), StoreError>
    where
        R: Cached,
        R::Output: Serialize + DeserializeOwned,
    {
        let found = self.read(scope, read).await?;
        Ok((found.read()?, found.source))
    }

    /// Reads through the cache. A reader who brings a position sees everything up to it.
    pub async fn read<R>(&self, scope: &Scope, read: &R) -> Result<Found, StoreError>
    where
        R: Cached,
        R::Output: Serialize,
    {
        let config = self.0.live.get();
        if !config.cache.enabled || scope.primary_only {
            let (output, served) = self.0.fleet.read(scope, read).await?;
            let json = serde_json::to_vec(&output)?.into();
            return Ok(Found {
                json,
                source: Source::Database(served),
            });
        }
        let key = Key::new(read.entity(scope.tenant), &read.arguments())?;
        let (kind, now) = (key.entity.kind, Instant::now());
        let stamp = self.0.local.stamp(&key.entity);
        let kept = self.0.local.get(&key).filter(|entry| entry.has(scope.at_least));
        if let Some(entry) = kept.as_ref().filter(|entry| entry.until > now)
            && self.0.heard.is_recent(now)
        {
            self.note(kind, Outcome::Local);
            if entry.wants_refresh(now, entropy::uniform()) {
                drop(self.begin(key, stamp, *scope, read, true));
            }
            return found(entry, Source::Local);
        }
        let flight = self.begin(key, stamp, *scope, read, false);
        let loaded = timeout_at(scope.deadline, flight).await;
        let failure = match loaded {
            Ok(Some(Ok((entry, source)))) => {
                let outcome = if source == Source::Shared {
                    Outcome::Shared
                } else {
                    Outcome::Miss
                };
                self.note(kind, outcome);
                return found(&entry, source);
            }
            Ok(Some(Err(Failure::Other(cause)))) => return Err(StoreError::Corrupt(cause)),
            Ok(Some(Err(Failure::Unavailable(why)))) => StoreError::Unavailable(why),
            Ok(None) => return Err(StoreError::Corrupt("a load of the cache panicked".to_owned())),
            Err(_) => StoreError::Unavailable("the answer was not computed in time"),
        };
        match kept.filter(|entry| entry.until + GRACE > now) {
            Some(entry) => {
                self.note(kind, Outcome::Stale);
                found(&entry, Source::Stale)
            }
            None => Err(failure),
        }
    }

    /// Counts a lookup, for the process and for the request.
    fn note(&self, kind: Kind, outcome: Outcome) {
        self.0.counts.note(kind, outcome);
        tally::lookup(outcome != Outcome::Miss);
    }

    /// The load of a key, begun unless it is under way.
    fn begin<R>(
        &self,
        key: Key,
        stamp: Stamp,
        scope: Scope,
        read: &R,
        refresh: bool,
    ) -> impl Future<Output = Option<Loaded>> + use<R>
    where
        R: Cached,
        R::Output: Serialize,
    {
        let flight = Flight {
            key,
            stamp,
            at_least: scope.at_least,
            refresh,
        };
        self.0.flights.join(flight, || {
            let (cache, read) = (self.clone(), read.clone());
            let scope = Scope {
                deadline: Instant::now() + LOAD,
                ..scope
            };
            tally::inherit(async move { cache.load(key, stamp, scope, read, refresh).await })
        })
    }

    async fn load<R>(self, key: Key, stamp: Stamp, scope: Scope, read: R, refresh: bool) -> Loaded
    where
        R: Cached,
        R::Output: Serialize,
    {
        let floor = scope.at_least.max(self.0.local.floor(&key.entity));
        let until = Instant::now() + LEASE;
        let mut pause = PAUSE.0;
        let lease = loop {
            match self.0.shared.look(&key, refresh).await {
                Look::Hit(entry) if entry.has(floor) => {
                    let entry = Arc::new(entry);
                    self.0.local.insert(key, stamp, entry.clone());
                    return Ok((entry, Source::Shared));
                }
                Look::Load(lease) => break Some(lease),
                Look::Wait if refresh => return Err(Failure::Unavailable("it is being refreshed")),
                Look::Wait if Instant::now() < until => {
                    sleep(entropy::jitter(pause)).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
                Look::Hit(_) | Look::Away | Look::Wait => break None,
            }
        };
        let scope = Scope {
            at_least: floor.max(lease.as_ref().and_then(|lease| lease.floor)),
            ..scope
        };
        let outcome = self.compute(&key, &scope, &read).await;
        let (entry, source) = match outcome {
            Ok(done) => done,
            Err(failure) => {
                if let Some(lease) = &lease {
                    self.0.shared.release(&key, lease).await;
                }
                return Err(failure);
            }
        };
        let fill = match &lease {
            Some(lease) => self.0.shared.fill(&key, lease, &entry).await,
            None => Fill::Away,
        };
        if fill == Fill::Refused {
            self.0
                .counts
                .refused
                .get_or_create(&of_kind(key.entity.kind))
                .inc();
        } else {
            self.0.local.insert(key, stamp, entry.clone());
        }
        Ok((entry, source))
    }

    /// Reads from the database; at most so many at a time.
    async fn compute<R>(&self, key: &Key, scope: &Scope, read: &R) -> Loaded
    where
        R: Cached,
        R::Output: Serialize,
    {
        let other = |cause: String| Failure::Other(cause);
        let _turn = timeout_at(scope.deadline, self.0.loads.acquire())
            .await
            .map_err(|_| Failure::Unavailable("too many answers are being computed"))?
            .map_err(|error| other(error.to_string()))?;
        let started = Instant::now();
        let outcome = self.0.fleet.read(scope, read).await;
        let (content, source, position) = match outcome {
            Ok((output, served)) => {
                let json = serde_json::to_vec(&output).map_err(|error| other(error.to_string()))?;
                let position = served.position;
                (Content::Json(json.into()), Source::Database(served), position)
            }
            Err(StoreError::Missing) => (Content::Missing, Source::Stale, None),
            Err(StoreError::Unavailable(why)) => return Err(Failure::Unavailable(why)),
            Err(StoreError::Database(error)) if is_busy(&error) => {
                return Err(Failure::Unavailable("the database is too busy"));
            }
            Err(error) => return Err(other(format!("{error:?}"))),
        };
        let kind = key.entity.kind;
        self.0.counts.loads.get_or_create(&of_kind(kind)).inc();
        let cost = started.elapsed();
        self.0.counts.load_duration.observe(cost.as_secs_f64());
        // Entries that were made together do not end together.
        let ttl = kind
            .ttl(&self.0.live.get().cache.ttl)
            .mul_f64(1.0 - entropy::uniform() / 10.0);
        let ttl = life(&content, ttl);
        let entry = Entry {
            content,
            covers: scope.at_least.max(position),
            cost,
            until: started + ttl,
            ttl,
        };
        Ok((Arc::new(entry), source))
    }

    /// Takes note of an invalidation in this process.
    pub(super) fn forget(&self, target: Target, position: Option<Position>) {
        self.0.local.invalidate(target, position);
        self.0
            .counts
            .invalidations
            .get_or_create(&of_kind(target.kind()))
            .inc();
    }

    /// Brings gauges up to date, and takes over a new bound.
    pub fn measure(&self) {
        self.0.local.resize(self.0.live.get().cache.l1_capacity.bytes());
        let (entries, bytes) = self.0.local.size();
        self.0
            .counts
            .entries
            .set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.0.counts.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// What the database tells of its writes. It does not keep the cache alive, which holds the database.
#[derive(Debug)]
pub struct CacheSink(Weak<Inner>);

impl InvalidationSink for CacheSink {
    fn invalidated(&self, position: Position, changed: Vec<(i64, Target)>) -> BoxFuture<'static, ()> {
        match self.0.upgrade() {
            Some(cache) => Cache(cache).invalidated(position, changed),
            None => futures::future::ready(()).boxed(),
        }
    }
}

impl Cache {
    /// What the database tells of its writes.
    pub fn sink(&self) -> Arc<CacheSink> {
        Arc::new(CacheSink(Arc::downgrade(&self.0)))
    }

    /// Runs before the writer gets its answer, so that whoever hears of the write does not find what it replaced.
    fn invalidated(&self, position: Position, changed: Vec<(i64, Target)>) -> BoxFuture<'static, ()> {
        for (_, target) in &changed {
            self.forget(*target, Some(position));
        }
        let cache = self.clone();
        async move {
            let changed: Vec<_> = changed
                .into_iter()
                .map(|(id, target)| (id, position, target))
                .collect();
            if cache.0.shared.replace(&changed).await {
                cache
                    .0
                    .heard
                    .note(changed.iter().map(|(id, ..)| *id), Instant::now());
            } else {
                cache.0.heard.postpone(&changed, Instant::now());
            }
        }
        .boxed()
    }
}

fn found(entry: &Entry, source: Source) -> Result<Found, StoreError> {
    match &entry.content {
        Content::Json(json) => Ok(Found {
            json: json.clone(),
            source,
        }),
        Content::Missing => Err(StoreError::Missing),
    }
}
