//! What each subcommand does.

use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use crds::config::LogLevel;
use sqlx::postgres::PgConnectOptions;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, NewUser};
use crate::args::{AdminCommand, Arguments, Command, ConfigCommand, MigrateArguments, ServeArguments};
use crate::command::capacity::Capacity;
use crate::command::{self, Operation};
use crate::config::load::load;
use crate::keys::Keys;
use crate::launch::Launch;
use crate::search::approximate::Scale;
use crate::{check, http, migrate, telemetry, trust};

/// A configuration file with every key at its default.
pub const EXAMPLE: &str = include_str!("../../config/api-server.yaml");
/// Kubernetes shows what a container wrote here when it failed.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Runs a command; a failure is one line on standard error, the last one.
pub async fn run(arguments: Arguments) -> ExitCode {
    let outcome = match &arguments.command {
        Command::Serve(serve_arguments) => serve(serve_arguments, &arguments).await,
        Command::Migrate(target) => migrate(target, &arguments).await,
        Command::Admin(command) => admin(command).await,
        Command::Config(ConfigCommand::Check { file }) => check_config(file),
        Command::Config(ConfigCommand::Example) => print(EXAMPLE),
        Command::Cache { config, command } => {
            operate(config, async |operation| {
                command::cache::run(operation, command).await
            })
            .await
        }
        Command::Db { config, command } => {
            operate(config, async |operation| {
                command::database::run(operation, command).await
            })
            .await
        }
        Command::Capacity {
            peak_users,
            average_users,
        } => {
            let average = average_users.unwrap_or(peak_users / 3);
            if average > *peak_users {
                Err(anyhow!("--average-users must not be more than --peak-users"))
            } else {
                print(&Capacity::of(*peak_users, average).to_string())
            }
        }
        Command::Openapi => http::openapi::document()
            .map_err(Into::into)
            .and_then(|text| print(&text)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("{error:#}")
                .lines()
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(" ");
            eprintln!("tanka-api: {line}");
            // Absent outside of Kubernetes.
            if Path::new(TERMINATION_LOG).exists() {
                let _ = std::fs::write(TERMINATION_LOG, &line);
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(serve: &ServeArguments, arguments: &Arguments) -> anyhow::Result<()> {
    let (config, fingerprint) = load(&serve.config)?;
    telemetry::start(arguments.log_format, config.log_level);
    let first = config.clone();
    tokio::task::spawn_blocking(move || telemetry::apply(&first)).await?;
    // Registered before anything starts, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let launch = Launch {
        config,
        file: Some((serve.config.clone(), fingerprint)),
        keys: Keys::load(&serve.pepper_file)?,
        listen: serve.listen,
        ops_listen: serve.ops_listen,
        scale: Scale::default(),
    };
    let running = launch.start().await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        // What is left could serve stale events or rights; a new process serves all.
        () = running.app.lifecycle().failed.cancelled() => return Err(anyhow!("a background task ended")),
    }
    tokio::select! {
        _ = running.drain() => {}
        // A second signal means at once.
        _ = terminate.recv() => return Err(anyhow!("a second signal ended the drain")),
        _ = interrupt.recv() => return Err(anyhow!("a second signal ended the drain")),
    }
    tokio::task::spawn_blocking(telemetry::end).await?;
    Ok(())
}

async fn migrate(target: &MigrateArguments, arguments: &Arguments) -> anyhow::Result<()> {
    telemetry::start(arguments.log_format, LogLevel::Info);
    let services = check::Services {
        primary: target.url_file.clone(),
        replicas: target.check.replica_url_files.clone(),
        redis: target.check.redis_url_file.clone(),
        postgres_authority: target.ca_file.clone(),
        redis_authority: target.check.redis_ca_file.clone(),
    };
    if !services.is_empty() {
        services.wait(target.check.listen).await?;
    }
    let timeout = Duration::from_secs(target.timeout_seconds);
    let options = connect_options(target)?;
    let external = target.url_file.is_some();
    let applied = migrate::run(&migrate::Target {
        options,
        timeout,
        external,
    })
    .await?;
    tracing::info!(applied, version = migrate::latest_version(), "schema is current");
    Ok(())
}

/// How to connect as the role that owns the tables.
fn connect_options(target: &MigrateArguments) -> anyhow::Result<PgConnectOptions> {
    if let Some(path) = &target.url_file {
        let url = migrate::read_secret(path)?;
        let options = PgConnectOptions::from_str(&url)
            .map_err(|_| anyhow!("{} holds no PostgreSQL URL", path.display()))?;
        return Ok(trust::postgres(options, target.ca_file.as_deref()));
    }
    let host = target
        .host
        .as_deref()
        .context("a host or a file with a URL is needed")?;
    let options = PgConnectOptions::new_without_pgpass()
        .host(host)
        .port(target.port)
        .username(&target.user)
        .database(&target.database);
    let options = trust::postgres(options, target.ca_file.as_deref());
    Ok(match &target.password_file {
        Some(path) => options.password(&migrate::read_secret(path)?),
        None => options,
    })
}

async fn admin(command: &AdminCommand) -> anyhow::Result<()> {
    let id = match command {
        AdminCommand::CreateTenant { target, name } => {
            admin::create_tenant(&connect_options(target)?, name).await?
        }
        AdminCommand::CreateUser {
            target,
            tenant,
            email,
            name,
            new_password_file,
            role,
            operator,
        } => {
            let user = NewUser {
                email: email.clone(),
                name: name.clone(),
                password: migrate::read_secret(new_password_file)?.into(),
                role: *role,
                operator: *operator,
            };
            admin::create_user(&connect_options(target)?, *tenant, &user).await?
        }
    };
    print(&format!("{id}\n"))
}

/// Runs a command of who operates the platform, and prints what it answers.
async fn operate(
    config: &Path,
    command: impl AsyncFnOnce(&Operation) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let operation = Operation::open(config).await?;
    let outcome = command(&operation).await;
    operation.close().await;
    print(&outcome?)
}

fn check_config(file: &Path) -> anyhow::Result<()> {
    load(file)?;
    print(&format!("{} is valid\n", file.display()))
}

fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("failed to write to standard output")
}
