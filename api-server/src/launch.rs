//! Puts the server together and starts it: the same for the binary and for tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use crds::config::Config;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::access::{Tokens, watch};
use crate::app::{App, Parts};
use crate::cache::{Cache, news, stats, warm};
use crate::config::Live;
use crate::config::load::Fingerprint;
use crate::config::reload::Reloader;
use crate::hashing::Hashing;
use crate::http;
use crate::jobs::{self, Tools};
use crate::keys::Keys;
use crate::lifecycle::Lifecycle;
use crate::limits::guesses::Guesses;
use crate::limits::requests::Limiter;
use crate::metrics::Metrics;
use crate::objects;
use crate::outbound::Outbound;
use crate::realtime::budget::Grant;
use crate::realtime::registry::Roll;
use crate::realtime::{Hub, Registry, subscription};
use crate::redis_link::RedisLink;
use crate::routing::Fleet;
use crate::search::approximate::Scale;
use crate::server::Server;
use crate::{search, sweep, telemetry};

/// What a server is started with.
#[derive(Debug)]
pub struct Launch {
    /// Configuration to begin with.
    pub config: Config,
    /// The file that it came from, which is then followed.
    pub file: Option<(PathBuf, Fingerprint)>,
    /// Keys.
    pub keys: Keys,
    /// Address of the API.
    pub listen: SocketAddr,
    /// Address of metrics and health checks.
    pub ops_listen: SocketAddr,
    /// Who is searched through an index; the default but for tests.
    pub scale: Scale,
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    /// Address of the API.
    pub address: SocketAddr,
    /// Address of metrics and health checks.
    pub ops_address: SocketAddr,
    /// The server itself.
    pub app: App,
}

impl Launch {
    /// Starts the server. It answers at once, and is ready when the database is.
    pub async fn start(self) -> anyhow::Result<Running> {
        let lifecycle = Lifecycle::default();
        let metrics = Metrics::new();
        let live = Live::new(self.config);
        if let Some((path, fingerprint)) = self.file {
            let metrics = metrics.config.clone();
            let reloader = Reloader {
                path,
                live: live.clone(),
                fingerprint,
                metrics,
            };
            tokio::spawn(reloader.run(lifecycle.stop.clone()));
            tokio::spawn(follow_telemetry(live.clone()));
        }
        let app = assemble(live, metrics, self.keys, self.scale, lifecycle.clone())?;
        let waiting = app.clone();
        tokio::spawn(async move {
            let stop = lifecycle.stop;
            if stop
                .run_until_cancelled(waiting.wait_for_schema())
                .await
                .is_some()
            {
                let (cache, redis, live) = (waiting.cache(), waiting.redis(), waiting.live());
                warm::follow(cache.clone(), redis.clone(), live.clone(), stop).await;
            }
        });
        let objects = objects::sweep::run(app.clone());
        app.lifecycle().background("objects", objects);
        let address = listen(&app, self.listen, http::router(&app)?).await?;
        let ops_address = listen(&app, self.ops_listen, http::ops::router(&app)).await?;
        let connections = app.most_connections();
        tracing::info!(%address, %ops_address, connections, grant = ?Grant::read(), "serving");
        Ok(Running {
            address,
            ops_address,
            app,
        })
    }
}

