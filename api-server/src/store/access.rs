//! Whose rights changed: noted in the transaction of the change, and read by every process.

use uuid::Uuid;

use crate::routing::{Read, ReadHandle, StoreError, WriteHandle};

impl WriteHandle<'_> {
    /// Notes that what is known of a person's sessions and role no longer holds.
    pub(crate) async fn rights_changed(&mut self, user_id: Uuid) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO access_changes (tenant_id, user_id) VALUES ($1, $2)",
            self.tenant,
            user_id,
        )
        .execute(&mut *self.connection)
        .await?;
        self.note_person(user_id);
        Ok(())
    }
}

/// People whose rights changed in transactions from a number on.
#[derive(Debug)]
pub struct ChangedSince(pub i64);

/// What a look found.
#[derive(Debug)]
pub struct Changes {
    /// People.
    pub people: Vec<Uuid>,
    /// From where the next look has to start: the oldest transaction that was still open.
    pub horizon: i64,
}

impl Read for ChangedSince {
    type Output = Changes;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Changes, StoreError> {
        let row = sqlx::query!(
            r#"SELECT horizon AS "horizon!", users AS "users!" FROM auth_access_changes($1)"#,
            self.0,
        )
        .fetch_one(&mut *on.connection)
        .await?;
        Ok(Changes {
            people: row.users,
            horizon: row.horizon,
        })
    }
}
