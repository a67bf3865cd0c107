//! People whose vectors are searched through an index: who they are, and which of their rows are marked for it.

use std::time::Duration;

use uuid::Uuid;

use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};
use crate::store::search::{DEPTH, Meaning, Nearest};

/// Rows that are looked up at once to be marked.
const MOST: i64 = 10_000;

/// A person, with a model, who was claimed to be tended.
#[derive(Debug, Clone)]
pub struct Person {
    /// The person's tenant.
    pub tenant_id: Uuid,
    /// The person.
    pub user_id: Uuid,
    /// The model that made the vectors.
    pub model: String,
    /// Names the claim.
    pub lease: Uuid,
}

/// Claims somebody who is due, of whatever tenant.
#[derive(Debug)]
pub struct ClaimPerson {
    /// For so long.
    pub lease: Duration,
}

impl Write for ClaimPerson {
    type Output = Option<Person>;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Option<Person>, StoreError> {
        Ok(sqlx::query_as!(
            Person,
            r#"SELECT tenant_id AS "tenant_id!", user_id AS "user_id!", model AS "model!", lease AS "lease!"
                 FROM approximate_claim(make_interval(secs => $1))"#,
            self.lease.as_secs_f64(),
        )
        .fetch_optional(&mut *on.connection)
        .await?)
    }
}

/// Looks at a person whose claim is still ours.
#[derive(Debug)]
pub struct LookAt {
    /// The person.
    pub person: Person,
    /// Fewer vectors than this are not enough.
    pub low: i64,
}

/// What was seen.
#[derive(Debug)]
pub struct Sight {
    /// Searches go through the index.
    pub ready: bool,
    /// There are enough vectors.
    pub enough: bool,
    /// Rows to be moved, a bounded number; none while searches go through the index, because then every row is where it should be.
    pub astray: Vec<Uuid>,
}

impl Read for LookAt {
    type Output = Option<Sight>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Option<Sight>, StoreError> {
        let Person {
            user_id,
            model,
            lease,
            ..
        } = &self.person;
        let known = sqlx::query!(
            r#"SELECT ready,
                      (SELECT count(*) FROM (SELECT FROM memory_embeddings WHERE user_id = $1 AND model = $2 LIMIT $4) counted)
                          >= $4 AS "enough!"
                 FROM approximate_people WHERE user_id = $1 AND model = $2 AND lease = $3"#,
            user_id,
            model,
            lease,
            self.low,
        )
        .fetch_optional(&mut *on.connection)
        .await?;
        let Some(known) = known else {
            return Ok(None);
        };
        let astray = if known.ready {
            Vec::new()
        } else {
            sqlx::query_scalar!(
                "SELECT memory_id FROM memory_embeddings WHERE user_id = $1 AND model = $2 AND approximate <> $3 LIMIT $4",
                user_id,
                model,
                known.enough,
                MOST,
            )
            .fetch_all(&mut *on.connection)
            .await?
        };
        Ok(Some(Sight {
            ready: known.ready,
            enough: known.enough,
            astray,
        }))
    }
}

/// Compares what the index finds with the exact answer, for some of the person's own vectors as questions; answers the mean share of the
/// truly nearest.
#[derive(Debug)]
pub struct Measure {
    /// The person.
    pub person: Person,
    /// Vectors that are passed over, so that it is not always the same ones.
    pub from: i64,
    /// So many questions.
    pub questions: i64,
}

