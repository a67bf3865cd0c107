//! The nearest memories by meaning: exactly among the person's own rows, and for people with very many of them through an index.

use std::collections::HashMap;

use sqlx::Executor;
use uuid::Uuid;

use super::{Match, Meaning};
use crate::routing::{ReadHandle, StoreError};
use crate::search::approximate::recall;
use crate::store::embeddings::text;
use crate::store::memories::Memory;

/// How a search by meaning was done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum How {
    /// Everything was compared.
    Exactly,
    /// Everything was compared after the index gave too few.
    FellBack,
    /// Through the index.
    Approximately {
        /// Share of the truly nearest that it found, where that was looked at.
        recall: Option<f64>,
    },
}

/// Settings of a search through the index, for its transaction alone. Only an index gives rows in their order without a sort. We put right the
/// order of an iterative scan, so the relaxed one serves: the strict one drops what comes late. Measured with 60,000 and 6,000 of 66,000
/// vectors of 384 numbers: recall 0.998 and 0.999; with half of this `ef_search`, 0.981 and 0.996.
pub const SETTINGS: &str = "SET LOCAL enable_sort = off; SET LOCAL hnsw.iterative_scan = relaxed_order; \
    SET LOCAL hnsw.ef_search = 800; SET LOCAL hnsw.max_scan_tuples = 20000; SET LOCAL hnsw.scan_mem_multiplier = 4";
/// Ends the one of them that does not suit other statements.
const SORT_AGAIN: &str = "SET LOCAL enable_sort TO DEFAULT";
/// So many times more rows than are wanted are taken from the index: among those that it gives last, some are nearer than some before.
const MORE: i64 = 2;

/// A memory that is near.
struct Near {
    memory_id: Uuid,
    distance: f64,
}

/// The statement for one number of dimensions: only where its text names the expression of an index, the index serves it.
macro_rules! through_index {
    ($dimensions:literal, $nearest:expr, $whoever:expr) => {
        sqlx::query_as!(
            Near,
            r#"SELECT memory_id, embedding::halfvec("# + $dimensions + r#") <=> $3::text::halfvec("# + $dimensions
                + r#") AS "distance!" FROM memory_embeddings
                WHERE user_id = $1 AND model = $2 AND approximate AND vector_dims(embedding) = "# + $dimensions
                + r#" AND ($5 OR EXISTS (SELECT FROM approximate_people WHERE user_id = $1 AND model = $2 AND ready))
                ORDER BY 2 LIMIT $4"#,
            $nearest.user_id,
            $nearest.meaning.model,
            text(&$nearest.meaning.vector),
            $nearest.depth * MORE,
            $whoever,
        )
    };
}

/// Whose memories are to be found near what.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Nearest<'a> {
    /// The person.
    pub user_id: Uuid,
    /// What is looked for.
    pub meaning: &'a Meaning,
    /// So many are wanted.
    pub depth: i64,
}

