//! Counts of all processes together: each adds what it counted to a hash in Redis, now and then.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::try_join_all;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::kind::{KINDS, Kind};
use super::tiers::Cache;
use crate::entropy;
use crate::redis_link::RedisLink;

/// Time between additions.
const INTERVAL: Duration = Duration::from_secs(5);
/// Limit of one question to Redis.
const LIMIT: Duration = Duration::from_millis(500);
/// The hash.
const TOTALS: &str = "tanka:cache:totals";
/// Names of the counts of a kind.
const NAMES: [&str; 3] = ["hits_local", "hits_shared", "misses"];

/// Counts of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// Answers that the process had.
    pub hits_local: u64,
    /// Answers that Redis had.
    pub hits_shared: u64,
    /// Answers that were computed.
    pub misses: u64,
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            hits_local: self.hits_local + other.hits_local,
            hits_shared: self.hits_shared + other.hits_shared,
            misses: self.misses + other.misses,
        }
    }
}

/// State of the cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Whether answers are cached.
    pub enabled: bool,
    /// `platform`: counts of all processes since Redis began; `process`: of this one, because Redis is away.
    pub scope: String,
    /// Lookups.
    pub total_requests: u64,
    /// Lookups that were answered by one of the tiers.
    pub cache_hits: u64,
    /// Lookups that were not.
    pub cache_misses: u64,
    /// Hits in percent of the lookups.
    pub hit_rate: f64,
    /// Misses in percent of the lookups.
    pub miss_rate: f64,
    /// Failures of Redis that this process saw.
    pub errors: u64,
    /// Whether Redis is used at the moment.
    pub redis_up: bool,
    /// Memory that Redis uses, in bytes, if it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_memory_bytes: Option<u64>,
    /// Entries of this process.
    pub local_entries: usize,
    /// Their size in bytes.
    pub local_bytes: u64,
    /// Counts and settings of each kind.
    pub kinds: Vec<KindStats>,
}

/// Counts and settings of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KindStats {
    /// Its name.
    pub name: String,
    /// Seconds that an entry lives.
    pub ttl_seconds: u64,
    /// Entries of this process that are good.
    pub local_entries: usize,
    /// Counts.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Adds what this process counted to the counts of all, until told to stop.
pub async fn share(cache: Cache, link: RedisLink, stop: CancellationToken) {
    let mut told: HashMap<Kind, [u64; 3]> = HashMap::new();
    while stop
        .run_until_cancelled(sleep(entropy::jitter(INTERVAL)))
        .await
        .is_some()
    {
        add(&cache, &link, &mut told).await;
    }
    add(&cache, &link, &mut told).await;
}

async fn add(cache: &Cache, link: &RedisLink, told: &mut HashMap<Kind, [u64; 3]>) {
    let Some(connected) = link.get() else {
        return;
    };
    let (mut pipeline, mut now, mut news) = (redis::pipe(), HashMap::new(), false);
    for kind in KINDS {
        let counted = cache.counts().totals(kind);
        let before = told.get(&kind).copied().unwrap_or_default();
        for ((name, count), old) in NAMES.into_iter().zip(counted).zip(before) {
            if count > old {
                news = true;
                pipeline
                    .cmd("HINCRBY")
                    .arg(TOTALS)
                    .arg(format!("{}:{name}", kind.as_str()))
                    .arg(count - old)
                    .ignore();
            }
        }
        now.insert(kind, counted);
    }
    let mut connection = connected.of(TOTALS);
    if news
        && matches!(
            timeout(LIMIT, pipeline.query_async::<()>(&mut connection)).await,
            Ok(Ok(()))
        )
    {
        *told = now;
    }
}

/// The state now.
pub async fn read(cache: &Cache, link: &RedisLink) -> Stats {
    let shared = totals(link).await;
    let of_process = |kind: Kind| {
        let [hits_local, hits_shared, misses] = cache.counts().totals(kind);
        Counts {
            hits_local,
            hits_shared,
            misses,
        }
    };
    let ttl = &cache.config().cache.ttl;
    let entries = cache.local().count(Instant::now());
    let kinds: Vec<_> = KINDS
        .into_iter()
        .zip(entries)
        .map(|(kind, local_entries)| KindStats {
            name: kind.as_str().to_owned(),
            ttl_seconds: kind.ttl(ttl).as_secs(),
            local_entries,
            counts: shared
                .as_ref()
                .map_or_else(|| of_process(kind), |all| counts_of(&all.0, kind)),
        })
        .collect();
    let sum = kinds
        .iter()
        .fold(Counts::default(), |sum, kind| sum.plus(kind.counts));
    let (hits, total) = (
        sum.hits_local + sum.hits_shared,
        sum.hits_local + sum.hits_shared + sum.misses,
    );
    let (local_entries, local_bytes) = cache.local().size();
    Stats {
        enabled: cache.config().cache.enabled,
        scope: if shared.is_some() { "platform" } else { "process" }.to_owned(),
        total_requests: total,
        cache_hits: hits,
        cache_misses: sum.misses,
        hit_rate: percent(hits, total),
        miss_rate: percent(sum.misses, total),
        errors: cache.counts().errors.get(),
        redis_up: cache.shared().is_up(),
        redis_memory_bytes: shared.and_then(|all| all.1),
        local_entries,
        local_bytes,
        kinds,
    }
}

/// The counts of all processes, and the memory of Redis.
async fn totals(link: &RedisLink) -> Option<(HashMap<String, u64>, Option<u64>)> {
    let connected = link.get()?;
    let mut connection = connected.of(TOTALS);
    let mut ask = redis::cmd("HGETALL");
    ask.arg(TOTALS);
    let asked = async {
        let counts = ask.query_async::<HashMap<String, u64>>(&mut connection).await?;
        let memory = try_join_all(connected.all().map(memory)).await?;
        Ok::<_, redis::RedisError>((counts, memory.into_iter().sum()))
    };
    timeout(LIMIT, asked).await.ok()?.ok()
}

/// The memory of one server; none if it does not say.
async fn memory(mut connection: MultiplexedConnection) -> redis::RedisResult<Option<u64>> {
    let mut ask = redis::cmd("INFO");
    let info: String = ask.arg("memory").query_async(&mut connection).await?;
    Ok(info
        .lines()
        .find_map(|line| line.trim_end().strip_prefix("used_memory:")?.parse().ok()))
}

fn counts_of(all: &HashMap<String, u64>, kind: Kind) -> Counts {
    let count = |name: &str| {
        all.get(&format!("{}:{name}", kind.as_str()))
            .copied()
            .unwrap_or(0)
    };
    Counts {
        hits_local: count(NAMES[0]),
        hits_shared: count(NAMES[1]),
        misses: count(NAMES[2]),
    }
}

/// One decimal is as exact as anybody reads it.
fn percent(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "tenths of a percent are shown")]
    let permille = if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64 * 1_000.0
    };
    permille.round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_in_percent_and_nothing_is_no_rate() {
        assert!((percent(2, 3) - 66.7).abs() < f64::EPSILON);
        assert!(percent(0, 0).abs() < f64::EPSILON);
    }
}
