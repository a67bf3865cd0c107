//! Builds the images, starts real services and clusters, and runs the platform on them.
//! `main` only parses arguments; everything that tests use too is here.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    args::{Cli, Command},
    paths::Paths,
};

pub mod args;
pub mod client;
pub mod cluster;
pub mod demo;
pub mod generate;
pub mod images;
pub mod journey;
pub mod paths;
pub mod platform;
pub mod process;
pub mod rootfs;
pub mod services;
pub mod slice;
pub mod stage;
pub mod suite;
pub mod transcript;
pub mod writer;

/// Runs one command of the command line.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    let paths = Paths::from_environment()?;
    match cli.command {
        Command::Images(command) => images::args::run(&paths, command).await,
        Command::Services(command) => services::args::run(&paths, command).await,
        Command::Demo => demo::run(&paths).await.map(|()| ExitCode::SUCCESS),
        Command::Test => suite::run(&paths).await.map(|()| ExitCode::SUCCESS),
        Command::Generate { check } => generate::run(&paths, check).await.map(|()| ExitCode::SUCCESS),
    }
}
