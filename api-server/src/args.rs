//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

use crate::cache::warm::Mode;
use crate::domain::principal::Role;
use crate::telemetry::LogFormat;

/// The Tanka API server.
#[derive(Debug, Parser)]
#[command(name = "tanka-api", version, about)]
pub struct Arguments {
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Json, env = "TANKA_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API.
    Serve(ServeArguments),
    /// Bring the schema to this release.
    Migrate(MigrateArguments),
    /// Make tenants and accounts, as the role that owns the tables.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Work with the configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at the cache, fill it, empty it.
    Cache {
        /// Configuration file of the servers.
        #[arg(
            long,
            default_value = "/etc/tanka/tanka.yaml",
            env = "TANKA_CONFIG",
            global = true
        )]
        config: PathBuf,
        /// What to do.
        #[command(subcommand)]
        command: CacheCommand,
    },
    /// Look at the database.
    Db {
        /// Configuration file of the servers.
        #[arg(
            long,
            default_value = "/etc/tanka/tanka.yaml",
            env = "TANKA_CONFIG",
            global = true
        )]
        config: PathBuf,
        /// What to look at.
        #[command(subcommand)]
        command: DatabaseCommand,
    },
    /// Print how large a platform has to be, as a part of its definition.
    Capacity {
        /// People who are there at the same time at the peak, up to 10,000,000.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        peak_users: u32,
        /// People who are there at the same time on average; a third of the peak if absent.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        average_users: Option<u32>,
    },
    /// Print the OpenAPI document.
    Openapi,
}

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Print counts of all servers.
    Stats,
    /// Load answers before somebody asks.
    Warm {
        /// What to load.
        #[arg(long, value_enum, default_value_t = Mode::Full)]
        mode: Mode,
        /// At most so many of each, 1 to 10,000.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// People who were here in so many days, 1 to 365.
        #[arg(long, default_value_t = 7)]
        days: u32,
    },
    /// Drop what is cached, on every server.
    #[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
    Invalidate {
        /// Everything of one person.
        #[arg(long, group = "what")]
        user: Option<Uuid>,
        /// Everything of one kind, such as `memories` or `plan_catalog`.
        #[arg(long, group = "what")]
        prefix: Option<String>,
        /// Everything of one entity, such as `plan_catalog:v1:-:-`.
        #[arg(long, group = "what")]
        key: Option<String>,
    },
}

/// What to look at in the database.
#[derive(Debug, Subcommand)]
pub enum DatabaseCommand {
    /// Connections: how many, how busy, how many more there may be.
    Pool,
    /// Slow statements.
    Slow {
        /// Milliseconds from which on a statement is slow.
        #[arg(long, default_value_t = 100)]
        threshold: u32,
    },
    /// Indexes and their use.
    Indexes,
    /// Blocks that are found in shared buffers.
    Cache,
}

/// Where to serve, and with what.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Configuration file; it is read again when it changes.
    #[arg(long, default_value = "/etc/tanka/tanka.yaml", env = "TANKA_CONFIG")]
    pub config: PathBuf,
    /// Address of the API.
    #[arg(long, default_value = "0.0.0.0:8000", env = "TANKA_LISTEN")]
    pub listen: SocketAddr,
    /// Address of metrics and health checks.
    #[arg(long, default_value = "0.0.0.0:9000", env = "TANKA_OPS_LISTEN")]
    pub ops_listen: SocketAddr,
    /// File with the secret from which keys for tokens are derived; at least 32 bytes.
    #[arg(long, env = "TANKA_PEPPER_FILE")]
    pub pepper_file: PathBuf,
}

/// Which database to migrate.
#[derive(Debug, Args)]
pub struct MigrateArguments {
    /// File with a `postgres://` URL, instead of the other flags.
    #[arg(long, env = "TANKA_MIGRATE_URL_FILE", conflicts_with_all = ["host", "password_file"])]
    pub url_file: Option<PathBuf>,
    /// Host of the primary.
    #[arg(long, env = "TANKA_MIGRATE_HOST", required_unless_present = "url_file")]
    pub host: Option<String>,
    /// Its port.
    #[arg(long, env = "TANKA_MIGRATE_PORT", default_value_t = 5432)]
    pub port: u16,
    /// Role that owns the tables.
    #[arg(long, env = "TANKA_MIGRATE_USER", default_value = "tanka_owner")]
    pub user: String,
    /// Database.
    #[arg(long, env = "TANKA_MIGRATE_DATABASE", default_value = "tanka")]
    pub database: String,
    /// File with the role's password.
    #[arg(long, env = "TANKA_MIGRATE_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    /// File with the certificate of the authority that signs those of PostgreSQL.
    #[arg(long, env = "TANKA_MIGRATE_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Seconds after which the migration gives up. Waiting for external services does not count.
    #[arg(long, env = "TANKA_MIGRATE_TIMEOUT_SECONDS", default_value_t = 300)]
    pub timeout_seconds: u64,
    /// What else must be usable before it begins.
    #[command(flatten)]
    pub check: CheckArguments,
}

/// Services that somebody else runs, beside the primary.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Files with the `postgres://` URL of a replica each.
    #[arg(
        long,
        env = "TANKA_CHECK_REPLICA_URL_FILES",
        value_delimiter = ',',
        requires = "url_file"
    )]
    pub replica_url_files: Vec<PathBuf>,
    /// File with a `redis://` URL.
    #[arg(long, env = "TANKA_CHECK_REDIS_URL_FILE")]
    pub redis_url_file: Option<PathBuf>,
    /// File with the certificate of the authority that signs Redis' own.
    #[arg(long, env = "TANKA_CHECK_REDIS_CA_FILE", requires = "redis_url_file")]
    pub redis_ca_file: Option<PathBuf>,
    /// Address at which `GET /check` says what is still missing; absent: one look, and its finding ends the migration.
    #[arg(long, env = "TANKA_CHECK_LISTEN")]
    pub listen: Option<SocketAddr>,
}

/// What operators do by hand.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Make a tenant; prints its id.
    CreateTenant {
        /// The database.
        #[command(flatten)]
        target: MigrateArguments,
        /// Name of the tenant.
        #[arg(long)]
        name: String,
    },
    /// Make an account in a tenant; prints its id.
    CreateUser {
        /// The database.
        #[command(flatten)]
        target: MigrateArguments,
        /// The tenant.
        #[arg(long)]
        tenant: Uuid,
        /// Address of the person.
        #[arg(long)]
        email: String,
        /// Name of the person.
        #[arg(long)]
        name: String,
        /// File with the first password.
        #[arg(long)]
        new_password_file: PathBuf,
        /// What the person may do in the tenant: owner, admin, member or viewer.
        #[arg(long, default_value = "owner")]
        role: Role,
        /// Whether the person operates the platform, across tenants.
        #[arg(long)]
        operator: bool,
    },
}

/// What to do with a configuration file.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Validate a file.
    Check {
        /// The file.
        #[arg(default_value = "/etc/tanka/tanka.yaml")]
        file: PathBuf,
    },
    /// Print a file with every key.
    Example,
}
