//! What operators do by hand, on the primary, as the role that owns the tables: it is subject to row-level security as everybody is, so
//! each command works in the tenant that it names.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use crate::domain::account::{Email, Name, NewPassword};
use crate::domain::principal::Role;
use crate::{entropy, hashing};

/// Limit of one command.
const LIMIT: Duration = Duration::from_secs(30);

/// An account to make.
#[derive(Debug)]
pub struct NewUser {
    /// Address.
    pub email: String,
    /// Name.
    pub name: String,
    /// Password.
    pub password: SecretString,
    /// What the person may do in the tenant.
    pub role: Role,
    /// Whether the person operates the platform.
    pub operator: bool,
}

/// Makes a tenant; answers its id.
pub async fn create_tenant(options: &PgConnectOptions, name: &str) -> Result<Uuid> {
    let name = Name::parse(name).context("the name is not acceptable")?;
    let id = entropy::id();
    let work = async {
        let mut connection = connect(options).await?;
        let mut transaction = connection.begin().await?;
        enter(&mut transaction, id).await?;
        sqlx::query("INSERT INTO tenants (id, name) VALUES ($1, $2)")
            .bind(id)
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await
            .context("failed to make the tenant")?;
        transaction.commit().await.context("failed to commit")?;
        Ok(id)
    };
    timeout(LIMIT, work).await.context("the database took too long")?
}

/// Makes an account in a tenant; answers its id.
pub async fn create_user(options: &PgConnectOptions, tenant: Uuid, user: &NewUser) -> Result<Uuid> {
    let email = Email::parse(&user.email).context("the address is not acceptable")?;
    let name = Name::parse(&user.name).context("the name is not acceptable")?;
    let password =
        NewPassword::parse(&user.password, Some(&email)).context("the password is not acceptable")?;
    let hash = hashing::hash(password.secret())?;
    let id = entropy::id();
    let work = async {
        let mut connection = connect(options).await?;
        let mut transaction = connection.begin().await?;
        enter(&mut transaction, tenant).await?;
        let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM tenants WHERE id = $1)")
            .bind(tenant)
            .fetch_one(&mut *transaction)
            .await?;
        if !known {
            bail!("there is no tenant {tenant}");
        }
        sqlx::query(
            "INSERT INTO users (id, tenant_id, email, name, password_hash, role, is_operator) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id)
        .bind(tenant)
        .bind(email.as_str())
        .bind(name.as_str())
        .bind(hash)
        .bind(user.role.as_str())
        .bind(user.operator)
        .execute(&mut *transaction)
        .await
        .context("failed to make the account; its address may be taken")?;
        sqlx::query("INSERT INTO audit_logs (id, tenant_id, user_id, event_type, detail) VALUES ($1, $2, $3, 'user.created', $4)")
            .bind(entropy::id())
            .bind(tenant)
            .bind(id)
            .bind(format!("by the command line, role {}, operator {}", user.role.as_str(), user.operator))
            .execute(&mut *transaction)
            .await
            .context("failed to write the audit log")?;
        transaction.commit().await.context("failed to commit")?;
        Ok(id)
    };
    timeout(LIMIT, work).await.context("the database took too long")?
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection> {
    let options = options
        .clone()
        .application_name("tanka-admin")
        .disable_statement_logging();
    options
        .connect()
        .await
        .context("failed to connect to the primary")
}

async fn enter(connection: &mut PgConnection, tenant: Uuid) -> Result<()> {
    sqlx::query("SELECT set_config('tanka.tenant_id', $1, true)")
        .bind(tenant.to_string())
        .execute(connection)
        .await
        .context("failed to enter the tenant")?;
    Ok(())
}
