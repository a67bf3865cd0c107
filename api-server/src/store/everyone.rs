//! What concerns people of all tenants: ids only.

use uuid::Uuid;

use crate::routing::{Read, ReadHandle, StoreError};

/// The tenant of a person, wherever that is.
#[derive(Debug)]
pub struct TenantOf(pub Uuid);

impl Read for TenantOf {
    type Output = Uuid;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Uuid, StoreError> {
        sqlx::query_scalar!("SELECT cache_tenant_of($1)", self.0)
            .fetch_one(&mut *on.connection)
            .await?
            .ok_or(StoreError::Missing)
    }
}

/// A person whose answers are worth loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The person's tenant.
    pub tenant: Uuid,
    /// The person.
    pub user_id: Uuid,
}

/// People who were here lately, the latest first, of whatever tenants.
#[derive(Debug)]
pub struct RecentPeople {
    /// In so many days.
    pub days: i32,
    /// At most so many.
    pub limit: i32,
}

impl Read for RecentPeople {
    type Output = Vec<Candidate>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Vec<Candidate>, StoreError> {
        Ok(sqlx::query_as!(
            Candidate,
            r#"SELECT tenant_id AS "tenant!", user_id AS "user_id!" FROM cache_recent_people($1, $2)"#,
            self.days,
            self.limit,
        )
        .fetch_all(&mut *on.connection)
        .await?)
    }
}
