//! A database that somebody else runs, reached with the one login that owns it.

use anyhow::Context;
use sqlx::{Executor, PgConnection};

/// Makes what the operator's own PostgreSQL has from its first day: the role that requests run as, its default privileges, and the
/// extensions. Every statement can be repeated. The role belongs to the whole server, so it may be there already.
///
/// # Errors
/// The database's, with what was being done.
pub async fn prepare(connection: &mut PgConnection, role: &str) -> anyhow::Result<()> {
    let quoted: String = sqlx::query_scalar("SELECT quote_ident($1)")
        .bind(role)
        .fetch_one(&mut *connection)
        .await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(role)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        execute(connection, format!("CREATE ROLE {quoted} NOLOGIN NOBYPASSRLS"))
            .await
            .with_context(|| format!("failed to make the role {role}"))?;
    }
    let may_act: bool = sqlx::query_scalar("SELECT pg_has_role(oid, 'SET') FROM pg_roles WHERE rolname = $1")
        .bind(role)
        .fetch_one(&mut *connection)
        .await?;
    if !may_act {
        execute(connection, format!("GRANT {quoted} TO CURRENT_USER"))
            .await
            .with_context(|| format!("failed to become a member of the role {role}"))?;
    }
    for statement in [
        format!("GRANT USAGE ON SCHEMA public TO {quoted}"),
        format!(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {quoted}"
        ),
        format!("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO {quoted}"),
    ] {
        execute(connection, statement)
            .await
            .with_context(|| format!("failed to give the role {role} its rights"))?;
    }
    for extension in ["vector", "pg_trgm", "btree_gin"] {
        execute(
            connection,
            format!("CREATE EXTENSION IF NOT EXISTS {extension} SCHEMA public"),
        )
        .await
        .with_context(|| {
            format!("failed to make the extension {extension}: have an administrator of the server make it")
        })?;
    }
    Ok(())
}

/// Functions of the owner see rows of all tenants, when the application calls them. The policies `internal` tell such a call by the
/// session's user; where owner and application share a login, by the role that the session took. A session of the owner itself has taken
/// none, and sees nothing without a tenant.
///
/// # Errors
/// The database's.
pub async fn open_internal_policies(connection: &mut PgConnection) -> anyhow::Result<()> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT quote_ident(tablename) FROM pg_policies
          WHERE schemaname = 'public' AND policyname = 'internal' AND qual NOT LIKE '%''role''%'",
    )
    .fetch_all(&mut *connection)
    .await
    .context("failed to read the policies")?;
    for table in tables {
        let statement = format!(
            "ALTER POLICY internal ON public.{table} USING
                ((SELECT session_user) <> (SELECT current_user) OR (SELECT current_setting('role')) = '{}')",
            super::APP_ROLE
        );
        execute(connection, statement)
            .await
            .with_context(|| format!("failed to change the policy of {table}"))?;
    }
    Ok(())
}

async fn execute(connection: &mut PgConnection, statement: String) -> sqlx::Result<()> {
    connection
        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement)))
        .await
        .map(|_| ())
}
