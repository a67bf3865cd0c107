//! Asks one instance what it is and how far it has come, several times a second, on a connection of its own,
//! so that busy pools cannot make an instance look dead. On the primary it also writes the heartbeat.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::{ConnectOptions, PgConnection};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::choose::Role;
use super::fleet::Fleet;
use super::instance::{Instance, Observation};
use super::position::Position;
use crate::entropy;

/// Time between probes while a request waits for an instance to replay something.
const URGENT: Duration = Duration::from_millis(1);
/// An instance that takes longer does not work.
const DEADLINE: Duration = Duration::from_millis(1_500);
/// How long a new connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Pause after a failed attempt.
const PAUSE: Duration = Duration::from_millis(250);

/// Time between counts of an instance's connections.
const COUNT: Duration = Duration::from_secs(5);

/// How often instances are asked, and how often the primary writes a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time between probes.
    pub interval: Duration,
    /// Time between heartbeats; the guard in the statement keeps many processes from writing more often.
    pub beat: Duration,
}

/// The pace that tells replicas within `max_lag` from others. A replica without any lag looks up to two probes old: its own, and the
/// primary's. So both are a tenth of the limit, and the heartbeat a quarter, but not slower than is good for failovers.
pub fn pace(max_lag: Duration) -> Pace {
    Pace {
        interval: (max_lag / 10).clamp(Duration::from_millis(5), Duration::from_millis(100)),
        beat: (max_lag / 4).clamp(Duration::from_millis(20), Duration::from_millis(250)),
    }
}

/// Probes an instance until told to stop.
pub(super) async fn run(fleet: Fleet, instance: Arc<Instance>, stop: CancellationToken) {
    stop.run_until_cancelled(follow(&fleet, &instance)).await;
    instance.lost.store(true, Ordering::Relaxed);
    fleet.record(&instance, None);
}

async fn follow(fleet: &Fleet, instance: &Instance) {
    loop {
        let failure = match timeout(CONNECT, instance.options.connect()).await {
            Ok(Ok(mut connection)) => watch(fleet, instance, &mut connection).await,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no connection in time".to_owned(),
        };
        instance.lost.store(true, Ordering::Relaxed);
        if fleet.record(instance, None) {
            tracing::warn!(instance.name = %instance.name, error = %failure, "PostgreSQL instance is unavailable");
        }
        tokio::time::sleep(entropy::jitter(PAUSE)).await;
    }
}

/// Probes over one connection until that fails; answers how.
async fn watch(fleet: &Fleet, instance: &Instance, connection: &mut PgConnection) -> String {
    let mut counted: Option<Instant> = None;
    let mut replica = false;
    loop {
        if counted.is_none_or(|at| at.elapsed() >= COUNT) {
            counted = Some(Instant::now());
            match timeout(DEADLINE, connections(connection)).await {
                Ok(Ok((used, limit))) => fleet.note_connections(instance, used, limit),
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "its connections were not counted in time".to_owned(),
            }
        }
        let pace = fleet.pace();
        // A little earlier than a whole interval, or every second probe would miss its beat.
        let guard = pace.beat.mul_f64(0.9).as_secs_f64();
        // A replica that hangs serves nothing new once it is too old; what it is at then goes elsewhere at the same time.
        let deadline = if replica {
            DEADLINE.min(fleet.oldest())
        } else {
            DEADLINE
        };
        let due = match timeout(deadline, probe(connection, guard)).await {
            Ok(Ok((observation, due))) => {
                replica = observation.role == Role::Replica;
                instance.lost.store(false, Ordering::Relaxed);
                fleet.record(instance, Some(observation));
                due
            }
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "no answer in time".to_owned(),
        };
        if due {
            match timeout(DEADLINE, beat(connection, guard)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(instance.name = %instance.name, %error, "no heartbeat"),
                Err(_) => return "no heartbeat in time".to_owned(),
            }
        }
        if instance.waiters.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(URGENT).await;
        } else {
            let _ = timeout(pace.interval, instance.wake.notified()).await;
        }
    }
}

/// One probe. A replica's timeline is that of the last heartbeat it has replayed, so it never claims a newer one
/// than it has data of.
async fn probe(connection: &mut PgConnection, guard: f64) -> Result<(Observation, bool), sqlx::Error> {
    let at = Instant::now();
    let row = sqlx::query!(
        r#"SELECT pg_is_in_recovery() AS "replica!",
                  (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                        ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn)::bigint AS "lsn!",
                  CASE WHEN pg_is_in_recovery() THEN timeline
                       ELSE ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::integer
                  END AS "timeline!",
                  (NOT pg_is_in_recovery() AND beat_at < clock_timestamp() - make_interval(secs => $1)) AS "due!"
             FROM replication_heartbeat WHERE id = 1"#,
        guard,
    )
    .fetch_one(connection)
    .await?;
    let observation = Observation {
        role: if row.replica { Role::Replica } else { Role::Primary },
        position: Position {
            timeline: row.timeline.unsigned_abs(),
            lsn: row.lsn.unsigned_abs(),
        },
        at,
    };
    Ok((observation, row.due))
}

/// Connections of all clients, and how many there may be.
async fn connections(connection: &mut PgConnection) -> Result<(i64, i64), sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT coalesce(sum(numbackends), 0)::bigint AS "used!", current_setting('max_connections')::bigint AS "limit!"
             FROM pg_stat_database"#
    )
    .fetch_one(connection)
    .await?;
    Ok((row.used, row.limit))
}

/// Writes the heartbeat unless another process just did. It waits for no standby: what it measures is them.
async fn beat(connection: &mut PgConnection, guard: f64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"UPDATE replication_heartbeat
              SET beat_at = clock_timestamp(),
                  timeline = ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::integer
            WHERE id = (SELECT id FROM replication_heartbeat
                         WHERE id = 1 AND beat_at < clock_timestamp() - make_interval(secs => $1)
                           FOR UPDATE SKIP LOCKED)
        RETURNING set_config('synchronous_commit', 'local', true) AS "mode!""#,
        guard,
    )
    .fetch_optional(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_the_limit_within_bounds() {
        let pace_of = |ms| pace(Duration::from_millis(ms));
        assert_eq!(pace_of(1_000).interval, Duration::from_millis(100));
        assert_eq!(pace_of(10_000), pace_of(1_000));
        assert_eq!(pace_of(200).interval, Duration::from_millis(20));
        assert_eq!(pace_of(200).beat, Duration::from_millis(50));
        assert_eq!(pace_of(0).interval, Duration::from_millis(5));
    }
}
