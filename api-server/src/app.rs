//! What handlers work with: one value that knows every part of the running server.

pub mod deep;
pub mod ready;

use std::sync::{Arc, Mutex, PoisonError};

use crds::config::{Config, Embeddings, ObjectStore};

use self::deep::{DeepCheck, Report};
use self::ready::{Readiness, Schema};
use crate::access::Tokens;
use crate::cache::Cache;
use crate::config::Live;
use crate::hashing::Hashing;
use crate::keys::Keys;
use crate::lifecycle::Lifecycle;
use crate::limits::guesses::Guesses;
use crate::limits::requests::Limiter;
use crate::metrics::Metrics;
use crate::objects::{ObjectError, Objects};
use crate::realtime::budget::Grant;
use crate::realtime::{Hub, Registry};
use crate::redis_link::RedisLink;
use crate::routing::Fleet;
use crate::search::approximate::Scale;
use crate::search::endpoint::Endpoint;
use crate::search::recalls::Recalls;

/// Parts of the server.
#[derive(Debug)]
pub struct Parts {
    /// Configuration in force.
    pub live: Live,
    /// Keys.
    pub keys: Keys,
    /// PostgreSQL.
    pub database: Fleet,
    /// Redis.
    pub redis: RedisLink,
    /// Validated tokens.
    pub tokens: Tokens,
    /// Requests of people.
    pub limiter: Limiter,
    /// Guesses of passwords.
    pub guesses: Guesses,
    /// Cached answers.
    pub cache: Cache,
    /// Password hashing.
    pub hashing: Hashing,
    /// Real-time events.
    pub hub: Hub,
    /// Who is connected where.
    pub registry: Registry,
    /// Connections that the machine can carry, of as many as there may be.
    pub grant: Grant,
    /// Who is searched through an index.
    pub scale: Scale,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether it is ending.
    pub lifecycle: Lifecycle,
}

/// The running server, for handlers.
#[derive(Debug, Clone)]
pub struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    schema: Schema,
    deep: DeepCheck,
    endpoint: Mutex<Option<(Embeddings, Option<Endpoint>)>>,
    objects: Mutex<Option<(ObjectStore, Objects)>>,
    recalls: Recalls,
}

impl App {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            schema: Schema::default(),
            deep: DeepCheck::default(),
            endpoint: Mutex::default(),
            objects: Mutex::default(),
            recalls: Recalls::default(),
        }))
    }

    /// Configuration of this moment.
    pub fn config(&self) -> Arc<Config> {
        self.0.parts.live.get()
    }

    /// Configuration, for what follows its changes.
    pub fn live(&self) -> &Live {
        &self.0.parts.live
    }

    /// Keys.
    pub fn keys(&self) -> &Keys {
        &self.0.parts.keys
    }

    /// PostgreSQL.
    pub fn database(&self) -> &Fleet {
        &self.0.parts.database
    }

    /// Redis.
    pub fn redis(&self) -> &RedisLink {
        &self.0.parts.redis
    }

    /// Validated tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.0.parts.tokens
    }

    /// Requests of people.
    pub fn limiter(&self) -> &Limiter {
        &self.0.parts.limiter
    }

    /// Guesses of passwords.
    pub fn guesses(&self) -> &Guesses {
        &self.0.parts.guesses
    }

    /// Cached answers.
    pub fn cache(&self) -> &Cache {
        &self.0.parts.cache
    }

    /// The endpoint for embeddings, if one is configured.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let settings = &self.config().embeddings;
        let mut kept = self.0.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, endpoint)) = &*kept
            && of == settings
        {
            return endpoint.clone();
        }
        let endpoint = Endpoint::of(settings).and_then(|endpoint| {
            endpoint
                .inspect_err(|error| tracing::error!(%error, "memories are searched by words only"))
                .ok()
        });
        *kept = Some((settings.clone(), endpoint.clone()));
        endpoint
    }

    /// Who is searched through an index.
    pub fn scale(&self) -> &Scale {
        &self.0.parts.scale
    }

    /// How well searches through an index have found.
    pub fn recalls(&self) -> &Recalls {
        &self.0.recalls
    }

    /// The object store for files, if one is configured.
    pub fn objects(&self) -> Option<Result<Objects, ObjectError>> {
        let config = self.config();
        let settings = config.resources.object_store.as_ref()?;
        let mut kept = self.0.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, objects)) = &*kept
            && of == settings
        {
            return Some(Ok(objects.clone()));
        }
        let objects = Objects::new(settings);
        if let Ok(objects) = &objects {
            *kept = Some((settings.clone(), objects.clone()));
        }
        Some(objects)
    }

    /// Password hashing.
    pub fn hashing(&self) -> &Hashing {
        &self.0.parts.hashing
    }

    /// Real-time events.
    pub fn hub(&self) -> &Hub {
        &self.0.parts.hub
    }

    /// Who is connected where.
    pub fn registry(&self) -> &Registry {
        &self.0.parts.registry
    }

    /// Real-time connections that this process serves, at most.
    pub fn most_connections(&self) -> u32 {
        let wanted = self.config().websocket.max_connections;
        self.0.parts.grant.connections(wanted)
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.parts.metrics
    }

    /// Whether it is ending.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.0.parts.lifecycle
    }

    /// Whether requests should come here.
    pub fn readiness(&self) -> Readiness {
        if self.lifecycle().draining.is_cancelled() {
            Readiness::Draining
        } else if self.0.schema.is_current() {
            Readiness::Ready
        } else {
            Readiness::Starting
        }
    }

    /// Waits for a schema that this release can work with; until then requests should go elsewhere.
    pub async fn wait_for_schema(&self) {
        self.0.schema.wait(self.database()).await;
    }

    /// Tries everything that the server depends on.
    pub async fn deep_check(&self) -> Report {
        self.0.deep.run(self).await
    }
}
