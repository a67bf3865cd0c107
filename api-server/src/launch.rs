//! Puts the server together and starts it: the same for the binary and for tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use crds::config::Config;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::app::{App, Parts};
use crate::config::Live;
use crate::config::load::Fingerprint;
use crate::config::reload::Reloader;
use crate::hashing::Hashing;
use crate::http;
use crate::keys::Keys;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::realtime::{Hub, subscription};
use crate::redis_link::RedisLink;
use crate::routing::Fleet;
use crate::server::Server;
use crate::{sweep, telemetry};

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
        let stop = lifecycle.stop.clone();
        let metrics = Metrics::new();
        let live = Live::new(self.config);
        let database =
            Fleet::start(live.clone(), metrics.database.clone(), lifecycle.tasks.clone(), stop.clone())?;
        let redis = RedisLink::start(live.clone(), metrics.realtime.clone(), stop.clone());
        let (hub, outgoing) = Hub::new(database.clone(), metrics.realtime.clone());
        database.set_sink(Arc::new(hub.clone()));
        tokio::spawn(hub.clone().watch(stop.clone()));
        tokio::spawn(subscription::publish(hub.clone(), redis.clone(), outgoing, stop.clone()));
        tokio::spawn(subscription::receive(hub.clone(), redis.clone(), stop.clone()));
        tokio::spawn(sweep::run(database.clone(), live.clone(), stop.clone()));
        tokio::spawn(follow_log_level(live.clone()));
        if let Some((path, fingerprint)) = self.file {
            let reloader = Reloader { path, live: live.clone(), fingerprint, metrics: metrics.config.clone() };
            tokio::spawn(reloader.run(stop.clone()));
        }
        let hashing = Hashing::new(metrics.hashing.clone())?;
        let app = App::new(Parts {
            live: live.clone(),
            keys: self.keys,
            database,
            redis,
            hashing,
            hub,
            metrics: metrics.clone(),
            lifecycle: lifecycle.clone(),
        });
        let waiting = app.clone();
        tokio::spawn(async move { stop.run_until_cancelled(waiting.wait_for_schema()).await });
        let serve = async |address: SocketAddr, router| {
            let listener = TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))?;
            let bound = listener.local_addr()?;
            let server = Server {
                listener,
                router,
                live: live.clone(),
                lifecycle: lifecycle.clone(),
                metrics: metrics.http.clone(),
            };
            tokio::spawn(server.run());
            anyhow::Ok(bound)
        };
        let address = serve(self.listen, http::router(&app)).await?;
        let ops_address = serve(self.ops_listen, http::ops::router(&app)).await?;
        tracing::info!(%address, %ops_address, "serving");
        Ok(Running { address, ops_address, app })
    }
}

impl Running {
    /// Ends the server as SIGTERM does; answers whether all work was finished in time.
    pub async fn drain(&self) -> bool {
        let total = self.app.config().drain.timeout.get();
        let finished = self.app.lifecycle().drain(total).await;
        self.app.database().close(Instant::now() + Duration::from_millis(400)).await;
        finished
    }
}

async fn follow_log_level(live: Live) {
    let mut changes = live.subscribe();
    while changes.changed().await.is_ok() {
        telemetry::set_level(live.get().log_level);
    }
}
