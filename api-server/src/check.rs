//! Whether a PostgreSQL and a Redis that somebody else runs can be used: reachable, in the right role, new enough, and with the rights
//! that a migration needs. Asked before a release uses them; each answer is one sentence for people, without credentials.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use arc_swap::ArcSwap;
use axum::routing::get;
use axum::{Json, Router};
use redis::IntoConnectionInfo;
use redis::aio::MultiplexedConnection;
use serde::Serialize;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::migrate::{APP_ROLE, read_secret};
use crate::trust;

/// Limit of one look at one service.
const LIMIT: Duration = Duration::from_secs(4);
/// Pause between looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Oldest PostgreSQL, as the server numbers itself: rights to act as a role are told apart from membership since then.
const OLDEST_POSTGRES: i32 = 160_000;
/// Oldest Redis.
const OLDEST_REDIS: u32 = 7;

/// What is to be checked. Files hold one URL each.
#[derive(Debug, Clone, Default)]
pub struct Services {
    /// The primary.
    pub primary: Option<PathBuf>,
    /// Replicas.
    pub replicas: Vec<PathBuf>,
    /// Redis.
    pub redis: Option<PathBuf>,
    /// Certificate of the authority that signs those of PostgreSQL.
    pub postgres_authority: Option<PathBuf>,
    /// Certificate of the authority that signs Redis' own.
    pub redis_authority: Option<PathBuf>,
}

/// What keeps the services from being used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Of PostgreSQL.
    pub postgres: Option<String>,
    /// Of Redis.
    pub redis: Option<String>,
}

impl Report {
    /// The first finding.
    pub fn finding(&self) -> Option<&str> {
        self.postgres.as_deref().or(self.redis.as_deref())
    }
}

impl Services {
    /// Whether there is nothing to check.
    pub fn is_empty(&self) -> bool {
        self.primary.is_none() && self.redis.is_none()
    }

    /// Looks once.
    pub async fn look(&self) -> Report {
        let (postgres, redis) = tokio::join!(self.postgres(), self.redis());
        let sentence = |error: anyhow::Error| format!("{error:#}").lines().collect::<Vec<_>>().join(" ");
        Report {
            postgres: postgres.err().map(sentence),
            redis: redis.err().map(sentence),
        }
    }

    /// Looks until there is nothing to complain of, and tells everybody who asks at `GET /check` what it saw last. Without an
    /// address it looks once.
    ///
    /// # Errors
    /// When the address cannot be bound, or, without one, the first finding.
    pub async fn wait(&self, listen: Option<SocketAddr>) -> anyhow::Result<()> {
        let Some(listen) = listen else {
            return match self.look().await.finding() {
                Some(finding) => bail!("{finding}"),
                None => Ok(()),
            };
        };
        let seen = Arc::new(ArcSwap::from_pointee(Report::default()));
        let shown = seen.clone();
        let router = Router::new().route("/check", get(async move || Json(shown.load().as_ref().clone())));
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("failed to listen on {listen}"))?;
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        loop {
            let report = self.look().await;
            let Some(finding) = report.finding() else { break };
            if **seen.load() != report {
                tracing::warn!(finding, "external services cannot be used yet");
            }
            seen.store(Arc::new(report));
            sleep(PAUSE).await;
        }
        server.abort();
        Ok(())
    }

    async fn postgres(&self) -> anyhow::Result<()> {
        let Some(primary) = &self.primary else {
            return Ok(());
        };
        let authority = self.postgres_authority.as_deref();
        let system = within(("the primary", primary), authority, check_primary).await?;
        for (index, replica) in self.replicas.iter().enumerate() {
            let name = format!("replica-{index}");
            let other = within((&name, replica), authority, check_replica).await?;
            if let (Some(system), Some(other)) = (system, other) {
                ensure!(
                    system == other,
                    "{name} is a copy of another PostgreSQL than the primary: name a replica of the same system"
                );
            }
        }
        Ok(())
    }

    async fn redis(&self) -> anyhow::Result<()> {
        let Some(file) = &self.redis else { return Ok(()) };
        let url = read_secret(file)?;
        let info = url.as_str().into_connection_info().map_err(|_| {
            anyhow!("the Secret of Redis holds no URL: write redis://user:password@host:port/0")
        })?;
        let place = info.addr().to_string();
        let authority = self.redis_authority.as_deref().map(read_secret).transpose()?;
        let client = trust::redis(info, authority.map(String::into_bytes))
            .with_context(|| format!("Redis at {place} cannot be used"))?;
        let looked = timeout(LIMIT, check_redis(&client)).await;
        looked
            .map_err(|_| anyhow!("it does not answer within {} s", LIMIT.as_secs()))
            .flatten()
            .map_err(explained)
            .with_context(|| format!("Redis at {place} cannot be used"))
    }
}

/// An error with what it means in front, where that is known.
fn explained(error: anyhow::Error) -> anyhow::Error {
    match trust::explain(&error) {
        Some(words) => error.context(words),
        None => error,
    }
}

/// Connects by the URL in a file and checks what answers; the words name host and port, never the credentials.
async fn within<F>(
    (name, file): (&str, &Path),
    authority: Option<&Path>,
    check: impl Fn(PgConnection) -> F,
) -> anyhow::Result<Option<i64>>
where
    F: Future<Output = anyhow::Result<Option<i64>>>,
{
    let url = read_secret(file)?;
    let options = PgConnectOptions::from_str(&url).map_err(|_| {
        anyhow!("the Secret of {name} holds no URL: write postgres://user:password@host:5432/database")
    })?;
    let place = format!("{}:{}", options.get_host(), options.get_port());
    let look = async {
        let options = trust::postgres(options, authority)
            .application_name("tanka-check")
            .disable_statement_logging();
        check(options.connect().await?).await
    };
    timeout(LIMIT, look)
        .await
        .map_err(|_| anyhow!("it does not answer within {} s", LIMIT.as_secs()))
        .flatten()
        .map_err(explained)
        .with_context(|| format!("{name} at {place} cannot be used"))
}

