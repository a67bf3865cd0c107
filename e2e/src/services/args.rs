//! `e2e services`.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Subcommand;
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{
    paths::Paths,
    services::{
        Platform,
        control::{self, Action},
    },
};

/// An interrupted command gets that long before it is killed.
const INTERRUPT_GRACE: Duration = Duration::from_secs(10);

/// What can be done with services.
#[derive(Debug, Subcommand)]
pub enum ServicesCommand {
    /// Starts them, runs a command that finds them in its environment (`TANKA_TEST_*`), and ends them.
    Run {
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// From within that command: acts on one service.
    Ctl {
        /// What to do.
        action: Action,
        /// Such as `pg-primary`, `pg-replica-1`, `redis-0`, `sentinel-0`, `cluster-0`.
        service: Option<String>,
    },
}

/// Runs it.
pub async fn run(paths: &Paths, command: ServicesCommand) -> Result<ExitCode> {
    match command {
        ServicesCommand::Run { command } => run_with_services(paths, &command).await,
        ServicesCommand::Ctl { action, service } => {
            print!("{}", control::request(action, service.as_deref()).await?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn run_with_services(paths: &Paths, command: &[String]) -> Result<ExitCode> {
    let start = Instant::now();
    let mut platform = Platform::start(paths).await?;
    platform.add_redis_cluster().await?;
    eprintln!(
        "PostgreSQL and Redis are ready after {:.1} s",
        start.elapsed().as_secs_f32()
    );
    let listener = control::listen(&platform.stack)?;
    // The death signal reaches the command even when this process is killed.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "TERM", "--"])
        .args(command)
        .envs(platform.environment()?)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to start {}", command[0]))?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let code = loop {
        tokio::select! {
            status = child.wait() => break status?.code().unwrap_or(1),
            connection = listener.accept() => control::serve(&mut platform.stack, connection?.0).await,
            // The terminal sends an interrupt to the command too.
            _ = interrupt.recv() => break end(&mut child).await?,
            _ = terminate.recv() => {
                child.start_kill()?;
                break end(&mut child).await?;
            }
        }
    };
    platform.stack.tear_down().await?;

    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

async fn end(child: &mut Child) -> Result<i32> {
    if timeout(INTERRUPT_GRACE, child.wait()).await.is_err() {
        child.start_kill()?;
    }
    Ok(child.wait().await?.code().unwrap_or(1))
}
