//! One reader that reads nothing: how soon it is put out, what it costs, and whether others notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use tokio::time::sleep;

use super::published::published;
use super::raw::Raw;
use super::tally::Figures;
use super::team::Team;
use crate::benchmark::report::Report;
use crate::benchmark::server::Server;
use crate::benchmark::steal::Ticks;
use crate::services::Platform;

/// Runs with it, and as many without.
const ROUNDS: usize = 8;
/// Of the processor's time, what others may have during a run that counts, in hundredths.
const CALM: u64 = 5;

/// One reader that reads nothing, found out about.
struct Slow {
    /// From the moment at which the kernel took no more to that at which it was put out.
    out: Option<Duration>,
    /// Bytes that the server kept for it.
    kept: f64,
    /// Bytes that the kernel kept for it.
    kernel: f64,
}

/// One among many reads nothing. Runs with and without it take turns in being the first, because the machine is not the same from one to
/// the next; one during which others had much of it is not counted, unless that does not end.
pub async fn slow_reader(
    report: &mut Report,
    team: &Team,
    servers: &[&Server],
    platform: &Platform,
    size: (usize, usize, u64),
) -> Result<()> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let mut worst = Slow {
        out: Some(Duration::ZERO),
        kept: 0.0,
        kernel: 0.0,
    };
    for run in 0..4 * ROUNDS {
        let beside_slow = matches!(run % 4, 1 | 2);
        let enough = if beside_slow { with.len() } else { without.len() };
        if enough == ROUNDS {
            continue;
        }
        let channel = make_room(team, platform, run).await?;
        let measured = watched_fan_out(team, servers, platform, (&channel, size), beside_slow);
        let before = Ticks::read();
        let (figures, slow) = measured.await?;
        let stolen = Ticks::read().stolen_since(before);
        if stolen > CALM && run < 2 * ROUNDS {
            println!("others had {stolen} % of the processor during a run, which is not counted");
            continue;
        }
        if !beside_slow {
            without.push(figures.p99);
            continue;
        }
        with.push(figures.p99);
        worst.out = worst.out.zip(slow.out).map(|(one, other)| one.max(other));
        worst.kept = worst.kept.max(slow.kept);
        worst.kernel = worst.kernel.max(slow.kernel);
    }
    report
        .raw(json!({"slow": {"without": without, "with": with, "kept": worst.kept, "kernel": worst.kernel}}));
    without.sort_unstable();
    with.sort_unstable();
    tell(report, size.0, &worst, (with[ROUNDS / 2], without[ROUNDS / 2]));
    Ok(())
}

/// Puts it into the report.
fn tell(report: &mut Report, subscribers: usize, worst: &Slow, (with, without): (usize, usize)) {
    let found = worst.out.map_or_else(
        || "not put out".to_owned(),
        |out| {
            format!(
                "out {:.1} s after its connection was full, the latest of {ROUNDS}",
                out.as_secs_f64()
            )
        },
    );
    let met = worst.out.is_some_and(|out| out < Duration::from_secs(5));
    report.row(
        "one reader that reads nothing",
        &found,
        "out within 5 s",
        Some(met),
    );
    let (kept, kernel) = (worst.kept / 1_024.0, worst.kernel / 1_024.0);
    report.row(
        "what it cost, the most of all rounds",
        &format!("{kept:.0} KiB in the server, {kernel:.0} KiB in the kernel"),
        "256 KiB",
        Some(kept + kernel <= 256.0),
    );
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let ratio = with as f64 / without.max(1) as f64;
    report.row(
        &format!("p99 of the other {subscribers}, with and without it, medians of {ROUNDS}"),
        &format!("{with} ms and {without} ms: {ratio:.2} times"),
        "1.1 times",
        Some(ratio <= 1.1),
    );
}

/// A room of everybody in which nothing was said; answers its channel.
async fn make_room(team: &Team, platform: &Platform, number: usize) -> Result<String> {
    let room = format!("00000000-0000-4000-a000-{number:012x}");
    let people: Vec<String> = team.people.iter().map(|id| format!("('{id}'::uuid)")).collect();
    let (people, tenant) = (people.join(","), &team.tenant);
    let sql = format!(
        "WITH made AS (INSERT INTO workrooms (id, tenant_id, name) VALUES ('{room}', '{tenant}', 'Bench'))
         INSERT INTO workroom_members (workroom_id, user_id, tenant_id, role)
         SELECT '{room}', id, '{tenant}', 'member' FROM (VALUES {people}) people (id)"
    );
    platform.postgres.query(0, &sql).await?;
    Ok(format!("workroom:{room}:updates"))
}