/// Makes the parts and starts what runs in the background.
fn assemble(
    live: Live,
    metrics: Arc<Metrics>,
    keys: Keys,
    scale: Scale,
    lifecycle: Lifecycle,
) -> anyhow::Result<App> {
    let stop = lifecycle.stop.clone();
    let database = Fleet::start(
        live.clone(),
        metrics.database.clone(),
        lifecycle.tasks.clone(),
        stop.clone(),
    )?;
    let redis = RedisLink::start(live.clone(), metrics.realtime.clone(), stop.clone());
    let (hub, registry) = realtime(&database, &keys, &redis, &metrics, &lifecycle);
    let (tokens, changed) = Tokens::new(metrics.access.clone());
    tokens.set_listeners(hub.sink());
    database.set_access_sink(Arc::new(tokens.clone()));
    let look = watch::look(tokens.clone(), database.clone(), stop.clone());
    lifecycle.background("access look", look);
    lifecycle.background("access tell", watch::tell(changed, redis.clone(), stop.clone()));
    let listen = watch::listen(tokens.clone(), redis.clone(), stop.clone());
    lifecycle.background("access listen", listen);
    let limiter = Limiter::new(redis.clone(), metrics.limits.clone());
    let guesses = Guesses::new(redis.clone(), limiter.clone(), metrics.limits.clone());
    lifecycle.background("sweep", sweep::run(database.clone(), live.clone(), stop.clone()));
    let cache = Cache::new(
        live.clone(),
        database.clone(),
        redis.clone(),
        metrics.cache.clone(),
    );
    database.set_cache(cache.sink());
    lifecycle.background("cache look", news::watch(cache.clone(), stop.clone()));
    let listen = news::listen(cache.clone(), redis.clone(), stop.clone());
    lifecycle.background("cache listen", listen);
    let counts = stats::share(cache.clone(), redis.clone(), stop.clone());
    lifecycle.background("cache counts", counts);
    let embed = search::worker::run(database.clone(), live.clone(), scale, stop.clone());
    lifecycle.background("embeddings", embed);
    let tend = search::tending::run(database.clone(), scale, stop);
    lifecycle.background("search index", tend);
    work(&lifecycle, &live, &keys, &database, &metrics)?;
    let hashing = Hashing::new(metrics.hashing.clone())?;
    Ok(App::new(Parts {
        live,
        keys,
        database,
        redis,
        tokens,
        limiter,
        guesses,
        cache,
        hashing,
        hub,
        registry,
        grant: Grant::read(),
        scale,
        metrics,
        lifecycle,
    }))
}

/// Starts what does jobs.
fn work(
    lifecycle: &Lifecycle,
    live: &Live,
    keys: &Keys,
    database: &Fleet,
    metrics: &Metrics,
) -> anyhow::Result<()> {
    let tools = Tools {
        database: database.clone(),
        live: live.clone(),
        keys: keys.clone(),
        outbound: Outbound::new(live.clone()).context("no certificates of the system can be read")?,
        metrics: Arc::new(metrics.jobs.clone()),
        lifecycle: lifecycle.clone(),
    };
    lifecycle.background("jobs", jobs::worker::run(tools.clone()));
    lifecycle.background("schedules", jobs::schedules::run(tools.clone()));
    lifecycle.background("backlog", jobs::worker::measure(tools));
    Ok(())
}

/// Starts what brings events to connections.
fn realtime(
    database: &Fleet,
    keys: &Keys,
    redis: &RedisLink,
    metrics: &Metrics,
    lifecycle: &Lifecycle,
) -> (Hub, Registry) {
    let stop = lifecycle.stop.clone();
    let (roll, notes) = Roll::new();
    let (hub, outgoing) = Hub::new(
        database.clone(),
        keys.clone(),
        metrics.realtime.clone(),
        roll.clone(),
    );
    let registry = Registry::new(process_name(), hub.clone(), redis.clone(), roll);
    let keep = registry.clone().keep(notes, stop.clone());
    lifecycle.background("registry", keep);
    database.set_sink(hub.sink());
    lifecycle.background("hub", hub.clone().watch(stop.clone()));
    let publish = subscription::publish(hub.clone(), redis.clone(), outgoing, stop.clone());
    lifecycle.background("publish", publish);
    let receive = subscription::receive(hub.clone(), redis.clone(), stop);
    lifecycle.background("receive", receive);
    (hub, registry)
}

/// What people know the process by: the pod's name.
fn process_name() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "process".to_owned())
}

/// Serves on an address; answers which one it is, for port 0.
async fn listen(app: &App, address: SocketAddr, router: Router) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("failed to listen on {address}"))?;
    let bound = listener.local_addr()?;
    let server = Server {
        listener,
        router,
        live: app.live().clone(),
        lifecycle: app.lifecycle().clone(),
        metrics: app.metrics().http.clone(),
        open: Arc::default(),
    };
    app.lifecycle().background("listener", server.run());
    Ok(bound)
}

impl Running {
    /// Ends the server as SIGTERM does; answers whether all work was finished in time.
    pub async fn drain(&self) -> bool {
        let total = self.app.config().drain.timeout.get();
        let finished = self.app.lifecycle().drain(total).await;
        self.app
            .database()
            .close(Instant::now() + Duration::from_millis(400))
            .await;
        finished
    }
}

async fn follow_telemetry(live: Live) {
    let mut changes = live.subscribe();
    while changes.changed().await.is_ok() {
        let config = live.get();
        // Another collector is reached over a client that blocks.
        let _ = tokio::task::spawn_blocking(move || telemetry::apply(&config)).await;
    }
}
