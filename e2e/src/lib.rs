//! Builds the images, starts real services and clusters, and runs the platform on them.
//! `main` only parses arguments; everything that tests use too is here.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    args::{Cli, Command},
    paths::Paths,
};

pub mod alerts;
pub mod args;
pub mod bench;
pub mod bench_api;
pub mod bench_operator;
pub mod bench_realtime;
pub mod benchmark;
pub mod client;
pub mod cluster;
pub mod demo;
pub mod dev;
pub mod generate;
pub mod history;
pub mod images;
pub mod install;
pub mod journey;
pub mod kubernetes;
pub mod lint;
pub mod load;
pub mod manifests;
pub mod paths;
pub mod platform;
pub mod process;
pub mod rootfs;
pub mod scenarios;
pub mod services;
pub mod slice;
pub mod stage;
pub mod suite;
pub mod sweep;
pub mod tools;
pub mod transcript;
pub mod writer;

/// Runs one command of the command line.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    let paths = Paths::from_environment()?;
    match cli.command {
        Command::Images(command) => images::args::run(&paths, command).await,
        Command::Services(command) => services::args::run(&paths, command).await,
        Command::Demo => done(demo::run(&paths).await),
        Command::Down => done(demo::down(&paths).await),
        Command::Kubeconfig => done(demo::kubeconfig(&paths).await),
        Command::Dev => done(dev::run(&paths).await),
        Command::Lint => done(lint::run(&paths).await),
        Command::Alerts => done(alerts::run(&paths).await),
        Command::Manifests => done(manifests::check(&paths).await),
        Command::Test => done(suite::run(&paths).await),
        Command::Sweep => done(sweep::run(&paths).await),
        Command::Slice => done(suite::slice(&paths).await),
        Command::Bench => done(bench::run(&paths).await),
        Command::BenchOperator => done(bench_operator::run(&paths).await),
        Command::BenchApi(command) => done(bench_api::run(&paths, &command).await),
        Command::BenchRealtime(command) => done(bench_realtime::run(&paths, &command).await),
        Command::Load(command) => done(load::run(&paths, &command).await),
        Command::Scenarios(command) => scenarios::args::run(&paths, command).await,
        Command::Campaign => done(suite::campaign(&paths).await),
        Command::Generate { check } => done(generate::run(&paths, check).await),
    }
}

fn done(outcome: Result<()>) -> Result<ExitCode> {
    outcome.map(|()| ExitCode::SUCCESS)
}
