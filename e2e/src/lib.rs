//! Builds the images, starts real services and clusters, and runs the platform on them.
//! `main` only parses arguments; everything that tests use too is here.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    args::{Cli, Command},
    paths::Paths,
};

pub mod args;
pub mod images;
pub mod paths;
pub mod process;
pub mod rootfs;
pub mod services;

/// Runs one command of the command line.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    let paths = Paths::from_environment()?;
    match cli.command {
        Command::Images(command) => images::args::run(&paths, command).await,
        Command::Services(command) => services::args::run(&paths, command).await,
    }
}