/// A fan-out, with or without one more subscriber that reads nothing. The kernel is asked the same either way; the server is not asked
/// while it is measured.
async fn watched_fan_out(
    team: &Team,
    servers: &[&Server],
    platform: &Platform,
    (channel, (subscribers, rate, seconds)): (&str, (usize, usize, u64)),
    beside_slow: bool,
) -> Result<(Figures, Slow)> {
    /// What the server has taken out of the queue to write it, at most.
    const IN_HAND: f64 = 32_768.0;
    const DISCARDED: &str = "tanka_realtime_discarded_bytes_total";
    const CLOSED: &str = "tanka_websocket_closed_total";
    const SLOW: &[&str] = &["reason=\"slow\""];
    let server = servers[0];
    let before = server.exposition().await?;
    let mut sockets = Vec::new();
    for (at, server) in servers.iter().enumerate() {
        let own = (0..subscribers).filter(|number| number % servers.len() == at);
        sockets.extend(team.connect(&server.address, own, |_| json!([channel])).await?);
    }
    let last = subscribers..subscribers + usize::from(beside_slow);
    let slow = team.connect(&server.address, last, |_| json!([channel])).await?;
    let far = slow.first().map(Raw::port).transpose()?;
    let ports = (server.port()?, far.unwrap_or(0));
    let done = Arc::new(AtomicBool::new(false));
    let watch = watch_slow(ports, done.clone());
    let measure = async {
        let load = (1, rate, seconds);
        let figures = published(platform, sockets, load, subscribers, |_| channel.to_owned()).await;
        done.store(true, Ordering::Relaxed);
        figures
    };
    let (figures, watched) = tokio::join!(measure, watch);
    let ((out, kernel), figures) = (watched, figures?);
    drop(slow);
    let after = server.exposition().await?;
    let put_out = after.sum(CLOSED, SLOW) > before.sum(CLOSED, SLOW);
    // Everybody else got everything, so what was thrown away was the slow one's.
    let kept = IN_HAND + after.sum(DISCARDED, &[]) - before.sum(DISCARDED, &[]);
    let out = out.filter(|_| put_out);
    Ok((figures, Slow { out, kept, kernel }))
}

/// Looks four times a second how much waits for the slow one and whether it is out, until the fan-out is done; answers when that was,
/// counted from the moment at which the kernel took no more, and the most that waited in the kernel.
async fn watch_slow((near, far): (u16, u16), done: Arc<AtomicBool>) -> (Option<Duration>, f64) {
    /// More than what is on its way to a client that reads.
    const UNREAD: f64 = 16_384.0;
    let (mut out, mut kernel) = (None, 0.0_f64);
    let (mut full, mut last) = (None::<Instant>, 0.0);
    while !done.load(Ordering::Relaxed) {
        match kernel_queue(near, far) {
            None => out = out.or_else(|| full.map(|since| since.elapsed())),
            Some(waiting) => {
                kernel = kernel.max(waiting);
                if waiting > UNREAD && full.is_none() && (waiting - last).abs() < 1.0 {
                    full = Some(Instant::now());
                }
                last = waiting;
            }
        }
        sleep(Duration::from_millis(250)).await;
    }
    (out, kernel)
}

/// Bytes that the kernel holds for one open connection of the loopback, between these ports.
fn kernel_queue(near: u16, far: u16) -> Option<f64> {
    const OPEN: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let (near, far) = (format!(":{near:04X}"), format!(":{far:04X}"));
    let line = table.lines().find(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&near))
            && fields.next().is_some_and(|remote| remote.ends_with(&far))
    })?;
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (state, queues) = (fields.next()?, fields.next()?);
    let (sending, _) = queues.split_once(':').filter(|_| state == OPEN)?;
    u32::from_str_radix(sending, 16).ok().map(f64::from)
}
