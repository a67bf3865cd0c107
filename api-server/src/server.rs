//! Accepts connections and serves them. Own loop because every stage needs a limit that ready-made ones lack: connections
//! that are open, time to the first byte, time for headers, and a graceful end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::config::Live;
use crate::http::client::Peer;
use crate::http::patient::Patient;
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
    /// Connections that are open.
    pub open: Arc<AtomicU32>,
}

impl Server {
    /// Serves until the lifecycle closes it.
    pub async fn run(self) {
        let closing = self.lifecycle.closing.clone();
        while let Some(accepted) = closing.run_until_cancelled(self.listener.accept()).await {
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "connection cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // Read each time, so that a changed limit holds for the next connection.
            if self.open.load(Ordering::Relaxed) >= self.live.get().http.max_connections {
                self.metrics.refused.inc();
                continue;
            }
            let http = &self.live.get().http;
            let connection = Connection {
                peer: Peer(peer.ip()),
                write_timeout: http.body_timeout.get(),
                router: self.router.clone(),
                header_timeout: http.header_timeout.get(),
                lifecycle: self.lifecycle.clone(),
            };
            let open = Open::new(&self.open, &self.metrics);
            self.lifecycle.tasks.spawn(async move {
                connection.serve(stream).await;
                drop(open);
            });
        }
    }
}

/// A connection that is counted until it is dropped.
struct Open {
    count: Arc<AtomicU32>,
    gauge: Gauge,
}

impl Open {
    fn new(count: &Arc<AtomicU32>, metrics: &HttpMetrics) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        metrics.connections.inc();
        Self {
            count: count.clone(),
            gauge: metrics.connections.clone(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}

struct Connection {
    peer: Peer,
    write_timeout: Duration,
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
        let (inner, peer) = (TowerToHyperService::new(self.router), self.peer);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            inner.call(request)
        });
        let stream = TokioIo::new(Patient::new(stream, self.write_timeout));
        let connection = builder.serve_connection_with_upgrades(stream, service);
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
