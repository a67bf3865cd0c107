//! What others need for the same: the server `sockudo` and the packages `ws` and `socket.io`, in one process each. They carry events from
//! one connection to all others; there is no database, no offset and no history, and only sockudo checks who subscribes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::raw::Raw;
use super::rows::Crowd;
use crate::benchmark::report::Report;
use crate::benchmark::server::resident;
use crate::benchmark::venv;
use crate::paths::Paths;
use crate::process::Call;

const INSTALL: Duration = Duration::from_mins(5);
/// It is a large program, and compiled once.
const COMPILE: Duration = Duration::from_mins(40);
const START: Duration = Duration::from_secs(20);
const WARM: Duration = Duration::from_secs(2);
const SOCKUDO: &str = "5.2.0";
/// Of sockudo's only application.
const SECRET: &str = "a-secret";

/// A peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ws,
    SocketIo,
    Sockudo,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::SocketIo => "socket.io",
            Self::Sockudo => "sockudo",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Ws => "/",
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket",
            Self::Sockudo => "/app/bench?protocol=7&client=bench&version=1.0.0",
        }
    }
}

/// Where the peers' programs are.
struct Programs {
    /// Folder of what runs on Node.js.
    node: PathBuf,
    sockudo: PathBuf,
}

impl Programs {
    async fn install(paths: &Paths) -> Result<Self> {
        let node = paths.repo.join("e2e/peers");
        let install = Call::new("npm", INSTALL).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        install.dir(&node).run().await?;
        let root = paths.cache.join(format!("sockudo-{SOCKUDO}"));
        let sockudo = root.join("bin/sockudo");
        if !sockudo.exists() {
            let built = root.join("target");
            // One of the packages that it is made of compiles a `.proto` file.
            let venv = venv::install(&root.join("protoc"), &node.join("sockudo")).await?;
            Call::new("cargo", COMPILE)
                .args(["install", "sockudo", "--locked", "--version", SOCKUDO])
                .args(["--no-default-features", "--features", "local", "--root"])
                .args([&root])
                .env("CARGO_TARGET_DIR", &built)
                .env("PROTOC", venv.join("bin/protoc"))
                .run()
                .await?;
            tokio::fs::remove_dir_all(built).await?;
        }
        Ok(Self { node, sockudo })
    }
}

struct Peer {
    kind: Kind,
    address: String,
    child: Child,
}

impl Peer {
    async fn start(programs: &Programs, kind: Kind) -> Result<Self> {
        match kind {
            Kind::Sockudo => Self::start_sockudo(&programs.sockudo).await,
            _ => Self::start_node(&programs.node, kind).await,
        }
    }

