//! Redis as the platform runs it: members with a Sentinel each, started by the scripts of the image.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use tokio::time::timeout;

use crate::{
    rootfs::Rootfs,
    services::{Sandbox, Service, Stack, resp},
};

/// What Sentinel calls the group.
pub const MASTER_NAME: &str = "tanka";
/// Guards nothing: the servers listen on loopback, for the time of a test.
pub(super) const PASSWORD: &str = "redis-for-tests";
/// As the image has it.
pub(super) const USER: (u32, u32) = (999, 999);

const QUERY_DEADLINE: Duration = Duration::from_secs(5);
const HANDOVER_DEADLINE: Duration = Duration::from_secs(30);
const READY_DEADLINE: Duration = Duration::from_mins(1);

/// Three members, as the platform has by default.
pub const PORTS: usize = 2 * 3;

/// How a group is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether each keeps an append-only log.
    pub append_only: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { append_only: true }
    }
}

/// Servers `redis-0`, ... and Sentinels `sentinel-0`, ...
#[derive(Debug)]
pub struct Group {
    root: Rootfs,
    /// Of server and Sentinel of each member.
    ports: Vec<(u16, u16)>,
}

impl Group {
    /// Starts all members at once, on two ports for each.
    pub fn start(stack: &mut Stack, root: Rootfs, ports: &[u16], options: &Options) -> Result<Self> {
        let ports: Vec<(u16, u16)> = ports.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let group = Self { root, ports };
        for index in 0..group.ports.len() {
            for (name, program) in [
                ("redis", "tanka-redis-server"),
                ("sentinel", "tanka-redis-sentinel"),
            ] {
                let name = format!("{name}-{index}");
                let sandbox = group.sandbox(index, &stack.folder().join(format!("redis-{index}")), options);
                let log = stack.folder().join("logs").join(format!("{name}.log"));
                stack.add(Service::new(&name, sandbox, vec![program.to_owned()], log))?;
            }
        }
        Ok(group)
    }

    /// The image that they run from.
    pub fn image(&self) -> &Rootfs {
        &self.root
    }

    fn sandbox(&self, index: usize, data: &Path, options: &Options) -> Sandbox {
        let peers: Vec<String> = self
            .ports
            .iter()
            .map(|(server, sentinel)| format!("127.0.0.1:{server}:{sentinel}"))
            .collect();
        Sandbox {
            root: self.root.path.clone(),
            user: USER,
            binds: vec![(data.to_path_buf(), "/data")],
            disks: Vec::new(),
            environment: vec![
                ("POD_NAME", format!("test-redis-{index}")),
                ("REDIS_PEERS", peers.join(" ")),
                ("REDIS_BIND", "127.0.0.1".to_owned()),
                ("REDIS_PASSWORD", PASSWORD.to_owned()),
                ("REDIS_MAXMEMORY", (64 << 20).to_string()),
                (
                    "REDIS_APPENDONLY",
                    if options.append_only { "yes" } else { "no" }.to_owned(),
                ),
            ],
        }
    }

    /// Waits until the Sentinels agree, and every replica is in step.
    pub async fn wait_until_ready(&self, stack: &mut Stack) -> Result<()> {
        stack
            .wait_until("Redis and its Sentinels are ready", READY_DEADLINE, async || {
                self.is_ready().await
            })
            .await
    }

    /// Whether the Sentinels agree, and every replica is in step.
    pub async fn is_ready(&self) -> bool {
        let Ok(Some(primary)) = self.primary().await else {
            return false;
        };
        let online = self
            .server(primary, &["INFO", "replication"])
            .await
            .unwrap_or_default();
        if online.matches("state=online").count() + 1 != self.ports.len() {
            return false;
        }
        let usable = format!("OK {} usable Sentinels", self.ports.len());
        for index in 0..self.ports.len() {
            let quorum = self
                .sentinel(index, &["SENTINEL", "CKQUORUM", MASTER_NAME])
                .await
                .unwrap_or_default();
            if !quorum.starts_with(&usable) {
                return false;
            }
        }
        true
    }

    /// The member that all Sentinels name, when they agree.
    pub async fn primary(&self) -> Result<Option<usize>> {
        let mut named = Vec::new();
        for index in 0..self.ports.len() {
            let answer = self
                .sentinel(index, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME])
                .await?;
            let port = answer.lines().nth(1).and_then(|port| port.parse::<u16>().ok());
            named.push(self.ports.iter().position(|(server, _)| Some(*server) == port));
        }
        named.dedup();
        Ok(if named.len() == 1 { named[0] } else { None })
    }

    /// Runs what a pod runs before it stops its server.
    pub async fn hand_over(&self, stack: &Stack, index: usize) -> Result<()> {
        let data = stack.folder().join(format!("redis-{index}"));
        let sandbox = self.sandbox(index, &data, &Options::default());
        sandbox
            .call(&["tanka-redis-handover"], HANDOVER_DEADLINE)?
            .run()
            .await
    }

    /// Where the server of a member listens.
    pub fn port(&self, index: usize) -> Result<u16> {
        Ok(self.ports.get(index).context("no such member")?.0)
    }

    /// One command to a server.
    pub async fn server(&self, index: usize, command: &[&str]) -> Result<String> {
        self.ask(self.ports.get(index).context("no such member")?.0, command)
            .await
    }

    /// One command to a Sentinel.
    pub async fn sentinel(&self, index: usize, command: &[&str]) -> Result<String> {
        self.ask(self.ports.get(index).context("no such member")?.1, command)
            .await
    }

    /// Several commands over one connection to a server, and the answer to each.
    pub async fn pipeline(&self, index: usize, commands: &[Vec<&str>]) -> Result<Vec<String>> {
        ask_all(self.port(index)?, commands).await
    }

    async fn ask(&self, port: u16, command: &[&str]) -> Result<String> {
        Ok(ask_all(port, &[command.to_vec()]).await?.concat())
    }

    /// What a command that uses them finds in its environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let sentinels: Vec<String> = self
            .ports
            .iter()
            .map(|(_, sentinel)| format!("127.0.0.1:{sentinel}"))
            .collect();
        let servers: Vec<String> = self
            .ports
            .iter()
            .map(|(server, _)| format!("127.0.0.1:{server}"))
            .collect();
        vec![
            ("TANKA_TEST_REDIS_ADDRESSES", servers.join(",")),
            ("TANKA_TEST_REDIS_SENTINELS", sentinels.join(",")),
            ("TANKA_TEST_REDIS_MASTER_NAME", MASTER_NAME.to_owned()),
            ("TANKA_TEST_REDIS_PASSWORD", PASSWORD.to_owned()),
        ]
    }
}

/// Several commands over one connection to a server, and the answer to each.
pub(super) async fn ask_all(port: u16, commands: &[Vec<&str>]) -> Result<Vec<String>> {
    timeout(QUERY_DEADLINE, resp::ask(port, PASSWORD, commands))
        .await
        .with_context(|| format!("Redis on port {port} did not answer in time"))?
}
