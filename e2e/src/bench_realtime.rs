//! `make bench-realtime`: what real time costs and how fast it is, over two servers and through Redis. Real services, real processes;
//! the clients share the machine with them. Every delivery is counted: a figure with a loss fails.

mod crash;
mod follow;
mod losses;
mod peers;
mod published;
mod raw;
mod restart;
mod rows;
mod slow;
mod tally;
mod team;

use std::path::Path;

use anyhow::Result;
use clap::Args;

use self::team::{EACH, Team};
use crate::benchmark::program::Program;
use crate::benchmark::report::Report;
use crate::benchmark::server::Server;
use crate::dev::Folder;
use crate::paths::Paths;
use crate::services::Platform;

/// What is measured.
#[derive(Debug, Args)]
pub struct BenchRealtimeCommand {
    #[command(flatten)]
    program: Program,
    /// Only these rows, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "idle,fan-out,rooms,slow,registry,restart,crash,peers,losses"
    )]
    rows: Vec<String>,
    /// Subscribers of one channel, over two servers.
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// Messages a second that are written to that channel; each is a row.
    #[arg(long, value_delimiter = ',', default_value = "100,205,300")]
    rates: Vec<u32>,
    /// Seconds of one row.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Idle connections at one server.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Small rooms, and connections that listen to them.
    #[arg(long, default_value_t = 5_000)]
    rooms: usize,
    /// Clients of two servers, one of which is killed.
    #[arg(long, default_value_t = 5_000)]
    clients: usize,
    /// Messages of the run that loses Redis and PostgreSQL.
    #[arg(long, default_value_t = 100_000)]
    messages: usize,
}

impl BenchRealtimeCommand {
    fn wants(&self, row: &str) -> bool {
        self.rows.iter().any(|wanted| wanted == row)
    }

    /// People enough for the row with the most connections to one server.
    fn people(&self) -> usize {
        let idle = if self.wants("idle") { self.idle } else { 0 };
        let rooms = if self.wants("rooms") { self.rooms } else { 0 };
        let followed = self.wants("crash") || self.wants("restart");
        let clients = if followed { self.clients } else { 0 };
        idle.max(rooms)
            .max(clients)
            .max(self.subscribers + 1)
            .div_ceil(EACH)
            + 1
    }
}

/// Measures, prints one line a figure and a table at the end.
pub async fn run(paths: &Paths, command: &BenchRealtimeCommand) -> Result<()> {
    let binary = command.program.binary(paths).await?;
    let machine = format!(
        "{} logical cores, shared by servers, clients, PostgreSQL and Redis",
        std::thread::available_parallelism()?,
    );
    println!("{machine}; {}", binary.display());
    let mut report = Report::new(paths, "bench-realtime", &machine)?;
    let mut platform = Platform::start(paths).await?;
    let outcome = async {
        let folder = Folder::new(paths, platform.environment()?)?;
        folder.migrate(&binary).await?;
        measure(paths, &folder, &mut platform, &binary, command, &mut report).await
    };
    let outcome = outcome.await;
    platform.stack.tear_down().await?;
    report.finish()?;
    outcome
}

async fn measure(
    paths: &Paths,
    folder: &Folder,
    platform: &mut Platform,
    binary: &Path,
    command: &BenchRealtimeCommand,
    report: &mut Report,
) -> Result<()> {
    let (mut first, mut second) = (
        Server::start(folder, binary).await?,
        Server::start(folder, binary).await?,
    );
    let team = Team::gather(&first.address, command.people()).await?;
    let both = [&first, &second];
    if command.wants("idle") {
        // The second one has served nobody yet.
        rows::idle(report, &team, &second, command.idle).await?;
    }
    if command.wants("fan-out") {
        let load = (command.subscribers, command.rates.as_slice(), command.seconds);
        rows::fan_out(report, &team, &both, load).await?;
    }
    if command.wants("rooms") {
        rows::rooms(report, &team, &both, platform, (command.rooms, command.seconds)).await?;
    }
    if command.wants("slow") {
        let load = (command.subscribers, 100, command.seconds);
        slow::slow_reader(report, &team, &both, platform, load).await?;
    }
    if command.wants("registry") {
        rows::registry(report, &team, &first, platform).await?;
    }
    if command.wants("restart") {
        restart::roll(report, &team, [&mut first, &mut second], command.clients).await?;
    }
    if command.wants("crash") {
        crash::kill(report, &team, &first, second, command.clients).await?;
    }
    if command.wants("peers") {
        let rates = [100, 205];
        peers::run(report, paths, (command.idle, command.subscribers, &rates)).await?;
    }
    if command.wants("losses") {
        // Last: nothing of the services is as it was.
        let second = Server::start(folder, binary).await?;
        losses::run(report, &team, &[&first, &second], platform, command.messages).await?;
    }
    Ok(())
}
