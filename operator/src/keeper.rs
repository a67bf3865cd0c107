//! The controller over the platforms of one namespace, or of all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::{Config, Controller};
use kube::runtime::events::{Recorder, Reporter as EventReporter};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::time::MissedTickBehavior;

use crate::args::Arguments;
use crate::connections::Connections;
use crate::metrics::Metrics;
use crate::platform::apply::Applier;
use crate::platform::cache::{Caches, Guarded};
use crate::platform::command::Commander;
use crate::platform::grant::Grants;
use crate::platform::observe::probe::Probe;
use crate::platform::pending::Pending;
use crate::platform::report::Reporter;
use crate::platform::{Context, after_error, reconcile};

/// Changes that come within this time are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How often is looked whether a namespace holds no platform any more.
const SWEEP: Duration = Duration::from_secs(30);

/// The platforms of one namespace, or of all.
pub struct Keeper {
    controller: Controller<Guarded>,
    context: Arc<Context>,
}

impl Keeper {
    /// Keeps what `platforms` reads, as one of `count` keepers that share the process. Nothing happens before [`Self::run`].
    pub fn new(
        arguments: &Arguments,
        connections: &Connections,
        metrics: &Metrics,
        platforms: Api<Guarded>,
        count: usize,
    ) -> Self {
        let (pending, changes) = Pending::new();
        let (store, writer) = reflector::store();
        let concurrency = usize::from(arguments.concurrency) / count;
        let config = Config::default()
            .concurrency(u16::try_from(concurrency).unwrap_or(u16::MAX).max(1))
            .debounce(DEBOUNCE);
        Self {
            controller: Controller::for_stream(watched(platforms, writer), store)
                .with_config(config)
                .reconcile_on(changes),
            context: Arc::new(context(arguments, connections, metrics, pending)),
        }
    }

    /// The platforms as they are stored.
    pub fn platforms(&self) -> Store<Guarded> {
        self.controller.store()
    }

    /// Those that wait for a look.
    pub fn pending(&self) -> Pending {
        self.context.pending.clone()
    }

    /// Looks at each platform whenever it or one of its objects has changed, or its time has come.
    pub async fn run(self) {
        let platforms = self.controller.store();
        let context = Arc::clone(&self.context);
        let sweep = async {
            let mut rounds = tokio::time::interval(SWEEP);
            rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // Before the first list everything would look abandoned.
            let _ = platforms.wait_until_ready().await;
            loop {
                rounds.tick().await;
                let inhabited = platforms
                    .state()
                    .iter()
                    .filter_map(|platform| platform.namespace())
                    .collect();
                context.caches.keep_only(&inhabited);
                context.pending.keep_only(&inhabited);
            }
        };
        let work = self
            .controller
            .run(reconcile, after_error, self.context)
            .for_each(|outcome| async move {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "the controller reported");
                }
            });
        tokio::select! {
            () = work => {}
            () = sweep => {}
        }
    }
}

/// Platforms as they change, without who owns which field: of a platform's memory that would be most, and nothing asks for it.
fn watched(
    platforms: Api<Guarded>,
    writer: reflector::store::Writer<Guarded>,
) -> impl Stream<Item = Result<Guarded, watcher::Error>> + Send + 'static {
    watcher(platforms, watcher::Config::default())
        .modify(|platform| platform.managed_fields_mut().clear())
        .reflect(writer)
        .applied_objects()
}

/// Everything that looks at platforms need, in a process that leads.
fn context(arguments: &Arguments, connections: &Connections, metrics: &Metrics, pending: Pending) -> Context {
    let client = &connections.requests;
    let source = EventReporter {
        controller: "tanka-operator".to_owned(),
        instance: Some(arguments.identity.clone()),
    };
    let recorder = Recorder::new(client.clone(), source);
    Context {
        release: arguments.release(),
        caches: Caches::new(
            connections.clone(),
            pending.clone(),
            arguments.namespaces().is_empty(),
        ),
        pending,
        probe: Probe::new(client.clone()),
        grants: Grants::new(client.clone(), metrics.clone(), arguments.grant()),
        applier: Applier::new(client.clone(), metrics.clone()),
        commander: Commander::new(client.clone(), metrics.clone()),
        reporter: Reporter::new(client.clone(), recorder, metrics.clone()),
        metrics: metrics.clone(),
        memories: Mutex::default(),
    }
}
