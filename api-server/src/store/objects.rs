//! Folders of an object store whose file is gone.

use std::time::Duration;

use crate::routing::{StoreError, Write, WriteHandle};

/// Folders that one look takes.
const BATCH: i32 = 100;

/// Takes folders to be emptied; others may take them when the lease has ended.
#[derive(Debug)]
pub struct ClaimGarbage {
    /// How long.
    pub lease: Duration,
}

impl Write for ClaimGarbage {
    type Output = Vec<String>;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Vec<String>, StoreError> {
        let folders = sqlx::query_scalar!(
            r#"SELECT object_garbage_claim($1, make_interval(secs => $2)) AS "folder!""#,
            BATCH,
            self.lease.as_secs_f64(),
        )
        .fetch_all(&mut *on.connection)
        .await?;
        Ok(folders)
    }
}

/// Forgets folders that are empty.
#[derive(Debug)]
pub struct GarbageDone(pub Vec<String>);

impl Write for GarbageDone {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        sqlx::query_scalar!("SELECT object_garbage_done($1)", &self.0)
            .fetch_one(&mut *on.connection)
            .await?;
        Ok(())
    }
}
