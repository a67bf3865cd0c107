//! `cache {stats,warm,invalidate}`.

use std::fmt::Write;

use super::Operation;
use crate::args::CacheCommand;
use crate::cache::stats::{self, Stats};
use crate::cache::warm::{self, Amount};
use crate::cache::{Kind, Target};
use crate::store::everyone::TenantOf;
use crate::store::invalidations::Invalidate;

/// Does it, and answers what to print.
pub async fn run(operation: &Operation, command: &CacheCommand) -> anyhow::Result<String> {
    match command {
        CacheCommand::Stats => {
            operation.need_redis().await?;
            Ok(show(&stats::read(&operation.cache, &operation.redis).await))
        }
        CacheCommand::Warm { mode, limit, days } => {
            operation.need_redis().await?;
            let amount = Amount::parse(Some(*limit), Some(*days))
                .map_err(|(field, problem)| anyhow::anyhow!("--{field} {problem}"))?;
            let scope = operation.scope(false);
            let warmed = warm::run(&operation.cache, *mode, amount, scope.deadline).await?;
            let all = warmed.plans + warmed.profiles + warmed.recommendations;
            Ok(format!(
                "Plans:           {}\nProfiles:        {}\nRecommendations: {}\nFailed:          {}\nTotal:           {all} items in {:.1} s\n",
                warmed.plans, warmed.profiles, warmed.recommendations, warmed.failed, warmed.seconds
            ))
        }
        CacheCommand::Invalidate { user, prefix, key } => {
            let mut targets = Vec::new();
            if let Some(user) = user {
                let (tenant, _) = operation
                    .database
                    .read(&operation.scope(true), &TenantOf(*user))
                    .await?;
                targets.extend(Target::person(tenant, *user));
            }
            if let Some(prefix) = prefix {
                targets.push(Target::Kind(prefix.trim_end_matches([':', '*']).parse::<Kind>()?));
            }
            if let Some(key) = key {
                targets.push(Target::Entity(key.parse()?));
            }
            let written = operation
                .database
                .write(operation.scope(true), Invalidate(targets))
                .await?;
            Ok(format!("Invalidated: {}\n", written.output))
        }
    }
}

fn show(stats: &Stats) -> String {
    let mut text = format!(
        "Enabled:        {}\nTotal Requests: {}\nCache Hits:     {}\nCache Misses:   {}\nHit Rate:       {:.1} %\nMiss Rate:      {:.1} %\nErrors:         {}\n",
        stats.enabled,
        stats.total_requests,
        stats.cache_hits,
        stats.cache_misses,
        stats.hit_rate,
        stats.miss_rate,
        stats.errors,
    );
    if let Some(bytes) = stats.redis_memory_bytes {
        let _ = writeln!(text, "Redis Memory:   {} KiB", bytes / 1024);
    }
    for kind in &stats.kinds {
        let counts = kind.counts;
        let _ = writeln!(
            text,
            "{:<16} {:>10} hits in the process  {:>10} hits in Redis  {:>10} misses  for {} s",
            kind.name, counts.hits_local, counts.hits_shared, counts.misses, kind.ttl_seconds
        );
    }
    text
}
