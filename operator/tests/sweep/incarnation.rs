//! One life of the operator: its real driver, caches and pipeline, without the process around them.

use std::sync::Arc;

use clap::Parser;
use kube::Api;
use operator::args::Arguments;
use operator::connections::Connections;
use operator::keeper::Keeper;
use operator::metrics::Metrics;
use operator::platform::pending::Pending;
use tokio::task::JoinHandle;

use crate::wire::{Exchange, Life, Line};

/// Name of the platform in every run.
pub const PLATFORM: &str = "acme";

/// An operator that runs until it is dropped.
pub struct Incarnation {
    /// Ends when a fault kills it.
    pub life: Arc<Life>,
    metrics: Metrics,
    pending: Pending,
    namespace: String,
    task: JoinHandle<()>,
}

impl Drop for Incarnation {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Incarnation {
    /// Starts the operator, bound to a namespace, with nothing in its memory.
    pub fn start(exchange: &Exchange, line: &Line, namespace: &str) -> Self {
        let pulse = Arc::new(Life::default());
        line.injector.reborn();
        let client = exchange.client(line.clone(), pulse.clone());
        let arguments = Arguments::parse_from([
            "tanka-operator",
            "--watch-namespaces",
            namespace,
            "--namespace",
            namespace,
            "--identity",
            "sweep",
        ]);
        let metrics = Metrics::default();
        let platforms = Api::namespaced(client.clone(), namespace);
        let keeper = Keeper::new(&arguments, &Connections::single(client), &metrics, platforms, 1);
        Self {
            life: pulse,
            metrics,
            pending: keeper.pending(),
            namespace: namespace.to_owned(),
            task: tokio::spawn(keeper.run()),
        }
    }

    /// Makes it look at the platform, whatever its caches say.
    pub fn poke(&self) {
        self.pending.mark((self.namespace.clone(), PLATFORM.to_owned()));
    }

    /// Looks that have ended.
    pub fn looks(&self) -> u64 {
        let text = self.metrics.encode();
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("tanka_reconcile_duration_seconds_count "));
        count.and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}
