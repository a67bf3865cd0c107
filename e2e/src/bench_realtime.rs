//! `make bench-realtime`: what one message to a room of many costs, over two servers and through Redis, and what an idle connection
//! costs. Real services, real processes; the clients share the machine with them. Every delivery is counted: a figure with a loss fails.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::client::{Answer, Client};
use crate::dev::Folder;
use crate::paths::Paths;
use crate::process::Call;
use crate::services::{Platform, ports};

/// Long enough to compile everything with optimisation.
const COMPILE: Duration = Duration::from_hours(1);
/// Nothing else takes longer.
const PATIENCE: Duration = Duration::from_mins(2);
/// Connections of one person at one server, below its limit.
const EACH: usize = 40;
/// Messages that are on their way to the database at a time.
const WRITERS: usize = 4;
/// Connections that are opened at a time.
const OPENING: usize = 50;

/// What is measured.
#[derive(Debug, Args)]
pub struct BenchRealtimeCommand {
    /// A binary of the API that is measured instead of one that is built for it.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Subscribers of one channel, over two servers.
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// Messages that are written, as fast as the database takes them.
    #[arg(long, default_value_t = 1_000)]
    messages: usize,
    /// Idle connections at one server.
    #[arg(long, default_value_t = 5_000)]
    idle: usize,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Measures, and prints one line a figure.
pub async fn run(paths: &Paths, command: &BenchRealtimeCommand) -> Result<()> {
    let binary = if let Some(binary) = &command.binary {
        binary.clone()
    } else {
        let build = Call::new("cargo", COMPILE).args(["build", "--release", "-p", "api-server", "--bins"]);
        build.dir(&paths.repo).run().await?;
        paths.target.join("release/tanka-api")
    };
    let platform = Platform::start(paths).await?;
    let outcome = async {
        let folder = Folder::new(paths, platform.environment()?)?;
        folder.migrate(&binary).await?;
        measure(&folder, &binary, command).await
    };
    let outcome = outcome.await;
    platform.stack.tear_down().await?;
    outcome
}

async fn measure(folder: &Folder, binary: &Path, command: &BenchRealtimeCommand) -> Result<()> {
    println!(
        "{} logical cores, shared by servers, clients, PostgreSQL and Redis; {}",
        std::thread::available_parallelism()?,
        binary.display()
    );
    let (first, second) = (
        Server::start(folder, binary).await?,
        Server::start(folder, binary).await?,
    );
    let people = command.subscribers.div_ceil(2).max(command.idle).div_ceil(EACH);
    let team = Team::gather(&first.address, people).await?;
    fan_out(&team, &[&first, &second], command).await?;
    idle(&team, &second, command.idle).await
}

/// A server of its own process.
struct Server {
    address: String,
    child: Child,
}

impl Server {
    async fn start(folder: &Folder, binary: &Path) -> Result<Self> {
        let plenty = json!({"requestsPerMinute": 1_000_000, "burst": 100_000, "loginPerMinute": 10_000});
        let config = folder.config(&json!({"rateLimit": plenty, "logLevel": "error"}))?;
        let free = ports::free(2)?;
        let address = format!("127.0.0.1:{}", free[0]);
        let child = Command::new(binary)
            .args(["serve", "--listen", &address])
            .args(["--ops-listen", &format!("127.0.0.1:{}", free[1]), "--config"])
            .arg(config)
            .arg("--pepper-file")
            .arg(folder.pepper()?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start the API")?;
        let server = Self { address, child };
        let client = Client::new(&server.address);
        let started = Instant::now();
        while !client
            .get("/ready", &[])
            .await
            .is_ok_and(|ready| ready.status == 200)
        {
            ensure!(started.elapsed() < PATIENCE, "the API is not ready in time");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(server)
    }

    /// Resident bytes.
    fn resident(&self) -> Result<u64> {
        let id = self.child.id().context("the API has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_ascii_whitespace().next());
        Ok(kibibytes.context("no VmRSS")?.parse::<u64>()? * 1_024)
    }
}

/// People of one tenant, all in one room.
struct Team {
    owner: Client,
    tokens: Vec<String>,
    room: String,
}

impl Team {
    async fn gather(address: &str, people: usize) -> Result<Self> {
        let anonymous = Client::new(address);
        let account = |number: usize| {
            let email = format!("bench-{number}@example.com");
            json!({"email": email, "password": "correct horse battery", "name": "Bench"})
        };
        let made = anonymous.post("/api/v1/auth/signup", &account(0), &[]).await?;
        let owner_token = made.success()?.text("/access_token")?;
        let owner = anonymous.with_token(&owner_token);
        let room = owner
            .post("/api/v1/workrooms", &json!({"name": "Bench"}), &[])
            .await?
            .success()?
            .text("/id")?;
        let mut tokens = vec![owner_token];
        for number in 1..people {
            let known = account(number);
            let member = patiently(|| owner.post("/api/v1/tenant/users", &known, &[])).await?;
            let admitted = json!({"user_id": member.text("/id")?});
            let path = format!("/api/v1/workrooms/{room}/members");
            owner.post(&path, &admitted, &[]).await?.success()?;
            let credentials = json!({"email": known["email"], "password": known["password"]});
            let login = patiently(|| anonymous.post("/api/v1/auth/login", &credentials, &[])).await?;
            tokens.push(login.text("/access_token")?);
        }
        Ok(Self { owner, tokens, room })
    }

    /// Opens connections, spread over people.
    async fn connect(&self, server: &Server, count: usize, channels: &Value) -> Result<Vec<Socket>> {
        let mut opened = Vec::with_capacity(count);
        let numbers: Vec<usize> = (0..count).collect();
        for chunk in numbers.chunks(OPENING) {
            let mut opening = JoinSet::new();
            for number in chunk {
                let url = format!("ws://{}/ws", server.address);
                let token = &self.tokens[(number / EACH) % self.tokens.len()];
                let first = json!({"type": "connect", "token": token, "channels": channels}).to_string();
                opening.spawn(async move {
                    let (mut socket, _) = connect_async(url).await?;
                    socket.send(Message::text(first)).await?;
                    let answer = socket.next().await.context("no answer")??;
                    ensure!(answer.to_text()?.contains("connected"), "refused: {answer}");
                    anyhow::Ok(socket)
                });
            }
            while let Some(socket) = timeout(PATIENCE, opening.join_next()).await? {
                opened.push(socket??);
            }
        }
        Ok(opened)
    }
}

/// Tries again while the server says that too many hash passwords.
async fn patiently<F: Future<Output = Result<Answer>>>(ask: impl Fn() -> F) -> Result<Answer> {
    let started = Instant::now();
    loop {
        let answer = ask().await?;
        if answer.status != 503 || started.elapsed() > PATIENCE {
            return answer.success();
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// What subscribers saw.
#[derive(Default)]
struct Tally {
    delivered: AtomicU64,
    last: AtomicI64,
    /// Deliveries by whole milliseconds from before the request to the arrival; the last one is everything longer.
    delays: Vec<AtomicU64>,
}

impl Tally {
    /// Prints what all deliveries together amount to.
    fn print(&self, wanted: u64) -> Result<()> {
        let took = Duration::from_micros(u64::try_from(self.last.load(Ordering::Relaxed))?);
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = wanted as f64 / took.as_secs_f64();
        println!("fan-out: {wanted} deliveries, none lost, {rate:.0} a second");
        for share in [50, 99] {
            let delay = percentile(&self.delays, share);
            println!("  p{share} from before the request to the arrival: {delay} ms");
        }
        Ok(())
    }
}

async fn fan_out(team: &Team, servers: &[&Server; 2], command: &BenchRealtimeCommand) -> Result<()> {
    let channels = json!([format!("workroom:{}:updates", team.room)]);
    let started = Instant::now();
    let mut sockets = Vec::new();
    for server in servers {
        sockets.extend(team.connect(server, command.subscribers / 2, &channels).await?);
    }
    let subscribers = sockets.len();
    println!(
        "{subscribers} subscribers connected in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let tally = Arc::new(Tally {
        delays: (0..=5_000).map(|_| AtomicU64::new(0)).collect(),
        ..Tally::default()
    });
    let begin = Instant::now();
    // Threads of their own, so that reading is not held up by writing.
    let readers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    for socket in sockets {
        readers.spawn(read(socket, tally.clone(), begin, command.messages));
    }
    let wanted = u64::try_from(subscribers * (command.messages / WRITERS) * WRITERS)?;
    let written = settle(team, &tally, begin, command.messages, wanted).await;
    // Before any error is passed on: a runtime cannot be dropped where others run.
    readers.shutdown_background();
    let seconds = written?.as_secs_f64();
    println!("{} messages written in {seconds:.2} s", command.messages);
    tally.print(wanted)
}

/// Writes messages and waits until everybody has them; answers how long writing took.
async fn settle(
    team: &Team,
    tally: &Tally,
    begin: Instant,
    messages: usize,
    wanted: u64,
) -> Result<Duration> {
    write(team, begin, messages).await?;
    let written = begin.elapsed();
    loop {
        let delivered = tally.delivered.load(Ordering::Relaxed);
        if delivered >= wanted {
            return Ok(written);
        }
        if begin.elapsed() > written + PATIENCE {
            bail!("{delivered} of {wanted} deliveries");
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Writes messages, a few at a time, each with the moment at which it was asked for.
async fn write(team: &Team, begin: Instant, messages: usize) -> Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, path) = (
            team.owner.clone(),
            format!("/api/v1/workrooms/{}/messages", team.room),
        );
        let count = messages / WRITERS;
        writers.spawn(async move {
            for _ in 0..count {
                let content = format!(
                    "at={};writer={writer};{}",
                    begin.elapsed().as_micros(),
                    "x".repeat(96)
                );
                client
                    .post(&path, &json!({"content": content}), &[])
                    .await?
                    .success()?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    Ok(())
}

async fn read(mut socket: Socket, tally: Arc<Tally>, begin: Instant, messages: usize) {
    let mut seen = 0;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let Some(asked) = text
            .split_once("\"at=")
            .and_then(|(_, rest)| rest.split_once(';'))
        else {
            continue;
        };
        let now = begin.elapsed();
        let asked = Duration::from_micros(asked.0.parse().unwrap_or(0));
        let delay = usize::try_from(now.saturating_sub(asked).as_millis()).unwrap_or(usize::MAX);
        tally.delays[delay.min(tally.delays.len() - 1)].fetch_add(1, Ordering::Relaxed);
        tally.delivered.fetch_add(1, Ordering::Relaxed);
        tally.last.fetch_max(
            i64::try_from(now.as_micros()).unwrap_or(i64::MAX),
            Ordering::Relaxed,
        );
        seen += 1;
        if seen >= messages {
            return;
        }
    }
}

fn percentile(delays: &[AtomicU64], share: u64) -> usize {
    let counts: Vec<u64> = delays.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let wanted = counts.iter().sum::<u64>() * share / 100;
    let mut sum = 0;
    counts
        .iter()
        .position(|count| {
            sum += count;
            sum >= wanted
        })
        .unwrap_or(0)
}

async fn idle(team: &Team, server: &Server, count: usize) -> Result<()> {
    // Everything that is made once is there already.
    drop(team.connect(server, OPENING, &json!([])).await?);
    sleep(Duration::from_secs(2)).await;
    let before = server.resident()?;
    let sockets = team.connect(server, count, &json!([])).await?;
    sleep(Duration::from_secs(2)).await;
    let after = server.resident()?;
    let each = after.saturating_sub(before) / u64::try_from(count)?;
    println!(
        "idle: {} connections with authentication and two channels, {:.1} MiB before, {:.1} MiB after: {each} bytes each",
        sockets.len(),
        mebibytes(before),
        mebibytes(after)
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_first_delay_that_covers_its_share() {
        let counts = [0, 50, 49, 0, 1].map(AtomicU64::new);
        assert_eq!(percentile(&counts, 50), 1);
        assert_eq!(percentile(&counts, 99), 2);
        assert_eq!(percentile(&counts, 100), 4);
    }
}
