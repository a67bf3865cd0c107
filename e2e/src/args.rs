//! The command line. Each part of the crate brings its own subcommands.

use clap::{Parser, Subcommand};

use crate::{images::args::ImagesCommand, services::args::ServicesCommand};

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
    /// All layers of tests, in order.
    Test,
    /// Files that are made from code and committed.
    Generate {
        /// Only say whether they are up to date.
        #[arg(long)]
        check: bool,
    },
}
