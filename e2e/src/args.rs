//! The command line. Each part of the crate brings its own subcommands.

use clap::{Parser, Subcommand};

use crate::{
    bench_api::BenchApiCommand, bench_realtime::BenchRealtimeCommand, images::args::ImagesCommand,
    load::LoadCommand, scenarios::args::ScenariosCommand, services::args::ServicesCommand,
};

/// Builds images, starts services, runs the platform on a real cluster.
#[derive(Debug, Parser)]
#[command(name = "e2e", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The parts of the crate.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Container images, from the top-level Dockerfile.
    #[command(subcommand)]
    Images(ImagesCommand),
    /// PostgreSQL and Redis on loopback, from our own images, for as long as a command runs.
    #[command(subcommand)]
    Services(ServicesCommand),
    /// From nothing to a platform that answers, shown step by step.
    Demo,
    /// Alerting rules and dashboards alone, under promtool.
    Alerts,
    /// All layers of tests, in order.
    Test,
    /// The operator under faults at each of its requests.
    Sweep,
    /// What people install, without a cluster: the chart and the kustomize bases.
    Manifests,
    /// The end-to-end layer of the tests alone; its cluster stays up.
    Slice,
    /// Named end-to-end scenarios on a cluster of three nodes.
    Scenarios(ScenariosCommand),
    /// Remove every trace of the demo's cluster.
    Down,
    /// Print the path of the demo's kubeconfig.
    Kubeconfig,
    /// The API alone, on real services on loopback.
    Dev,
    /// What is checked without running anything.
    Lint,
    /// Measure boot, readiness and failover.
    Bench,
    /// Measure what a hundred platforms at rest cost.
    BenchOperator,
    /// Measure requests: beside FastAPI, beside a bare server, with and without row-level security.
    BenchApi(BenchApiCommand),
    /// Measure real-time connections: fan-out over two servers, memory of an idle connection.
    BenchRealtime(BenchRealtimeCommand),
    /// People who use the API, in numbers.
    Load(LoadCommand),
    /// What takes too long for every change.
    Campaign,
    /// Files that are made from code and committed.
    Generate {
        /// Only say whether they are up to date.
        #[arg(long)]
        check: bool,
    },
}
