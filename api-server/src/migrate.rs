//! Brings the schema to this release. One process at a time, with a limit for every lock and for everything together.

mod foreign;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::migrate::{Migrate, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};
use tokio::time::{Instant, sleep, timeout_at};

pub use self::foreign::prepare as prepare_external;
use crate::entropy;

/// All migrations, compiled in.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The number only has to differ from other advisory locks of this database. sqlx's own lock is not used: its waiters hold
/// a snapshot, and `CREATE INDEX CONCURRENTLY` waits for snapshots.
const LOCK: i64 = 7_205_759_403_792_793;
/// Role that requests run as. It owns nothing and is subject to row-level security.
pub const APP_ROLE: &str = "tanka_app";
/// Pause between attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// How long one statement may wait for a lock before the attempt ends without harm. Requests queue behind it, and wait for a lock for three
/// seconds: it gives way before they do.
const LOCK_TIMEOUT: &str = "2s";

/// Version of the newest migration of this release.
pub fn latest_version() -> i64 {
    MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// Where to migrate, and how long that may take.
#[derive(Debug, Clone)]
pub struct Target {
    /// How to connect, as the role that owns the tables.
    pub options: PgConnectOptions,
    /// Limit of everything.
    pub timeout: Duration,
    /// Whether somebody else runs the database: then nobody has made the roles and extensions that migrations rely on.
    pub external: bool,
}

/// Applies what is missing; answers how many migrations that were. Tries again until the limit: the database may be
/// starting, failing over, or busy.
pub async fn run(target: &Target) -> anyhow::Result<usize> {
    let deadline = Instant::now() + target.timeout;
    loop {
        let error = match timeout_at(deadline, attempt(target)).await {
            Ok(Ok(applied)) => return Ok(applied),
            Ok(Err(error)) => error,
            Err(_) => bail!(
                "the migration did not finish within {} s",
                target.timeout.as_secs()
            ),
        };
        if !is_transient(&error) || Instant::now() + PAUSE * 2 > deadline {
            return Err(error);
        }
        tracing::warn!(error = %format!("{error:#}"), "migration is tried again");
        sleep(entropy::jitter(PAUSE)).await;
    }
}

async fn attempt(target: &Target) -> anyhow::Result<usize> {
    let options = target
        .options
        .clone()
        .application_name("tanka-migrate")
        .disable_statement_logging()
        .options([
            ("lock_timeout", LOCK_TIMEOUT),
            ("idle_in_transaction_session_timeout", "60s"),
        ]);
    let mut connection = options
        .connect()
        .await
        .context("failed to connect to the primary")?;
    lock(&mut connection).await?;
    if target.external {
        foreign::prepare(&mut connection, APP_ROLE).await?;
    }
    drop_invalid_indexes(&mut connection).await?;
    connection
        .ensure_migrations_table("_sqlx_migrations")
        .await
        .context("failed to prepare the history")?;
    let before = connection
        .list_applied_migrations("_sqlx_migrations")
        .await?
        .len();
    let mut migrator = Migrator {
        migrations: MIGRATIONS.migrations.clone(),
        ..Migrator::DEFAULT
    };
    // A newer release may have been here; its migrations only added what this release does not use.
    migrator.set_ignore_missing(true).set_locking(false);
    migrator
        .run_direct(None, &mut connection, false)
        .await
        .context("failed to apply a migration")?;
    foreign::open_internal_policies(&mut connection).await?;
    let after = connection
        .list_applied_migrations("_sqlx_migrations")
        .await?
        .len();
    let _ = connection.close().await;
    Ok(after - before)
}

/// Waits until no other process migrates. The lock ends with the session.
async fn lock(connection: &mut PgConnection) -> anyhow::Result<()> {
    loop {
        let locked = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "locked!""#, LOCK)
            .fetch_one(&mut *connection)
            .await
            .context("failed to lock the history")?;
        if locked {
            return Ok(());
        }
        tracing::info!("another process migrates, waiting");
        sleep(entropy::jitter(PAUSE)).await;
    }
}

/// `CREATE INDEX CONCURRENTLY` that was interrupted leaves an index that slows writes and serves nothing, and whose name
/// makes the next attempt skip it.
async fn drop_invalid_indexes(connection: &mut PgConnection) -> anyhow::Result<()> {
    let names = sqlx::query_scalar!(
        r#"SELECT quote_ident(c.relname) AS "name!" FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            WHERE NOT i.indisvalid AND c.relnamespace = 'public'::regnamespace"#
    )
    .fetch_all(&mut *connection)
    .await
    .context("failed to look for invalid indexes")?;
    for name in names {
        tracing::warn!(
            index = name,
            "dropping an index that an earlier attempt left invalid"
        );
        let statement = sqlx::AssertSqlSafe(format!("DROP INDEX CONCURRENTLY IF EXISTS public.{name}"));
        connection
            .execute(sqlx::raw_sql(statement))
            .await
            .context("failed to drop an invalid index")?;
    }
    Ok(())
}

/// Whether a later attempt can succeed: the database was away, not the primary, or a lock was not to be had.
fn is_transient(error: &anyhow::Error) -> bool {
    use crate::routing::retry::{Fault, classify};
    error.chain().any(|cause| {
        if let Some(sqlx::Error::Database(refused)) = cause.downcast_ref::<sqlx::Error>()
            && refused.code().is_some_and(|code| code == "55P03")
        {
            return true;
        }
        cause
            .downcast_ref::<sqlx::Error>()
            .is_some_and(|error| classify(error) != Fault::Final)
    })
}

/// Reads a password file; white space at its end does not count.
pub fn read_secret(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(text.trim_end().to_owned())
}