impl Read for Measure {
    type Output = f64;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<f64, StoreError> {
        let vectors = sqlx::query_scalar!(
            r#"SELECT embedding::real[] AS "vector!" FROM memory_embeddings WHERE user_id = $1 AND model = $2
               OFFSET $3 LIMIT $4"#,
            self.person.user_id,
            self.person.model,
            self.from,
            self.questions,
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let (mut sum, mut count) = (0.0, 0.0);
        for vector in vectors {
            let meaning = Meaning {
                model: self.person.model.clone(),
                vector,
            };
            let nearest = Nearest {
                user_id: self.person.user_id,
                meaning: &meaning,
                depth: DEPTH,
            };
            sum += nearest.recall(on).await?;
            count += 1.0;
        }
        Ok(if count > 0.0 { sum / count } else { 0.0 })
    }
}

/// Marks rows for the index, or takes the mark away; answers how many, and nothing if somebody else has the person now.
#[derive(Debug)]
pub struct Mark {
    /// The person.
    pub person: Person,
    /// Which rows.
    pub ids: Vec<Uuid>,
    /// Whether they belong into the index.
    pub approximate: bool,
    /// Prolongs the claim by so long.
    pub lease: Duration,
}

impl Write for Mark {
    type Output = Option<u64>;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Option<u64>, StoreError> {
        // Also locks it, so that nobody declares the person ready meanwhile.
        let held = sqlx::query!(
            "UPDATE approximate_people SET due_at = clock_timestamp() + make_interval(secs => $4)
              WHERE user_id = $1 AND model = $2 AND lease = $3 AND NOT ready",
            self.person.user_id,
            self.person.model,
            self.person.lease,
            self.lease.as_secs_f64(),
        )
        .execute(&mut *on.connection)
        .await?;
        if held.rows_affected() == 0 {
            return Ok(None);
        }
        // Rows in use are passed over: waiting for several of them could end in a deadlock.
        let marked = sqlx::query!(
            "UPDATE memory_embeddings SET approximate = $4
              WHERE memory_id = ANY (ARRAY(
                    SELECT memory_id FROM memory_embeddings
                     WHERE memory_id = ANY ($3) AND user_id = $1 AND model = $2 FOR UPDATE SKIP LOCKED))",
            self.person.user_id,
            self.person.model,
            &self.ids,
            self.approximate,
        )
        .execute(&mut *on.connection)
        .await?;
        Ok(Some(marked.rows_affected()))
    }
}

/// Lets searches go through the index, or not any more; answers whether that is so now.
#[derive(Debug)]
pub struct Trust {
    /// The person.
    pub person: Person,
    /// Through the index.
    pub ready: bool,
}

impl Write for Trust {
    type Output = bool;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<bool, StoreError> {
        if self.ready {
            // embedding_store holds the same lock, shared, while rows are under way that may have been made before the person was noted.
            let alone = sqlx::query_scalar!(
                r#"SELECT pg_try_advisory_xact_lock(1635021153, hashtext($1::uuid::text)) AS "alone!""#,
                self.person.user_id,
            )
            .fetch_one(&mut *on.connection)
            .await?;
            if !alone {
                return Ok(false);
            }
        }
        let changed = sqlx::query!(
            "UPDATE approximate_people SET ready = $4
              WHERE user_id = $1 AND model = $2 AND lease = $3
                AND NOT ($4 AND EXISTS (
                    SELECT FROM memory_embeddings WHERE user_id = $1 AND model = $2 AND NOT approximate))",
            self.person.user_id,
            self.person.model,
            self.person.lease,
            self.ready,
        )
        .execute(&mut *on.connection)
        .await?;
        Ok(changed.rows_affected() > 0)
    }
}

/// Ends a claim.
#[derive(Debug)]
pub struct Rest {
    /// The person.
    pub person: Person,
    /// When to look again.
    pub pause: Duration,
}

impl Write for Rest {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE approximate_people SET due_at = clock_timestamp() + make_interval(secs => $4), lease = NULL
              WHERE user_id = $1 AND model = $2 AND lease = $3",
            self.person.user_id,
            self.person.model,
            self.person.lease,
            self.pause.as_secs_f64(),
        )
        .execute(&mut *on.connection)
        .await?;
        Ok(())
    }
}

/// Ends a claim and forgets the person, who has few vectors now. A row that is marked in this moment stays in the index, unused.
#[derive(Debug)]
pub struct Dismiss(pub Person);

impl Write for Dismiss {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        sqlx::query!(
            "DELETE FROM approximate_people WHERE user_id = $1 AND model = $2 AND lease = $3 AND NOT ready",
            self.0.user_id,
            self.0.model,
            self.0.lease,
        )
        .execute(&mut *on.connection)
        .await?;
        Ok(())
    }
}
