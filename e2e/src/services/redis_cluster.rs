//! A Redis Cluster: three primaries with a replica each, from the image of the platform. The platform runs none itself; it may be given
//! one that others run.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{
    rootfs::Rootfs,
    services::{Sandbox, Service, Stack, ports, redis},
};

const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;
const READY_DEADLINE: Duration = Duration::from_mins(1);

/// Servers `cluster-0`, ...; the second half are replicas of the first at the beginning.
#[derive(Debug)]
pub struct RedisCluster {
    /// For clients, and for the servers among themselves.
    ports: Vec<(u16, u16)>,
}

impl RedisCluster {
    /// Starts all servers, deals out the slots, and waits until each primary has its replica.
    pub async fn start(stack: &mut Stack, root: &Rootfs) -> Result<Self> {
        let ports = ports::free(2 * 2 * PRIMARIES)?;
        let ports: Vec<(u16, u16)> = ports.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        for (index, pair) in ports.iter().enumerate() {
            let name = format!("cluster-{index}");
            let sandbox = Sandbox {
                root: root.path.clone(),
                user: redis::USER,
                binds: vec![(stack.folder().join(&name), "/data")],
                disks: Vec::new(),
                environment: Vec::new(),
            };
            let log = stack.folder().join("logs").join(format!("{name}.log"));
            stack.add(Service::new(&name, sandbox, command(*pair), log))?;
        }
        let cluster = Self { ports };
        let listening = stack.wait_until("the servers of the cluster listen", READY_DEADLINE, async || {
            cluster.ask_all(&["PING"]).await.is_ok()
        });
        listening.await?;
        cluster.form(stack).await?;
        Ok(cluster)
    }

    async fn form(&self, stack: &mut Stack) -> Result<()> {
        let meeting = self.ports[0];
        for index in 0..self.ports.len() {
            let epoch = (index + 1).to_string();
            self.command(index, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch])
                .await?;
            if index < PRIMARIES {
                let first = (SLOTS * index / PRIMARIES).to_string();
                let last = (SLOTS * (index + 1) / PRIMARIES - 1).to_string();
                self.command(index, &["CLUSTER", "ADDSLOTSRANGE", &first, &last])
                    .await?;
            }
            if index > 0 {
                let (port, bus) = (meeting.0.to_string(), meeting.1.to_string());
                self.command(index, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus])
                    .await?;
            }
        }
        let known = format!("cluster_known_nodes:{}", self.ports.len());
        stack
            .wait_until(
                "the servers of the cluster know each other",
                READY_DEADLINE,
                async || {
                    let answers = self.ask_all(&["CLUSTER", "INFO"]).await.unwrap_or_default();
                    !answers.is_empty() && answers.iter().all(|answer| answer.contains(&known))
                },
            )
            .await?;
        for index in 0..PRIMARIES {
            let primary = self.ask(index, &["CLUSTER", "MYID"]).await?;
            self.command(index + PRIMARIES, &["CLUSTER", "REPLICATE", primary.trim()])
                .await?;
        }
        stack
            .wait_until(
                "each primary of the cluster has its replica",
                READY_DEADLINE,
                async || {
                    let states = self.ask_all(&["CLUSTER", "INFO"]).await.unwrap_or_default();
                    let roles = self.ask_all(&["INFO", "replication"]).await.unwrap_or_default();
                    let online = roles.iter().filter(|role| role.contains("state=online")).count();
                    online == PRIMARIES && states.iter().all(|state| state.contains("cluster_state:ok"))
                },
            )
            .await
    }

    /// One command to a server that must say `OK`.
    async fn command(&self, index: usize, command: &[&str]) -> Result<()> {
        let answer = self.ask(index, command).await?;
        ensure!(answer.trim() == "OK", "{}: {answer}", command.join(" "));
        Ok(())
    }

    async fn ask(&self, index: usize, command: &[&str]) -> Result<String> {
        let answers = redis::ask_all(self.ports[index].0, &[command.to_vec()]).await?;
        Ok(answers.concat())
    }

    async fn ask_all(&self, command: &[&str]) -> Result<Vec<String>> {
        let mut answers = Vec::new();
        for index in 0..self.ports.len() {
            answers.push(self.ask(index, command).await?);
        }
        Ok(answers)
    }

    /// What a command that uses it finds in its environment: the addresses of all servers, in their order.
    pub fn environment(&self) -> (&'static str, String) {
        let addresses: Vec<String> = self
            .ports
            .iter()
            .map(|(port, _)| format!("127.0.0.1:{port}"))
            .collect();
        ("TANKA_TEST_REDIS_CLUSTER", addresses.join(","))
    }
}

fn command((port, bus): (u16, u16)) -> Vec<String> {
    let (port, bus) = (port.to_string(), bus.to_string());
    [
        "redis-server",
        "--cluster-enabled",
        "yes",
        "--port",
        &port,
        "--cluster-port",
        &bus,
        "--bind",
        "127.0.0.1",
        "--cluster-announce-ip",
        "127.0.0.1",
        "--dir",
        "/data",
        "--requirepass",
        redis::PASSWORD,
        "--masterauth",
        redis::PASSWORD,
        // A primary that is gone is replaced soon.
        "--cluster-node-timeout",
        "1500",
        "--repl-diskless-sync-delay",
        "0",
        "--save",
        "",
        "--appendonly",
        "yes",
    ]
    .map(ToOwned::to_owned)
    .into()
}
