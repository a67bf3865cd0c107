//! Sources, runs, and what a run writes.

use std::collections::HashMap;

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::conversation::Content;
use crate::domain::sync::{Connector, Target};
use crate::domain::task::TaskKind;
use crate::entropy;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};
use crate::store::deliveries::Queued;
use crate::store::jobs::{Hold, NewJob};
use crate::store::workroom_messages::CreateRoomMessage;
use crate::syncs::Record;

/// A source that a person described.
#[derive(Debug, Clone)]
pub struct Described {
    /// Identifies it, unless the person has it already.
    pub id: Uuid,
    /// The source.
    pub connector: Connector,
    /// Where records go.
    pub target: Target,
    /// Makes a token unreadable; it needs the id, which is known only in the transaction.
    pub token: Option<Token>,
    /// Whether it becomes the person's default.
    pub default: bool,
    /// Whether it becomes the default of all in the tenant who have none of their own. Then it goes to a workroom.
    pub tenant_default: bool,
}

/// A token and the key that seals it.
#[derive(Clone)]
pub struct Token {
    /// The token.
    pub text: String,
    /// The key.
    pub key: [u8; 32],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl WriteHandle<'_> {
    /// The source of a sync, made if the person has it not: the one that was described, or the person's default, or the tenant's.
    pub(crate) async fn source(
        &mut self,
        user_id: Uuid,
        described: Option<&Described>,
    ) -> Result<Uuid, StoreError> {
        let Some(described) = described else {
            return self.default_source(user_id).await;
        };
        if let Some(workroom_id) = described.target.workroom() {
            self.belongs(workroom_id, user_id).await?;
        }
        if described.default {
            sqlx::query!(
                "UPDATE sync_sources SET is_default = false WHERE is_default AND user_id = $1",
                user_id
            )
            .execute(&mut *self.connection)
            .await?;
        }
        if described.tenant_default {
            sqlx::query!(
                "UPDATE sync_sources SET is_tenant_default = false WHERE is_tenant_default AND tenant_id = $1",
                self.tenant
            )
            .execute(&mut *self.connection)
            .await?;
        }
        let id = sqlx::query_scalar!(
            "INSERT INTO sync_sources AS s (id, tenant_id, user_id, source, target, workroom_id, connector, is_default, is_tenant_default)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (tenant_id, user_id, source, target) DO UPDATE
                SET connector = excluded.connector, is_default = s.is_default OR excluded.is_default,
                    is_tenant_default = s.is_tenant_default OR excluded.is_tenant_default, updated_at = clock_timestamp()
             RETURNING id",
            described.id,
            self.tenant,
            user_id,
            described.connector.source(),
            described.target.name(),
            described.target.workroom(),
            serde_json::to_value(&described.connector)?,
            described.default,
            described.tenant_default,
        )
        .fetch_one(&mut *self.connection)
        .await
        .map_err(|error| match super::on_constraint(error, "sync_sources_tenant_default_key") {
            StoreError::Taken(_) => StoreError::Conflict("Somebody else has just chosen the tenant's default sync."),
            other => other,
        })?;
        if let Some(token) = &described.token {
            let sealed = crate::syncs::seal::seal(&token.key, id, &token.text)
                .map_err(|error| StoreError::Corrupt(error.to_string()))?;
            sqlx::query!(
                "UPDATE sync_sources SET sealed_token = $2 WHERE id = $1",
                id,
                sealed
            )
            .execute(&mut *self.connection)
            .await?;
        }
        Ok(id)
    }

    /// The person's default sync, or the tenant's while whoever described it is active: its token and name are used.
    async fn default_source(&mut self, user_id: Uuid) -> Result<Uuid, StoreError> {
        sqlx::query_scalar!(
            "SELECT s.id FROM sync_sources s JOIN users u ON u.id = s.user_id
              WHERE u.is_active AND ((s.is_default AND s.user_id = $1) OR (s.is_tenant_default AND s.tenant_id = $2))
              ORDER BY s.is_default AND s.user_id = $1 DESC LIMIT 1",
            user_id,
            self.tenant,
        )
        .fetch_optional(&mut *self.connection)
        .await?
        .ok_or(StoreError::Conflict(
            "Neither you nor your tenant has a default sync. Describe one, with `default: true`.",
        ))
    }

    /// Fails unless the person is a member of a workroom.
    async fn belongs(&mut self, workroom_id: Uuid, user_id: Uuid) -> Result<(), StoreError> {
        sqlx::query_scalar!(
            "SELECT m.user_id FROM workroom_members m JOIN workrooms w ON w.id = m.workroom_id
                  WHERE m.workroom_id = $1 AND m.user_id = $2 AND w.deleted_at IS NULL",
            workroom_id,
            user_id,
        )
        .fetch_optional(&mut *self.connection)
        .await?
        .ok_or(StoreError::Missing)
        .map(drop)
    }
}

