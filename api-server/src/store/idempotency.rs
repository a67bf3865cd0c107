//! Answers that are kept for repeated requests, in the transaction of the change itself.

use crate::routing::{Idempotency, StoreError, WriteHandle};

/// What a key is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The request is new; its answer must be kept.
    New,
    /// The request was answered before.
    Answered(String),
}

/// Claims a key for a day. A request with the same key that is in flight elsewhere is waited for.
pub async fn claim(on: &mut WriteHandle<'_>, request: &Idempotency) -> Result<Claim, StoreError> {
    let tenant = on.tenant;
    let fresh = sqlx::query!(
        r#"INSERT INTO idempotency_keys AS k (tenant_id, user_id, key, fingerprint, expires_at)
           VALUES ($1, $2, $3, $4, now() + interval '24 hours')
           ON CONFLICT (tenant_id, user_id, key) DO UPDATE
              SET fingerprint = excluded.fingerprint, response = NULL, expires_at = excluded.expires_at
            WHERE k.expires_at < clock_timestamp()
           RETURNING key"#,
        tenant,
        request.user_id,
        request.key,
        &request.fingerprint,
    )
    .fetch_optional(&mut *on.connection)
    .await?;
    if fresh.is_some() {
        return Ok(Claim::New);
    }
    let kept = sqlx::query!(
        "SELECT fingerprint, response FROM idempotency_keys WHERE tenant_id = $1 AND user_id = $2 AND key = $3",
        tenant,
        request.user_id,
        request.key,
    )
    .fetch_one(&mut *on.connection)
    .await?;
    if kept.fingerprint != request.fingerprint {
        return Err(StoreError::KeyReused);
    }
    kept.response
        .map(Claim::Answered)
        .ok_or_else(|| StoreError::Corrupt("key without an answer".to_owned()))
}

/// Keeps the answer.
pub async fn keep(on: &mut WriteHandle<'_>, request: &Idempotency, response: &str) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE idempotency_keys SET response = $4 WHERE tenant_id = $1 AND user_id = $2 AND key = $3",
        on.tenant,
        request.user_id,
        request.key,
        response,
    )
    .execute(&mut *on.connection)
    .await?;
    Ok(())
}
