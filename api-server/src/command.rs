//! Commands for who operates the platform: they read the same configuration as the server, do one thing, and print it.

pub mod cache;
pub mod capacity;
pub mod database;
pub mod verdict;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::Cache;
use crate::config::Live;
use crate::config::load::load;
use crate::metrics::Metrics;
use crate::redis_link::RedisLink;
use crate::routing::{Fleet, Scope};

/// How long databases may take to be found.
const FIND: Duration = Duration::from_secs(10);
/// Limit of a command.
const LIMIT: Duration = Duration::from_mins(5);

/// What a command works with.
#[derive(Debug)]
pub struct Operation {
    /// The databases.
    pub database: Fleet,
    /// Redis.
    pub redis: RedisLink,
    /// The cache; its own tier is empty.
    pub cache: Cache,
    stop: CancellationToken,
}

impl Operation {
    /// Connects as the server does.
    pub async fn open(config: &Path) -> anyhow::Result<Self> {
        let (config, _) = load(config)?;
        let live = Live::new(config);
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        let database = Fleet::start(
            live.clone(),
            metrics.database.clone(),
            TaskTracker::new(),
            stop.clone(),
        )?;
        let redis = RedisLink::start(live.clone(), metrics.realtime.clone(), stop.clone());
        let cache = Cache::new(live, database.clone(), redis.clone(), metrics.cache.clone());
        database.set_cache(cache.sink());
        let context = Self {
            database,
            redis,
            cache,
            stop,
        };
        let end = Instant::now() + FIND;
        while context
            .database
            .report()
            .iter()
            .all(|one| one.candidate.is_none())
        {
            if Instant::now() > end {
                bail!("no PostgreSQL instance of the configuration answers");
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(context)
    }

    /// Waits for Redis.
    pub async fn need_redis(&self) -> anyhow::Result<()> {
        let end = Instant::now() + FIND;
        while self.redis.get().is_none() {
            if Instant::now() > end {
                bail!("Redis does not answer");
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Of no tenant.
    pub fn scope(&self, primary_only: bool) -> Scope {
        Scope {
            tenant: None,
            deadline: Instant::now() + LIMIT,
            at_least: None,
            primary_only,
        }
    }

    /// Ends what runs in the background.
    pub async fn close(self) {
        self.stop.cancel();
        self.database.close(Instant::now() + Duration::from_secs(1)).await;
    }
}

/// Writes text to standard output.
pub fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("failed to write to standard output")
}