impl Nearest<'_> {
    /// The nearest memories, the nearest first: as many as are wanted, or as there are. With `sample` the answer of an index is compared with
    /// the exact one.
    pub async fn find(&self, sample: bool, on: &mut ReadHandle<'_>) -> Result<(Vec<Match>, How), StoreError> {
        let exact = self.exactly(false, on).await?;
        if !exact.is_empty() {
            return Ok((exact, How::Exactly));
        }
        // Nothing at all, or somebody with very many.
        let there = self.count(on).await?;
        if there == 0 {
            return Ok((exact, How::Exactly));
        }
        let near = self.through_index(false, on).await?;
        let enough = i64::try_from(near.len()).is_ok_and(|found| found >= there);
        if !enough {
            return Ok((self.exactly(true, on).await?, How::FellBack));
        }
        let found = self.contents(&near, on).await?;
        let recall = if sample {
            Some(recall(&similarities(&near), &self.exact_similarities(on).await?))
        } else {
            None
        };
        Ok((found, How::Approximately { recall }))
    }

    /// Share of the truly nearest that the index finds, whether searches go through it or not.
    pub async fn recall(&self, on: &mut ReadHandle<'_>) -> Result<f64, StoreError> {
        let near = self.through_index(true, on).await?;
        Ok(recall(&similarities(&near), &self.exact_similarities(on).await?))
    }

    async fn exact_similarities(&self, on: &mut ReadHandle<'_>) -> Result<Vec<f64>, StoreError> {
        let exact = self.exactly(true, on).await?;
        Ok(exact.iter().filter_map(|found| found.similarity).collect())
    }

    /// Compares all rows, but of somebody who is searched through the index none, unless `whoever` it is. So nearly everybody's search
    /// is this one statement.
    async fn exactly(&self, whoever: bool, on: &mut ReadHandle<'_>) -> Result<Vec<Match>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT m.id, m.memory_type, m.content, m.created_at AS "created_at: jiff_sqlx::Timestamp",
                      1 - near.distance AS "similarity!"
                 FROM (SELECT memory_id, embedding <=> $3::text::halfvec AS distance FROM memory_embeddings
                        WHERE user_id = $1 AND model = $2
                          AND ($5 OR NOT EXISTS (
                              SELECT FROM approximate_people WHERE user_id = $1 AND model = $2 AND ready))
                        ORDER BY distance, memory_id LIMIT $4) near
                 JOIN memories m ON m.id = near.memory_id
                ORDER BY near.distance, m.id"#,
            self.user_id,
            self.meaning.model,
            text(&self.meaning.vector),
            self.depth,
            whoever,
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let found = rows.into_iter().map(|row| Match {
            memory: Memory {
                id: row.id,
                memory_type: row.memory_type,
                content: row.content,
                created_at: row.created_at.to_jiff(),
            },
            score: 0.0,
            similarity: Some(row.similarity),
        });
        Ok(found.collect())
    }

    /// How many vectors the person has, counted as far as they are wanted.
    async fn count(&self, on: &mut ReadHandle<'_>) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM (
                   SELECT FROM memory_embeddings WHERE user_id = $1 AND model = $2 LIMIT $3) wanted"#,
            self.user_id,
            self.meaning.model,
            self.depth,
        )
        .fetch_one(&mut *on.connection)
        .await?)
    }

    /// What the index gives, the nearest first: nothing of somebody who is searched exactly, unless `whoever` it is, and nothing for a number
    /// of dimensions that there is no index for.
    async fn through_index(&self, whoever: bool, on: &mut ReadHandle<'_>) -> Result<Vec<Near>, StoreError> {
        on.connection.execute(sqlx::raw_sql(SETTINGS)).await?;
        let connection = &mut *on.connection;
        let found = match self.meaning.vector.len() {
            384 => through_index!("384", self, whoever).fetch_all(connection).await,
            768 => through_index!("768", self, whoever).fetch_all(connection).await,
            1024 => through_index!("1024", self, whoever).fetch_all(connection).await,
            1536 => through_index!("1536", self, whoever).fetch_all(connection).await,
            3072 => through_index!("3072", self, whoever).fetch_all(connection).await,
            _ => Ok(Vec::new()),
        };
        let mut near = found?;
        on.connection.execute(sqlx::raw_sql(SORT_AGAIN)).await?;
        near.sort_by(|a, b| {
            a.distance
                .total_cmp(&b.distance)
                .then(a.memory_id.cmp(&b.memory_id))
        });
        near.truncate(usize::try_from(self.depth).unwrap_or(usize::MAX));
        Ok(near)
    }

    /// The memories themselves, in their order. One that was deleted a moment ago is not there.
    async fn contents(&self, near: &[Near], on: &mut ReadHandle<'_>) -> Result<Vec<Match>, StoreError> {
        let ids: Vec<Uuid> = near.iter().map(|near| near.memory_id).collect();
        let rows = sqlx::query!(
            r#"SELECT id, memory_type, content, created_at AS "created_at: jiff_sqlx::Timestamp"
                 FROM memories WHERE user_id = $1 AND id = ANY ($2)"#,
            self.user_id,
            &ids,
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let memories = rows.into_iter().map(|row| Memory {
            id: row.id,
            memory_type: row.memory_type,
            content: row.content,
            created_at: row.created_at.to_jiff(),
        });
        let mut memories: HashMap<Uuid, Memory> = memories.map(|memory| (memory.id, memory)).collect();
        let found = near.iter().filter_map(|near| {
            Some(Match {
                memory: memories.remove(&near.memory_id)?,
                score: 0.0,
                similarity: Some(1.0 - near.distance),
            })
        });
        Ok(found.collect())
    }
}

fn similarities(near: &[Near]) -> Vec<f64> {
    near.iter().map(|near| 1.0 - near.distance).collect()
}
