//! Events that come through Redis, as from a third server; the servers cannot tell the difference. What PostgreSQL takes for a commit, and
//! how that varies, is not in these figures.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::raw::Raw;
use super::rows::{Crowd, WARM, content};
use super::tally::Figures;
use crate::services::Platform;

/// Publishes to so many rooms in turn, so many events a second for so many seconds, and says what the sockets saw, of which so many are
/// in each room.
pub async fn published(
    platform: &Platform,
    sockets: Vec<Raw>,
    load: (usize, usize, u64),
    members: usize,
    name: impl Fn(usize) -> String,
) -> Result<Figures> {
    // The servers subscribe to Redis a moment after their clients do.
    sleep(Duration::from_secs(2)).await;
    let crowd = Crowd::read(sockets, false)?;
    let written = publish(platform, crowd.begin(), load, name).await?;
    crowd.settle(written * u64::try_from(members)?).await?;
    let (_, _, seconds) = load;
    Ok(crowd.tally.figures(WARM + Duration::from_secs(seconds)))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the rim: events say when they were written"
)]
/// Publishes events to rooms in turn, at a rate, as a server does; answers how many.
async fn publish(
    platform: &Platform,
    begin: Instant,
    (rooms, rate, seconds): (usize, usize, u64),
    name: impl Fn(usize) -> String,
) -> Result<u64> {
    const TICK: Duration = Duration::from_millis(10);
    let primary = platform.redis.primary().await?.context("Redis has no primary")?;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let until = begin + WARM + Duration::from_secs(seconds);
    let mut written = 0;
    let epoch = "00000000-0000-4000-9000-000000000001";
    loop {
        let due = ticks.tick().await.into_std();
        if due >= until {
            return Ok(u64::try_from(written)?);
        }
        let mut events = Vec::with_capacity(rate / 100);
        for _ in 0..rate / 100 {
            let channel = name(written % rooms);
            let frame = json!({"type": "event", "channel": channel, "epoch": epoch, "offset": written / rooms + 1,
                "id": epoch, "event": "workroom.message.created", "at": jiff::Timestamp::now(),
                "data": {"content": content(due - begin)}});
            events.push((format!("tanka:event:{channel}"), frame.to_string()));
            written += 1;
        }
        let commands: Vec<Vec<&str>> = events
            .iter()
            .map(|(channel, frame)| vec!["SPUBLISH", channel, frame])
            .collect();
        platform.redis.pipeline(primary, &commands).await?;
    }
}