/// What a session says about itself. Not checked macros: nothing of it is in our schema.
#[derive(Debug, sqlx::FromRow)]
#[expect(clippy::struct_excessive_bools, reason = "answers of one query")]
struct Standing {
    login: String,
    in_recovery: bool,
    read_only: bool,
    version: i32,
    may_create: bool,
    may_make_roles: bool,
    has_role: bool,
    may_act: bool,
    knows_vector: bool,
    may_have_vector: bool,
}

const STANDING: &str = "SELECT current_user::text AS login, pg_is_in_recovery() AS in_recovery,
    current_setting('default_transaction_read_only') = 'on' AS read_only,
    current_setting('server_version_num')::int AS version,
    has_schema_privilege('public', 'CREATE') AS may_create,
    (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) AS may_make_roles,
    EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS has_role,
    COALESCE((SELECT pg_has_role(oid, 'SET') FROM pg_roles WHERE rolname = $1), false) AS may_act,
    EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') AS knows_vector,
    EXISTS (SELECT FROM pg_extension WHERE extname = 'vector')
        OR EXISTS (SELECT FROM pg_available_extension_versions WHERE name = 'vector' AND trusted)
        OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS may_have_vector";

async fn check_primary(mut connection: PgConnection) -> anyhow::Result<Option<i64>> {
    let seen: Standing = sqlx::query_as(STANDING)
        .bind(APP_ROLE)
        .fetch_one(&mut connection)
        .await?;
    ensure!(
        !seen.in_recovery,
        "it is in recovery: name the primary, and this one among the replicas"
    );
    ensure!(
        !seen.read_only,
        "it is read-only: unset default_transaction_read_only for the role {}",
        seen.login
    );
    ensure!(
        seen.version >= OLDEST_POSTGRES,
        "it is PostgreSQL {}: {} or newer is needed",
        seen.version / 10_000,
        OLDEST_POSTGRES / 10_000
    );
    ensure!(
        seen.knows_vector,
        "the extension vector is not installed on the server: install pgvector"
    );
    ensure!(
        seen.may_have_vector,
        "the database lacks the extension vector and the role {} may not make it: have an administrator run CREATE EXTENSION vector in it",
        seen.login
    );
    ensure!(
        seen.may_create,
        "the role {0} may not create tables: make {0} the owner of the database",
        seen.login
    );
    ensure!(
        seen.has_role || seen.may_make_roles,
        "the role {1} does not exist and {0} may not make it: CREATE ROLE {1} NOLOGIN; GRANT {1} TO {0}",
        seen.login,
        APP_ROLE
    );
    ensure!(
        !seen.has_role || seen.may_act || seen.may_make_roles,
        "the role {0} may not act as {1}: GRANT {1} TO {0}",
        seen.login,
        APP_ROLE
    );
    let system = system(&mut connection).await;
    let _ = connection.close().await;
    Ok(system)
}

async fn check_replica(mut connection: PgConnection) -> anyhow::Result<Option<i64>> {
    let in_recovery: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()")
        .fetch_one(&mut connection)
        .await?;
    ensure!(
        in_recovery,
        "it takes writes: it is a primary, name a replica of the primary instead"
    );
    let system = system(&mut connection).await;
    let _ = connection.close().await;
    Ok(system)
}

/// Which system an instance is a copy of, where the role may know.
async fn system(connection: &mut PgConnection) -> Option<i64> {
    sqlx::query_scalar("SELECT system_identifier FROM pg_control_system()")
        .fetch_one(connection)
        .await
        .ok()
}

async fn check_redis(client: &redis::Client) -> anyhow::Result<()> {
    let mut connection = client.get_multiplexed_async_connection().await?;
    let information: String = redis::cmd("INFO")
        .arg("server")
        .query_async(&mut connection)
        .await?;
    let version = information
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"))
        .unwrap_or("0");
    let major: u32 = version
        .split('.')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0);
    ensure!(
        major >= OLDEST_REDIS,
        "it is Redis {version}: {OLDEST_REDIS} or newer is needed"
    );
    if is_in_cluster(&mut connection).await? {
        // Any of its servers will do: the others are asked for.
        return Ok(());
    }
    let role: redis::Value = redis::cmd("ROLE").query_async(&mut connection).await?;
    let is_primary = match role {
        redis::Value::Array(parts) => parts
            .into_iter()
            .next()
            .is_some_and(|part| redis::from_redis_value::<String>(part).is_ok_and(|role| role == "master")),
        _ => false,
    };
    ensure!(
        is_primary,
        "it is a replica: name the primary, or an address that follows it"
    );
    Ok(())
}

/// Whether it is one of a Redis Cluster, which must be in working order.
async fn is_in_cluster(connection: &mut MultiplexedConnection) -> anyhow::Result<bool> {
    let information: String = redis::cmd("INFO").arg("cluster").query_async(connection).await?;
    if !information.contains("cluster_enabled:1") {
        return Ok(false);
    }
    let state: String = redis::cmd("CLUSTER").arg("INFO").query_async(connection).await?;
    ensure!(
        state.contains("cluster_state:ok"),
        "it is a Redis Cluster that is not in working order: see CLUSTER INFO"
    );
    Ok(true)
}
