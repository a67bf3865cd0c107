//! Accepts connections and serves them. Own loop because every stage needs a limit that ready-made ones lack: connections
//! that are open, time to the first byte, time for headers, and a graceful end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::Live;
use crate::lifecycle::Lifecycle;
use crate::metrics::HttpMetrics;

/// Pause after the system refused a connection, usually because there are too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// A port and what is served there.
#[derive(Debug)]
pub struct Server {
    /// The port.
    pub listener: TcpListener,
    /// What is served.
    pub router: Router,
    /// Limits.
    pub live: Live,
    /// When it ends.
    pub lifecycle: Lifecycle,
    /// What is counted.
    pub metrics: HttpMetrics,
}

impl Server {
    /// Serves until the lifecycle closes it.
    pub async fn run(self) {
        let most = usize::try_from(self.live.get().http.max_connections).unwrap_or(usize::MAX);
        let slots = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let closing = self.lifecycle.closing.clone();
        while let Some(accepted) = closing.run_until_cancelled(self.listener.accept()).await {
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "connection cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                self.metrics.refused.inc();
                continue;
            };
            let connection = Connection {
                router: self.router.clone(),
                header_timeout: self.live.get().http.header_timeout.get(),
                lifecycle: self.lifecycle.clone(),
            };
            let open = self.metrics.connections.clone();
            self.lifecycle.tasks.spawn(async move {
                open.inc();
                connection.serve(stream).await;
                open.dec();
                drop(slot);
            });
        }
    }
}

struct Connection {
    router: Router,
    header_timeout: Duration,
    lifecycle: Lifecycle,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        // hyper starts its clock with the first byte, so silence needs one of its own.
        let mut first = [0];
        let arrived = timeout(self.header_timeout, stream.peek(&mut first));
        if !matches!(
            self.lifecycle.closing.run_until_cancelled(arrived).await,
            Some(Ok(Ok(1)))
        ) {
            return;
        }
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_buf_size(64 << 10)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(128)
            .max_header_list_size(32 << 10)
            .keep_alive_interval(Duration::from_secs(20));
        let service = TowerToHyperService::new(self.router);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = self.lifecycle.closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    served = connection => served,
                    () = self.lifecycle.stop.cancelled() => return,
                }
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "connection ended early");
        }
    }
}
