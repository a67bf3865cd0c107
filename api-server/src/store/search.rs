//! Search among the memories of one person.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

mod nearest;

pub(super) use self::nearest::Nearest;
pub use self::nearest::{How, SETTINGS};
use crate::domain::memory::Question;
use crate::routing::{Read, ReadHandle, StoreError};
use crate::search::fuse::fuse;
use crate::store::memories::Memory;

/// Rows that each of the two lists contributes, beyond what is asked for.
pub(super) const DEPTH: i64 = 50;

/// A memory that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Match {
    /// The memory.
    #[serde(flatten)]
    pub memory: Memory,
    /// How well it fits; comparable within one answer only.
    pub score: f64,
    /// Cosine similarity with the question, where it was searched by meaning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f64>,
}

/// A question as a vector.
#[derive(Debug, Clone)]
pub struct Meaning {
    /// The model that made it.
    pub model: String,
    /// The vector.
    pub vector: Vec<f32>,
}

/// Finds memories, the best first.
#[derive(Debug)]
pub struct SearchMemories {
    /// The person.
    pub user_id: Uuid,
    /// What is looked for.
    pub question: Question,
    /// The same as a vector, if there is one.
    pub meaning: Option<Meaning>,
    /// At most so many.
    pub limit: u16,
    /// Compare with the exact answer, if this one is not.
    pub sample: bool,
}

/// What a search found.
#[derive(Debug)]
pub struct Found {
    /// The best first.
    pub items: Vec<Match>,
    /// How it was searched by meaning.
    pub how: How,
}

impl Read for SearchMemories {
    type Output = Found;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Found, StoreError> {
        let by_words = self.by_words(on).await?;
        let Some(meaning) = &self.meaning else {
            return Ok(Found {
                items: by_words.into_iter().take(usize::from(self.limit)).collect(),
                how: How::Exactly,
            });
        };
        let nearest = Nearest {
            user_id: self.user_id,
            meaning,
            depth: self.depth(),
        };
        let (by_meaning, how) = nearest.find(self.sample, on).await?;
        let ids = |list: &[Match]| list.iter().map(|found| found.memory.id).collect::<Vec<_>>();
        let order = fuse(&ids(&by_words), &ids(&by_meaning));
        // Those found by meaning first: they know their similarity.
        let mut all = by_meaning;
        all.extend(by_words);
        let items = order
            .into_iter()
            .take(usize::from(self.limit))
            .filter_map(|(id, score)| {
                let found = all.iter().find(|found| found.memory.id == id)?;
                Some(Match {
                    score,
                    ..found.clone()
                })
            })
            .collect();
        Ok(Found { items, how })
    }
}

impl SearchMemories {
    /// Memories with one of the words, or a word that begins so; those with more and rarer places of them first.
    async fn by_words(&self, on: &mut ReadHandle<'_>) -> Result<Vec<Match>, StoreError> {
        let words = self.question.any_word();
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query!(
            r#"SELECT id, memory_type, content, created_at AS "created_at: jiff_sqlx::Timestamp",
                      ts_rank_cd(search, $2::text::tsquery, 1)::float8 AS "score!"
                 FROM memories WHERE user_id = $1 AND search @@ $2::text::tsquery
                ORDER BY 5 DESC, created_at DESC, id DESC LIMIT $3"#,
            self.user_id,
            words,
            self.depth(),
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
            score: row.score,
            similarity: None,
        });
        Ok(found.collect())
    }

    fn depth(&self) -> i64 {
        i64::from(self.limit).max(DEPTH)
    }
}