/// Starts a sync, unless one of the same source waits or runs: then that one is answered.
#[derive(Debug)]
pub struct StartSync {
    /// Identifies the task.
    pub id: Uuid,
    /// The person.
    pub user_id: Uuid,
    /// The source; the default without one.
    pub described: Option<Described>,
}

impl Write for StartSync {
    type Output = Queued;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Queued, StoreError> {
        let source_id = on.source(self.user_id, self.described.as_ref()).await?;
        let job = NewJob {
            id: self.id,
            user_id: Some(self.user_id),
            kind: TaskKind::Sync,
            payload: serde_json::json!({"source_id": source_id}),
            only_one: Some(format!("sync:{source_id}")),
        };
        let task_id = on.enqueue(&job).await?;
        if task_id == self.id {
            sqlx::query!(
                "INSERT INTO sync_records (id, tenant_id, user_id, source_id, source, target)
                 SELECT $1, tenant_id, $3, id, source, target FROM sync_sources WHERE id = $2",
                task_id,
                source_id,
                self.user_id,
            )
            .execute(&mut *on.connection)
            .await?;
            on.activity(self.user_id, "sync.started", task_id).await?;
        }
        Ok(Queued { task_id })
    }
}

/// A source, for who reads it.
#[derive(Debug)]
pub struct Source {
    /// Identifies it.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// What it is.
    pub connector: Connector,
    /// The workroom that records go to; memories without one.
    pub workroom_id: Option<Uuid>,
    /// Its token.
    pub sealed_token: Option<Vec<u8>>,
    /// How far it was read.
    pub progress: Value,
}

/// Finds a source; none if it was deleted, or if whoever described it may no longer log in.
#[derive(Debug)]
pub struct FindSource(pub Uuid);

impl Read for FindSource {
    type Output = Option<Source>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Option<Source>, StoreError> {
        let row = sqlx::query!(
            "SELECT s.id, s.user_id, s.connector, s.workroom_id, s.sealed_token, s.progress
               FROM sync_sources s JOIN users u ON u.id = s.user_id WHERE s.id = $1 AND u.is_active",
            self.0,
        )
        .fetch_optional(&mut *on.connection)
        .await?;
        row.map(|row| {
            Ok(Source {
                id: row.id,
                user_id: row.user_id,
                connector: serde_json::from_value(row.connector)?,
                workroom_id: row.workroom_id,
                sealed_token: row.sealed_token,
                progress: row.progress,
            })
        })
        .transpose()
    }
}

/// Writes what is new on a page, and how far that is. Answers how many records that were.
#[derive(Debug)]
pub struct StorePage {
    /// The job.
    pub hold: Hold,
    /// The source.
    pub source_id: Uuid,
    /// Whose memories or messages they become.
    pub user_id: Uuid,
    /// The workroom; memories without one.
    pub workroom_id: Option<Uuid>,
    /// Records.
    pub records: Vec<Record>,
    /// How far the source was read with them.
    pub progress: Value,
    /// Whether vectors are to be computed.
    pub embed: bool,
}

/// A record that has to be written.
struct Fresh<'a> {
    record: &'a Record,
    digest: [u8; 32],
    id: Uuid,
    /// What it was written as before.
    older: Option<Uuid>,
}

impl Write for StorePage {
    type Output = u64;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<u64, StoreError> {
        on.hold(self.hold).await?;
        let fresh = self.fresh(on).await?;
        match self.workroom_id {
            None => self.remember(on, &fresh).await?,
            Some(workroom_id) => self.post(on, workroom_id, &fresh).await?,
        }
        let ids: Vec<String> = fresh
            .iter()
            .map(|fresh| fresh.record.external_id.clone())
            .collect();
        let written: Vec<Uuid> = fresh.iter().map(|fresh| fresh.id).collect();
        let digests: Vec<Vec<u8>> = fresh.iter().map(|fresh| fresh.digest.to_vec()).collect();
        sqlx::query!(
            "INSERT INTO sync_items (source_id, external_id, tenant_id, written_id, digest)
             SELECT $1, i.external_id, $2, i.written_id, i.digest FROM unnest($3::text[], $4::uuid[], $5::bytea[])
                 AS i (external_id, written_id, digest)
             ON CONFLICT (source_id, external_id) DO UPDATE SET written_id = excluded.written_id, digest = excluded.digest",
            self.source_id,
            on.tenant,
            &ids,
            &written,
            &digests,
        )
        .execute(&mut *on.connection)
        .await?;
        sqlx::query!(
            "UPDATE sync_sources SET progress = $2, updated_at = clock_timestamp() WHERE id = $1",
            self.source_id,
            self.progress,
        )
        .execute(&mut *on.connection)
        .await?;
        sqlx::query!(
            "UPDATE sync_records SET records = records + $2 WHERE id = $1",
            self.hold.id,
            i32::try_from(fresh.len()).unwrap_or(i32::MAX),
        )
        .execute(&mut *on.connection)
        .await?;
        Ok(u64::try_from(fresh.len()).unwrap_or_default())
    }
}

