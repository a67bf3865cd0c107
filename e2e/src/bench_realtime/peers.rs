//! What others need for the same: the packages `ws` and `socket.io`, in one process each. They carry events from one connection to all
//! others and do nothing else: no database, no authentication, no offsets, no history.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::raw::Raw;
use super::rows::Crowd;
use crate::benchmark::report::Report;
use crate::benchmark::server::resident;
use crate::paths::Paths;
use crate::process::Call;

const INSTALL: Duration = Duration::from_mins(5);
const WARM: Duration = Duration::from_secs(2);

struct Peer {
    kind: &'static str,
    address: String,
    child: Child,
}

impl Peer {
    async fn start(folder: &Path, kind: &'static str) -> Result<Self> {
        let mut child = Command::new("node")
            .current_dir(folder)
            .args(["server.mjs", kind])
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

    async fn connect(&self, count: usize) -> Result<Vec<Raw>> {
        let mut sockets = Vec::with_capacity(count);
        for _ in 0..count {
            let mut socket = match self.kind {
                "ws" => Raw::open(&self.address, "/").await?,
                _ => Raw::open(&self.address, "/socket.io/?EIO=4&transport=websocket").await?,
            };
            if self.kind == "ws" {
                socket.say("hello").await?;
                socket.hear().await?;
            } else {
                // `0{…}` opens the transport, `40` the namespace.
                socket.hear().await?;
                socket.say("40").await?;
                let answer = socket.hear().await?;
                if !answer.starts_with("40") {
                    bail!("refused: {answer}");
                }
            }
            sockets.push(socket);
        }
        Ok(sockets)
    }

    async fn say(&self, socket: &mut Raw, due: Duration) -> Result<()> {
        let text = format!("at={};{}", due.as_micros(), "x".repeat(400));
        let said = match self.kind {
            "ws" => format!("say:{}", json!({"content": text})),
            _ => format!("42{}", json!(["say", text])),
        };
        socket.say(&said).await
    }
}

/// Measures the peers.
pub async fn run(
    report: &mut Report,
    paths: &Paths,
    (idle, subscribers, rates): (usize, usize, &[u32]),
) -> Result<()> {
    let folder = paths.repo.join("e2e/peers");
    let install = Call::new("npm", INSTALL).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    install.dir(&folder).run().await?;
    for kind in ["ws", "socket.io"] {
        let peer = Peer::start(&folder, kind).await?;
        let id = peer.child.id().context("the peer has ended")?;
        drop(peer.connect(50).await?);
        sleep(Duration::from_secs(2)).await;
        let before = resident(id)?;
        let sockets = peer.connect(idle).await?;
        sleep(Duration::from_secs(2)).await;
        let each = resident(id)?.saturating_sub(before) / u64::try_from(idle)?;
        drop(sockets);
        report.row(
            &format!("{kind}: idle connection in two rooms, without authentication, of {idle}"),
            &format!("{each} B resident"),
            "",
            None,
        );
        for rate in rates {
            let peer = Peer::start(&folder, kind).await?;
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
            peer.kind
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
