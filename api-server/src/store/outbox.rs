//! Events: written with the change they tell about, read by sockets that come back and by processes without Redis.

use jiff_sqlx::Timestamp;
use uuid::Uuid;

use crate::domain::event::{Channel, Event, EventKind};
use crate::entropy;
use crate::routing::statement::Session;
use crate::routing::{Position, Read, ReadHandle, StoreError, Write, WriteHandle};

/// Events of a channel that are kept at least, whatever clients may come back to: processes that Redis told nothing fetch them.
const KEPT: i64 = 1_000;
/// So often an event takes with it what is no longer kept, which spreads the cost.
const TRIM: i64 = 64;

/// Appends an event. The row of the channel stays locked until the transaction ends, which gives positions without gaps
/// that become visible in their order.
pub(crate) async fn append(
    on: &mut Session,
    tenant: Uuid,
    channel: Channel,
    kind: EventKind,
    body: String,
) -> Result<Event, StoreError> {
    let kept = on.history_size().max(KEPT);
    let id = entropy::id();
    let row = sqlx::query!(
        r#"WITH place AS (
               INSERT INTO channels AS c (name, tenant_id, last_position) VALUES ($1, $2, 1)
               ON CONFLICT (name) DO UPDATE SET last_position = c.last_position + 1
               RETURNING name, epoch, last_position
           ), event AS (
               INSERT INTO events (channel, position, tenant_id, id, kind, body)
               SELECT name, last_position, $2, $3, $4, $5 FROM place
               RETURNING created_at
           )
           SELECT epoch, last_position, created_at AS "created_at: Timestamp" FROM place, event"#,
        channel.to_string(),
        tenant,
        id,
        kind.as_str(),
        body,
    )
    .fetch_one(&mut *on)
    .await?;
    if row.last_position % TRIM == 0 {
        sqlx::query!(
            "DELETE FROM events WHERE channel = $1 AND position <= $2",
            channel.to_string(),
            row.last_position - kept,
        )
        .execute(on)
        .await?;
    }
    Ok(Event {
        channel,
        epoch: row.epoch,
        position: row.last_position,
        id,
        kind: kind.as_str().to_owned(),
        body,
        at: row.created_at.to_jiff(),
        covered_by: None,
    })
}

/// How far a channel has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The channel.
    pub channel: Channel,
    /// Its epoch.
    pub epoch: Uuid,
    /// Position of its last event.
    pub position: i64,
}

/// Heads of channels, of whatever tenants; channels that never had an event are missing.
#[derive(Debug)]
pub struct Heads(pub Vec<Channel>);

impl Read for Heads {
    type Output = Vec<Head>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Vec<Head>, StoreError> {
        let names: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        let rows = sqlx::query!(
            r#"SELECT name AS "name!", epoch AS "epoch!", last_position AS "position!" FROM realtime_heads($1)"#,
            &names,
        )
        .fetch_all(&mut *on.connection)
        .await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                Some(Head {
                    channel: Channel::parse(&row.name)?,
                    epoch: row.epoch,
                    position: row.position,
                })
            })
            .collect())
    }
}

/// Begins a new epoch of a channel, unless that was done already.
#[derive(Debug)]
pub struct NewEpoch {
    /// The channel.
    pub channel: Channel,
    /// The epoch that ends.
    pub epoch: Uuid,
}

impl Write for NewEpoch {
    type Output = bool;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<bool, StoreError> {
        let name = self.channel.to_string();
        Ok(
            sqlx::query_scalar!(r#"SELECT realtime_renew($1, $2) AS "renewed!""#, name, self.epoch)
                .fetch_one(&mut *on.connection)
                .await?,
        )
    }
}

/// Events of a channel after a position, oldest first. What a replica shows it has replayed, so it has received it.
#[derive(Debug)]
pub struct EventsAfter {
    /// The channel.
    pub channel: Channel,
    /// Its epoch.
    pub epoch: Uuid,
    /// Only events after this position.
    pub after: i64,
    /// At most so many.
    pub limit: i32,
}

impl Read for EventsAfter {
    type Output = Vec<Event>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Vec<Event>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT position AS "position!", id AS "id!", kind AS "kind!", body AS "body!",
                      created_at AS "created_at!: Timestamp",
                      (CASE WHEN pg_is_in_recovery() THEN COALESCE(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                            WHEN current_setting('synchronous_commit') = 'off' THEN pg_current_wal_insert_lsn()
                            ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn)::bigint AS "lsn!",
                      CASE WHEN pg_is_in_recovery() THEN (SELECT timeline FROM replication_heartbeat WHERE id = 1)
                           ELSE ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::integer
                      END AS "timeline!"
                 FROM realtime_events($1, $2, $3)"#,
            self.channel.to_string(),
            self.after,
            self.limit,
        )
        .fetch_all(&mut *on.connection)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Event {
                channel: self.channel,
                epoch: self.epoch,
                position: row.position,
                id: row.id,
                kind: row.kind,
                body: row.body,
                at: row.created_at.to_jiff(),
                covered_by: Some(Position {
                    timeline: row.timeline.unsigned_abs(),
                    lsn: row.lsn.unsigned_abs(),
                }),
            })
            .collect())
    }
}
