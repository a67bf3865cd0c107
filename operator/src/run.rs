//! The process: election, controller, and an orderly end.

use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;
use futures::future::select_all;
use kube::Config as ClientConfig;
use kube::api::Api;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::Arguments;
use crate::connections::Connections;
use crate::health::{self, Readiness};
use crate::keeper::Keeper;
use crate::leader;
use crate::leader::fence::Fence;
use crate::metrics::Metrics;

/// Runs until a signal comes or the lease is lost.
///
/// # Errors
/// When the API server's address is not known, ours cannot be bound, or the lease is lost.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let metrics = Metrics::default();
    let readiness = Readiness::default();
    let stop = CancellationToken::new();
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let server = tokio::spawn(health::serve(
        listener,
        readiness.clone(),
        metrics.clone(),
        stop.clone(),
    ));
    let mut signals = Signals::new()?;
    let outcome = tokio::select! {
        outcome = lead(&arguments, &metrics, &readiness) => outcome,
        () = signals.next() => Ok(None),
    };
    let outcome = match outcome {
        Ok(Some(mut leadership)) => {
            let outcome = tokio::select! {
                () = leadership.work => Err(anyhow::anyhow!("the controller has ended by itself")),
                () = leadership.claim.lost() => Err(anyhow::anyhow!("the lease is lost: ending, so that there are never two leaders")),
                () = signals.next() => Ok(()),
            };
            metrics.leader(false);
            if outcome.is_ok() {
                leadership.claim.release().await;
            }
            outcome
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    stop.cancel();
    let _ = server.await;
    outcome
}

/// A won election, and the work that comes with it.
struct Leadership {
    claim: leader::Claim,
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Waits for the lease and prepares the work.
async fn lead(
    arguments: &Arguments,
    metrics: &Metrics,
    readiness: &Readiness,
) -> anyhow::Result<Option<Leadership>> {
    let config = connection().await?;
    let fence = Fence::new(&arguments.identity);
    let client = leader::fenced(config.clone(), &fence)?;
    let connections = Connections::new(client.clone(), config.clone())
        .map_err(|error| anyhow::anyhow!("no connection for watches: {error}"))?;
    let mut claim = leader::stand(config, &arguments.namespace, &arguments.identity, &fence).await?;
    readiness.set();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity = arguments.identity,
        "stands in line for the lease"
    );
    claim.won().await?;
    metrics.leader(true);
    tracing::info!("leads");
    let namespaces = arguments.namespaces();
    let keepers: Vec<Keeper> = if namespaces.is_empty() {
        vec![Keeper::new(
            arguments,
            &connections,
            metrics,
            Api::all(client.clone()),
            1,
        )]
    } else {
        let api = |namespace: &&str| Api::namespaced(client.clone(), namespace);
        let of = |namespace| Keeper::new(arguments, &connections, metrics, api(namespace), namespaces.len());
        namespaces.iter().map(of).collect()
    };
    metrics.watch(
        keepers.iter().map(Keeper::platforms).collect(),
        keepers.iter().map(Keeper::pending).collect(),
    );
    // One that ends takes the process with it: no namespace is left unkept in silence.
    let work = select_all(keepers.into_iter().map(|keeper| keeper.run().boxed()));
    let work = work.map(drop).boxed();
    Ok(Some(Leadership { claim, work }))
}

async fn connection() -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::infer()
        .await
        .context("no way to the Kubernetes API: neither a kubeconfig nor a service account")?;
    config.connect_timeout = Some(Duration::from_secs(5));
    // One owner of retries: the look that failed is repeated as a whole, later each time. A request that waits in the client to be
    // sent again would be sent for a plan that is old, or by a process that does not lead any more.
    config.default_retry = false;
    Ok(config)
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
    }
}