    async fn start_node(folder: &Path, kind: Kind) -> Result<Self> {
        let mut child = Command::new("node")
            .current_dir(folder)
            .args(["server.mjs", kind.name()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start node")?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let port = lines.next_line().await?.context("the peer has ended")?;
        let address = format!("127.0.0.1:{port}");
        Ok(Self { kind, address, child })
    }

    async fn start_sockudo(program: &Path) -> Result<Self> {
        // Nobody else takes ports here between the two.
        let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let child = Command::new(program)
            .env_clear()
            .envs([
                ("HOST", "127.0.0.1"),
                ("METRICS_ENABLED", "false"),
                ("RATE_LIMITER_ENABLED", "false"),
                ("ADAPTER_DRIVER", "local"),
                ("CACHE_DRIVER", "memory"),
                ("QUEUE_DRIVER", "memory"),
                ("SOCKUDO_DEFAULT_APP_ID", "bench"),
                ("SOCKUDO_DEFAULT_APP_KEY", "bench"),
                ("SOCKUDO_DEFAULT_APP_SECRET", SECRET),
                ("SOCKUDO_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "true"),
                ("SOCKUDO_DEFAULT_APP_MAX_CONNECTIONS", "100000"),
                ("SOCKUDO_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SECOND", "100000"),
            ])
            .env("PORT", address.port().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start sockudo")?;
        let ready = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(START, ready).await.context("sockudo does not listen")?;
        Ok(Self {
            kind: Kind::Sockudo,
            address: address.to_string(),
            child,
        })
    }

    async fn connect(&self, count: usize) -> Result<Vec<Raw>> {
        let mut sockets = Vec::with_capacity(count);
        for _ in 0..count {
            let mut socket = Raw::open(&self.address, self.kind.path()).await?;
            self.introduce(&mut socket).await?;
            sockets.push(socket);
        }
        Ok(sockets)
    }

    async fn introduce(&self, socket: &mut Raw) -> Result<()> {
        match self.kind {
            Kind::Ws => {
                socket.say("hello").await?;
                socket.hear().await?;
            }
            Kind::SocketIo => {
                // `0{…}` opens the transport, `40` the namespace.
                socket.hear().await?;
                socket.say("40").await?;
                let answer = socket.hear().await?;
                if !answer.starts_with("40") {
                    bail!("refused: {answer}");
                }
            }
            Kind::Sockudo => {
                let opened: Value = serde_json::from_str(&socket.hear().await?)?;
                let inner: Value = serde_json::from_str(opened["data"].as_str().context("no data")?)?;
                let id = inner["socket_id"].as_str().context("no socket_id")?;
                for channel in ["private-one", "private-two"] {
                    let data =
                        json!({"channel": channel, "auth": format!("bench:{}", signature(id, channel))});
                    let subscribe = json!({"event": "pusher:subscribe", "data": data});
                    socket.say(&subscribe.to_string()).await?;
                    let answer = socket.hear().await?;
                    ensure!(answer.contains("subscription_succeeded"), "refused: {answer}");
                }
            }
        }
        Ok(())
    }

    async fn say(&self, socket: &mut Raw, due: Duration) -> Result<()> {
        let text = format!("at={};{}", due.as_micros(), "x".repeat(400));
        let said = match self.kind {
            Kind::Ws => format!("say:{}", json!({"content": text})),
            Kind::SocketIo => format!("42{}", json!(["say", text])),
            Kind::Sockudo => {
                let data = json!({"content": text});
                json!({"event": "client-said", "channel": "private-one", "data": data}).to_string()
            }
        };
        socket.say(&said).await
    }
}

/// Proof that a socket may listen to a channel, as sockudo's application would give it.
fn signature(socket: &str, channel: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()) else {
        return String::new();
    };
    mac.update(format!("{socket}:{channel}").as_bytes());
    let bytes = mac.finalize().into_bytes();
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Measures the peers.
pub async fn run(
    report: &mut Report,
    paths: &Paths,
    (idle, subscribers, rates): (usize, usize, &[u32]),
) -> Result<()> {
    let programs = Programs::install(paths).await?;
    for kind in [Kind::Sockudo, Kind::Ws, Kind::SocketIo] {
        let name = kind.name();
        let peer = Peer::start(&programs, kind).await?;
        let id = peer.child.id().context("the peer has ended")?;
        drop(peer.connect(50).await?);
        sleep(Duration::from_secs(2)).await;
        let before = resident(id)?;
        let sockets = peer.connect(idle).await?;
        sleep(Duration::from_secs(2)).await;
        let each = resident(id)?.saturating_sub(before) / u64::try_from(idle)?;
        drop(sockets);
        report.row(
            &format!("{name}: idle connection in two rooms, of {idle}"),
            &format!("{each} B resident"),
            "",
            None,
        );
        for rate in rates {
            let peer = Peer::start(&programs, kind).await?;
            fan_out(report, &peer, subscribers, *rate).await?;
        }
    }
    Ok(())
}

async fn fan_out(report: &mut Report, peer: &Peer, subscribers: usize, rate: u32) -> Result<()> {
    const SECONDS: u64 = 5;
    let mut speaker = peer.connect(1).await?.pop().context("no socket")?;
    let crowd = Crowd::read(peer.connect(subscribers).await?, false)?;
    let begin = Instant::now();
    let ahead = begin.duration_since(crowd.begin());
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let until = begin + WARM + Duration::from_secs(SECONDS);
    loop {
        let due = ticks.tick().await.into_std();
        if due >= until {
            break;
        }
        peer.say(&mut speaker, due - begin + ahead).await?;
    }
    let figures = crowd.tally.figures(WARM + Duration::from_secs(SECONDS));
    report.row(
        &format!(
            "{}: {subscribers} subscribers of one room, one process, {rate} messages/s",
            peer.kind.name()
        ),
        &format!(
            "{} deliveries/s, p50 {} ms, p99 {} ms, longest {} ms",
            figures.rate, figures.p50, figures.p99, figures.longest
        ),
        "",
        None,
    );
    Ok(())
}