impl StorePage {
    /// Records that are new or changed. One that is there twice counts as it is last.
    async fn fresh(&self, on: &mut WriteHandle<'_>) -> Result<Vec<Fresh<'_>>, StoreError> {
        let wanted: HashMap<&str, &Record> = self
            .records
            .iter()
            .map(|record| (record.external_id.as_str(), record))
            .collect();
        let ids: Vec<String> = wanted.keys().map(|id| (*id).to_owned()).collect();
        let known = sqlx::query!(
            "SELECT external_id, written_id, digest FROM sync_items WHERE source_id = $1 AND external_id = ANY ($2)",
            self.source_id,
            &ids,
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let known: HashMap<String, (Uuid, Vec<u8>)> = known
            .into_iter()
            .map(|row| (row.external_id, (row.written_id, row.digest)))
            .collect();
        let fresh = self
            .records
            .iter()
            .filter(|record| {
                wanted
                    .get(record.external_id.as_str())
                    .is_some_and(|last| std::ptr::eq(*last, *record))
            })
            .filter_map(|record| {
                let digest: [u8; 32] = Sha256::digest(format!("{}\0{}", record.kind, record.text)).into();
                let older = known.get(&record.external_id);
                if older.is_some_and(|(_, kept)| kept.as_slice() == digest) {
                    return None;
                }
                Some(Fresh {
                    record,
                    digest,
                    id: entropy::id(),
                    older: older.map(|(id, _)| *id),
                })
            });
        Ok(fresh.collect())
    }

    /// Writes memories; a changed record takes the place of what it was.
    async fn remember(&self, on: &mut WriteHandle<'_>, fresh: &[Fresh<'_>]) -> Result<(), StoreError> {
        if fresh.is_empty() {
            return Ok(());
        }
        let older: Vec<Uuid> = fresh.iter().filter_map(|fresh| fresh.older).collect();
        sqlx::query!(
            "DELETE FROM memories WHERE id = ANY ($1) AND user_id = $2",
            &older,
            self.user_id
        )
        .execute(&mut *on.connection)
        .await?;
        let ids: Vec<Uuid> = fresh.iter().map(|fresh| fresh.id).collect();
        let kinds: Vec<String> = fresh.iter().map(|fresh| fresh.record.kind.to_owned()).collect();
        let texts: Vec<String> = fresh.iter().map(|fresh| fresh.record.text.clone()).collect();
        sqlx::query!(
            "INSERT INTO memories (id, tenant_id, user_id, memory_type, content)
             SELECT m.id, $1, $2, m.kind, m.content FROM unnest($3::uuid[], $4::text[], $5::text[]) AS m (id, kind, content)",
            on.tenant,
            self.user_id,
            &ids,
            &kinds,
            &texts,
        )
        .execute(&mut *on.connection)
        .await?;
        if self.embed {
            sqlx::query!(
                "INSERT INTO embedding_queue (memory_id, tenant_id) SELECT id, $2 FROM unnest($1::uuid[]) AS q (id)",
                &ids,
                on.tenant,
            )
            .execute(&mut *on.connection)
            .await?;
        }
        on.invalidate(&[super::memories::entity(on.tenant, self.user_id).into()])
            .await
    }

    /// Writes messages. What was said is said: a record that changes is not said again.
    async fn post(
        &self,
        on: &mut WriteHandle<'_>,
        workroom_id: Uuid,
        fresh: &[Fresh<'_>],
    ) -> Result<(), StoreError> {
        for fresh in fresh.iter().filter(|fresh| fresh.older.is_none()) {
            let message = CreateRoomMessage {
                id: fresh.id,
                user_id: self.user_id,
                workroom_id,
                content: Content::parse(&fresh.record.text)
                    .map_err(|error| StoreError::Corrupt(error.to_string()))?,
            };
            message.run(on).await?;
        }
        Ok(())
    }
}

/// Ends a sync that is done.
#[derive(Debug)]
pub struct FinishSync {
    /// The job.
    pub hold: Hold,
    /// What it did.
    pub result: Value,
}

impl Write for FinishSync {
    type Output = ();

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<(), StoreError> {
        on.succeed(self.hold, Some(self.result.clone())).await
    }
}
