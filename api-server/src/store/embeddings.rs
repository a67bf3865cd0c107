//! Vectors of memories, and the queue of those that have none yet. The worker serves all tenants, through functions of the owner.

use std::fmt::Write as _;
use std::time::Duration;

use uuid::Uuid;

use crate::routing::{StoreError, Write, WriteHandle};
use crate::search::approximate::INDEXED;

/// A memory that needs a vector.
#[derive(Debug, Clone)]
pub struct Job {
    /// The memory.
    pub memory_id: Uuid,
    /// Its text.
    pub content: String,
    /// Attempts, with this one.
    pub attempts: i16,
}

/// Takes memories out of the queue for a while.
#[derive(Debug)]
pub struct Claim {
    /// At most so many.
    pub most: i32,
    /// For so long.
    pub lease: Duration,
}

impl Write for Claim {
    type Output = Vec<Job>;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Vec<Job>, StoreError> {
        Ok(sqlx::query_as!(
            Job,
            r#"SELECT memory_id AS "memory_id!", content AS "content!", attempts AS "attempts!"
                 FROM embedding_claim($1, make_interval(secs => $2))"#,
            self.most,
            self.lease.as_secs_f64(),
        )
        .fetch_all(&mut *on.connection)
        .await?)
    }
}

/// Stores vectors, and ends their jobs.
#[derive(Debug)]
pub struct Store {
    /// The model that made them.
    pub model: String,
    /// Memories and their vectors.
    pub vectors: Vec<(Uuid, Vec<f32>)>,
    /// Whoever has more vectors than this is noted, to be searched through the index.
    pub above: i64,
}

impl Write for Store {
    type Output = i64;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<i64, StoreError> {
        let ids: Vec<Uuid> = self.vectors.iter().map(|(id, _)| *id).collect();
        let texts: Vec<String> = self.vectors.iter().map(|(_, vector)| text(vector)).collect();
        let stored = sqlx::query_scalar!(
            r#"SELECT embedding_store($1, $2, $3) AS "stored!""#,
            &ids,
            self.model,
            &texts,
        )
        .fetch_one(&mut *on.connection)
        .await?;
        if self
            .vectors
            .iter()
            .any(|(_, vector)| INDEXED.contains(&vector.len()))
        {
            sqlx::query_scalar!(
                "SELECT approximate_notice($1, $2, $3)",
                &ids,
                self.model,
                self.above
            )
            .fetch_one(&mut *on.connection)
            .await?;
        }
        Ok(stored)
    }
}

/// Notes a failure.
#[derive(Debug)]
pub struct Fail {
    /// The memories.
    pub ids: Vec<Uuid>,
    /// When to try again; never without one.
    pub pause: Option<Duration>,
    /// Why.
    pub error: String,
}

impl Write for Fail {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        sqlx::query!(
            "SELECT embedding_fail($1, make_interval(secs => $2), $3)",
            &self.ids,
            self.pause.map(|pause| pause.as_secs_f64()) as _,
            self.error,
        )
        .execute(&mut *on.connection)
        .await?;
        Ok(())
    }
}

/// Queues memories that have no vector of a model.
#[derive(Debug)]
pub struct Backfill {
    /// The model.
    pub model: String,
    /// Begin after this memory.
    pub after: Uuid,
    /// Look at so many.
    pub most: i32,
}

impl Write for Backfill {
    type Output = Option<Uuid>;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Option<Uuid>, StoreError> {
        Ok(sqlx::query_scalar!(
            "SELECT embedding_backfill($1, $2, $3)",
            self.model,
            self.after,
            self.most,
        )
        .fetch_one(&mut *on.connection)
        .await?)
    }
}

/// A vector as PostgreSQL reads it.
pub(super) fn text(vector: &[f32]) -> String {
    let mut text = String::with_capacity(vector.len() * 12 + 2);
    text.push('[');
    for (index, part) in vector.iter().enumerate() {
        let separator = if index == 0 { "" } else { "," };
        let _ = write!(text, "{separator}{part}");
    }
    text.push(']');
    text
}
