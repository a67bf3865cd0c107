//! The process: election, controller, and an orderly end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt;
use kube::api::Api;
use kube::runtime::controller::{Config, Controller};
use kube::runtime::events::{Recorder, Reporter as EventReporter};
use kube::runtime::watcher;
use kube::{Client, Config as ClientConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::args::{Arguments, LogFormat};
use crate::health::{self, Readiness};
use crate::leader;
use crate::metrics::Metrics;
use crate::platform::apply::Applier;
use crate::platform::cache::{Caches, Changes, Guarded};
use crate::platform::grant::Grants;
use crate::platform::observe::probe::Probe;
use crate::platform::report::Reporter;
use crate::platform::{Context, after_error, reconcile};

/// Changes that come within this time are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Runs until a signal comes or the lease is lost.
///
/// # Errors
/// When the API server cannot be reached at the start, the address cannot be bound, or the lease is lost.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    start_log(&arguments)?;
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
    let mut config = ClientConfig::infer()
        .await
        .context("no way to the Kubernetes API: neither a kubeconfig nor a service account")?;
    config.connect_timeout = Some(Duration::from_secs(5));
    let client = Client::try_from(config)?;
    let mut claim = leader::stand(client.clone(), &arguments.namespace, &arguments.identity).await?;
    readiness.set();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity = arguments.identity,
        "stands in line for the lease"
    );
    let mut signals = Signals::new()?;
    tokio::select! {
        won = claim.won() => won?,
        () = signals.next() => {
            claim.release().await;
            return Ok(());
        }
    }
    metrics.leader(true);
    tracing::info!("leads");
    let (caches, changes) = Caches::watch(&client, arguments.watch_namespace.as_deref());
    let context = Arc::new(context(&arguments, &client, &metrics, caches));
    let controller = keep(&client, &arguments, context, changes, stop.clone());
    let outcome = tokio::select! {
        () = controller => Err(anyhow::anyhow!("the controller has ended by itself")),
        () = claim.lost() => Err(anyhow::anyhow!("the lease is lost: ending, so that there are never two leaders")),
        () = signals.next() => Ok(()),
    };
    stop.cancel();
    if outcome.is_ok() {
        claim.release().await;
    }
    let _ = server.await;
    outcome
}

fn context(arguments: &Arguments, client: &Client, metrics: &Metrics, caches: Caches) -> Context {
    let source = EventReporter {
        controller: "tanka-operator".to_owned(),
        instance: Some(arguments.identity.clone()),
    };
    let recorder = Recorder::new(client.clone(), source);
    Context {
        release: arguments.release(),
        caches,
        probe: Probe::new(client.clone()),
        grants: Grants::new(client.clone(), metrics.clone(), arguments.grant()),
        applier: Applier::new(client.clone(), metrics.clone()),
        reporter: Reporter::new(client.clone(), recorder, metrics.clone()),
        metrics: metrics.clone(),
        memories: Mutex::default(),
    }
}

async fn keep(
    client: &Client,
    arguments: &Arguments,
    context: Arc<Context>,
    changes: Changes,
    stop: CancellationToken,
) {
    let api: Api<Guarded> = match &arguments.watch_namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    // The caches fill only while somebody takes what they report, so that is where the changes are taken before the first look.
    Controller::new(api, watcher::Config::default())
        .with_config(
            Config::default()
                .concurrency(arguments.concurrency)
                .debounce(DEBOUNCE),
        )
        .reconcile_on(changes)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, after_error, context)
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                tracing::debug!(%error, "the controller reported");
            }
        })
        .await;
}

fn start_log(arguments: &Arguments) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&arguments.log).context("TANKA_LOG is not a tracing filter")?;
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    match arguments.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
    Ok(())
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
