//! `e2e scenarios`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::paths::Paths;
use crate::scenarios;

/// Which scenarios, and what becomes of the cluster.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct ScenariosCommand {
    /// Names, or beginnings of names; all when none is given.
    pub names: Vec<String>,
    /// Only those that are part of `make test`.
    #[arg(long)]
    pub quick: bool,
    /// Only print names and what they show.
    #[arg(long)]
    pub list: bool,
    /// Leave the cluster running, for the next run or a closer look.
    #[arg(long)]
    pub keep: bool,
    /// Play on the cluster that an earlier run has kept, as it stands: nothing is built, loaded or installed.
    #[arg(long)]
    pub as_is: bool,
    /// Play each this often.
    #[arg(long, default_value_t = 1)]
    pub times: u32,
}

/// Runs it.
pub async fn run(paths: &Paths, command: ScenariosCommand) -> Result<ExitCode> {
    let chosen = scenarios::choose(&command.names, command.quick)?;
    if command.list {
        for scenario in chosen {
            println!("{:<28} {}", scenario.name, scenario.shows);
        }
        return Ok(ExitCode::SUCCESS);
    }
    scenarios::run(paths, &chosen, &command).await?;
    Ok(ExitCode::SUCCESS)
}
