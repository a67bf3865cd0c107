//! What others need for the same: FastAPI, SQLAlchemy and redis-py, run by uvicorn with a process for each core.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::benchmark::venv;
use crate::client::Client;
use crate::paths::Paths;
use crate::process::Call;
use crate::services::{Platform, ports, postgres};

const PATIENCE: Duration = Duration::from_mins(1);
/// Guards nothing: the server listens on loopback, for the time of a run.
const PASSWORD: &str = "peer-for-tests";

/// The same rows without tenants, with the same indexes.
const TABLES: &str = "
    CREATE ROLE peer LOGIN PASSWORD 'peer-for-tests';
    CREATE SCHEMA peer AUTHORIZATION peer;
    CREATE TABLE peer.users AS SELECT id, email, password_hash FROM users;
    ALTER TABLE peer.users ADD PRIMARY KEY (id), ADD UNIQUE (email);
    CREATE TABLE peer.sessions (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES peer.users, token_hash text NOT NULL UNIQUE,
                                expires_at timestamptz NOT NULL);
    CREATE TABLE peer.conversations AS SELECT id, user_id, title, created_at, updated_at, last_message_at FROM conversations;
    ALTER TABLE peer.conversations ADD PRIMARY KEY (id);
    CREATE INDEX ON peer.conversations (user_id, last_message_at DESC, id DESC);
    CREATE TABLE peer.messages AS SELECT id, conversation_id, content, created_at FROM messages;
    ALTER TABLE peer.messages ADD PRIMARY KEY (id);
    CREATE INDEX ON peer.messages (conversation_id, created_at DESC, id DESC);
    CREATE TABLE peer.memories AS SELECT id, user_id, memory_type, content, created_at FROM memories;
    ALTER TABLE peer.memories ADD PRIMARY KEY (id);
    CREATE INDEX ON peer.memories (user_id, created_at DESC, id DESC);
    GRANT ALL ON ALL TABLES IN SCHEMA peer TO peer;
    GRANT CONNECT ON DATABASE tanka TO peer;
    ANALYZE peer.conversations; ANALYZE peer.messages; ANALYZE peer.memories";

/// The server.
#[derive(Debug)]
pub struct Peer {
    /// `HOST:PORT`.
    pub address: String,
    child: Child,
}

impl Peer {
    /// Installs it where it is not yet, copies the rows, and waits until it answers.
    pub async fn start(paths: &Paths, platform: &Platform) -> Result<Self> {
        let source = paths.repo.join("e2e/peers/api");
        let venv = venv::install(&paths.state.join("bench-api/venv"), &source).await?;
        platform.postgres.query(0, TABLES).await?;
        let variables = platform.environment()?;
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found
                .map(|(_, value)| value.clone())
                .with_context(|| format!("the services gave no {name}"))
        };
        let primary = variable("TANKA_TEST_PG_PRIMARY")?;
        let member = platform.redis.primary().await?.context("Redis has no primary")?;
        let (password, port) = (
            variable("TANKA_TEST_REDIS_PASSWORD")?,
            platform.redis.port(member)?,
        );
        let own = ports::free(1)?[0].to_string();
        let workers = std::thread::available_parallelism()?.to_string();
        let child = Command::new(venv.join("bin/uvicorn"))
            .args([
                "server:app",
                "--no-access-log",
                "--log-level",
                "warning",
                "--host",
                "127.0.0.1",
                "--port",
                &own,
            ])
            .args(["--workers", &workers])
            .current_dir(&source)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env(
                "PEER_DATABASE",
                format!(
                    "postgresql+asyncpg://peer:{PASSWORD}@{primary}/{}",
                    postgres::DATABASE
                ),
            )
            .env("PEER_REDIS", format!("redis://:{password}@127.0.0.1:{port}/0"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start uvicorn")?;
        let peer = Self {
            address: format!("127.0.0.1:{own}"),
            child,
        };
        if let Err(error) = peer.wait().await {
            peer.end().await?;
            return Err(error);
        }
        Ok(peer)
    }

    async fn wait(&self) -> Result<()> {
        let client = Client::new(&self.address);
        let begin = Instant::now();
        while !client
            .get("/health", &[])
            .await
            .is_ok_and(|answer| answer.status == 200)
        {
            ensure!(begin.elapsed() < PATIENCE, "the peer does not answer");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Ends it in good order, so that it ends its processes.
    pub async fn end(mut self) -> Result<()> {
        let id = self.child.id().context("the peer has ended")?;
        Call::new("kill", PATIENCE)
            .args(["-TERM", &id.to_string()])
            .run()
            .await?;
        timeout(PATIENCE, self.child.wait())
            .await
            .context("the peer does not end")??;
        Ok(())
    }
}
