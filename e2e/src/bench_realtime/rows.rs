//! What is measured, but for what ends a process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::published::published;
use super::raw::Raw;
use super::tally::{Figures, Reader, Tally, percentile};
use super::team::{EACH, Team};
use crate::benchmark::report::Report;
use crate::benchmark::server::Server;
use crate::client::Client;
use crate::services::Platform;

const PATIENCE: Duration = Duration::from_mins(1);
/// Before anything is timed.
pub const WARM: Duration = Duration::from_secs(2);
/// Requests that are under way at a time; more wait, and their waiting counts.
const UNDER_WAY: usize = 256;
/// What a message holds besides the moment at which it was due.
const PADDING: usize = 96;

/// Sockets that are read by one thread of their own, so that reading is not held up by what writes.
pub struct Crowd {
    runtime: Option<Runtime>,
    /// What they saw.
    pub tally: Arc<Tally>,
    begin: Instant,
}

impl Crowd {
    /// Reads from now on.
    pub fn read(sockets: Vec<Raw>, one_channel: bool) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let begin = Instant::now();
        let tally = Arc::new(Tally::new(begin, WARM));
        for mut socket in sockets {
            let tally = tally.clone();
            runtime.spawn(async move {
                let mut reader = Reader::default();
                while socket
                    .read(|text| tally.see(&mut reader, text, one_channel))
                    .await
                {}
            });
        }
        Ok(Self {
            runtime: Some(runtime),
            tally,
            begin,
        })
    }

    /// Since when it reads.
    pub const fn begin(&self) -> Instant {
        self.begin
    }

    /// Waits until so many deliveries have come.
    pub async fn settle(&self, wanted: u64) -> Result<()> {
        let started = Instant::now();
        while self.tally.delivered() < wanted {
            if started.elapsed() > PATIENCE {
                bail!("{} of {wanted} deliveries", self.tally.delivered());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // A runtime cannot be dropped where others run.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What one message holds.
pub fn content(due: Duration) -> String {
    format!("at={};{}", due.as_micros(), "x".repeat(PADDING))
}

/// Writes messages to the room at a rate, whether or not the servers keep up, over all servers in turn; answers how long each request
/// took.
async fn write(
    team: &Team,
    servers: &[&Server],
    begin: Instant,
    (rate, seconds): (u32, u64),
) -> Result<Vec<Duration>> {
    let path = format!("/api/v1/workrooms/{}/messages", team.room);
    let clients: Vec<Client> = servers
        .iter()
        .map(|server| team.owner.at(&server.address))
        .collect();
    let permits = Arc::new(Semaphore::new(UNDER_WAY));
    let mut writing = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let until = begin + WARM + Duration::from_secs(seconds);
    let (mut written, mut took) = (0, Vec::new());
    loop {
        let due = ticks.tick().await.into_std();
        if due >= until {
            break;
        }
        let permit = permits.clone().acquire_owned().await?;
        let client = clients[written % clients.len()].clone();
        let (path, body) = (path.clone(), json!({"content": content(due - begin)}));
        writing.spawn(async move {
            let started = Instant::now();
            let answer = client.post(&path, &body, &[]).await;
            drop(permit);
            answer?.success()?;
            anyhow::Ok(started.elapsed())
        });
        written += 1;
        while let Some(done) = writing.try_join_next() {
            took.push(done??);
        }
    }
    while let Some(done) = writing.join_next().await {
        took.push(done??);
    }
    took.sort_unstable();
    Ok(took)
}

/// Opens subscribers over all servers, writes, and says what they saw: so many subscribers, messages a second and seconds.
pub async fn fan_out_at(
    team: &Team,
    servers: &[&Server],
    (subscribers, rate, seconds): (usize, u32, u64),
) -> Result<Figures> {
    let channel = team.channel();
    let mut sockets = Vec::new();
    for (at, server) in servers.iter().enumerate() {
        let own = (0..subscribers).filter(|number| number % servers.len() == at);
        sockets.extend(team.connect(&server.address, own, |_| json!([channel])).await?);
    }
    let crowd = Crowd::read(sockets, true)?;
    let writes = write(team, servers, crowd.begin, (rate, seconds)).await?;
    let wanted = u64::try_from(writes.len() * subscribers)?;
    crowd.settle(wanted).await?;
    let figures = crowd.tally.figures(WARM + Duration::from_secs(seconds));
    println!(
        "of its delay the request that writes takes {} ms in the middle and {} ms of the slowest hundredth",
        writes[writes.len() / 2].as_millis(),
        writes[writes.len() * 99 / 100].as_millis()
    );
    ensure!(figures.broken == 0, "{} offsets out of order", figures.broken);
    ensure!(
        figures.delivered == wanted,
        "{} of {wanted} deliveries",
        figures.delivered
    );
    Ok(figures)
}

fn text(figures: &Figures) -> String {
    format!(
        "{} deliveries/s, p50 {} ms, p99 {} ms, longest {} ms; all {} came, in order",
        figures.rate, figures.p50, figures.p99, figures.longest, figures.delivered
    )
}

/// One channel of many subscribers on two servers.
pub async fn fan_out(
    report: &mut Report,
    team: &Team,
    servers: &[&Server],
    (subscribers, rates, seconds): (usize, &[u32], u64),
) -> Result<()> {
    for rate in rates {
        let before: f64 = processors(servers)?;
        let figures = fan_out_at(team, servers, (subscribers, *rate, seconds)).await?;
        let used = processors(servers)? - before;
        report.raw(json!({"fan_out": rate, "server_seconds": used, "figures": format!("{figures:?}")}));
        report.row(
            &format!("{subscribers} subscribers of one channel, two servers, {rate} messages/s written"),
            &format!(
                "{}; the servers took {used:.1} s of processor time",
                text(&figures)
            ),
            "200,000 deliveries/s, p99 under 50 ms",
            Some(figures.rate >= 200_000 && figures.p99 < 50),
        );
    }
    Ok(())
}

fn processors(servers: &[&Server]) -> Result<f64> {
    servers.iter().map(|server| server.processor()).sum()
}

/// Many small rooms. PostgreSQL of this machine does not take so many commits, so the messages come through Redis.
pub async fn rooms(
    report: &mut Report,
    team: &Team,
    servers: &[&Server],
    platform: &Platform,
    (rooms, seconds): (usize, u64),
) -> Result<()> {
    const MEMBERS: usize = 10;
    make_rooms(team, platform, rooms).await?;
    let name = |room: usize| format!("workroom:00000000-0000-4000-8000-{room:012x}:updates");
    // Ten connections listen to the same ten rooms.
    let channels = |number: usize| {
        let first = number / MEMBERS * MEMBERS;
        json!((first..first + MEMBERS).map(name).collect::<Vec<_>>())
    };
    let mut sockets = Vec::new();
    for (at, server) in servers.iter().enumerate() {
        let own = (0..rooms).filter(|number| number % servers.len() == at);
        sockets.extend(team.connect(&server.address, own, channels).await?);
    }
    let load = (rooms, 5_000, seconds);
    let figures = published(platform, sockets, load, MEMBERS, name).await?;
    report.raw(json!({"rooms": rooms, "figures": format!("{figures:?}")}));
    report.row(
        &format!("{rooms} rooms of {MEMBERS}, {rooms} connections, published through Redis"),
        &text(&figures),
        "50,000 deliveries/s, p99 under 20 ms",
        Some(figures.rate >= 49_000 && figures.p99 < 20),
    );
    Ok(())
}

async fn make_rooms(team: &Team, platform: &Platform, rooms: usize) -> Result<()> {
    let people: Vec<String> = team
        .people
        .iter()
        .enumerate()
        .map(|(number, id)| format!("({number},'{id}'::uuid)"))
        .collect();
    let (people, tenant, last) = (people.join(","), &team.tenant, rooms - 1);
    let id = "('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid";
    let sql = format!(
        "WITH made AS (INSERT INTO workrooms (id, tenant_id, name) SELECT {id}, '{tenant}', 'Bench' FROM generate_series(0, {last}) n),
              people (number, id) AS (VALUES {people})
         INSERT INTO workroom_members (workroom_id, user_id, tenant_id, role)
         SELECT {id}, people.id, '{tenant}', 'member' FROM generate_series(0, {last}) n
           JOIN people ON people.number BETWEEN (n / 10 * 10) / {EACH} AND (n / 10 * 10 + 9) / {EACH}"
    );
    // The constraint looks at the rooms after the whole statement.
    platform.postgres.query(0, &sql).await.map(drop)
}

/// Resident memory of an idle connection.
pub async fn idle(report: &mut Report, team: &Team, server: &Server, count: usize) -> Result<()> {
    // Everything that is made once is there already.
    drop(team.connect(&server.address, 0..EACH, |_| json!([])).await?);
    sleep(Duration::from_secs(2)).await;
    let before = server.resident()?;
    let sockets = team.connect(&server.address, 0..count, |_| json!([])).await?;
    let crowd = Crowd::read(sockets, false)?;
    sleep(Duration::from_secs(3)).await;
    let after = server.resident()?;
    let said = server.exposition().await?;
    let open = said.sum("tanka_websocket_connections", &[]);
    drop(crowd);
    let each = after.saturating_sub(before) / u64::try_from(count)?;
    report.raw(json!({"idle": count, "open": open, "before": before, "after": after}));
    report.row(
        &format!("idle connection with authentication and two channels, of {count}"),
        &format!("{each} B resident ({before} B before, {after} B after)"),
        "6,144 B",
        Some(each <= 6_144),
    );
    Ok(())
}

/// The registry, asked through the API, with entries of three other processes. Fifty thousand sockets and their clients do not fit
/// beside everything else, so the entries are written as servers write them.
pub async fn registry(report: &mut Report, team: &Team, server: &Server, platform: &Platform) -> Result<()> {
    const ENTRIES: usize = 50_000;
    const ASKED: usize = 300;
    let primary = platform.redis.primary().await?.context("Redis has no primary")?;
    let roll = format!("tanka:roll:tenant:{}:broadcast", team.tenant);
    for node in 0..3 {
        let name = format!("bench-{node}/0");
        let entries: Vec<String> = (0..=ENTRIES / 3)
            .map(|number| format!("{number}/{}", team.people[number % team.people.len()]))
            .collect();
        let key = format!("{roll}:{name}");
        for chunk in entries.chunks(1_000) {
            let mut command = vec!["ZADD", key.as_str()];
            for entry in chunk {
                command.extend(["1700000000000", entry.as_str()]);
            }
            platform.redis.pipeline(primary, &[command]).await?;
        }
        let lease = format!("tanka:node:{{bench-{node}}}/0");
        let told = [
            vec!["SADD", &roll, &name],
            vec!["SET", &lease, "1", "PX", "120000"],
        ];
        platform.redis.pipeline(primary, &told).await?;
    }
    let client = team.owner.at(&server.address);
    let mut delays = vec![0_u64; 100_000];
    let mut total = 0;
    for _ in 0..ASKED {
        let started = Instant::now();
        let answer = client.get("/api/v1/tenant/connections", &[]).await?.success()?;
        let tenths = usize::try_from(started.elapsed().as_micros() / 100)?;
        delays[tenths.min(99_999)] += 1;
        total = answer.body["total"].as_u64().context("no total")?;
    }
    ensure!(
        total >= u64::try_from(ENTRIES)?,
        "only {total} connections are counted"
    );
    let (p50, p99) = (percentile(&delays, 50), percentile(&delays, 99));
    report.row(
        &format!("`tenant/connections` with {total} entries"),
        &format!(
            "p50 {}.{} ms, p99 {}.{} ms",
            p50 / 10,
            p50 % 10,
            p99 / 10,
            p99 % 10
        ),
        "under 5 ms",
        Some(p50 < 50),
    );
    Ok(())
}
