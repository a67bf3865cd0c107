//! Loads answers before somebody asks: when a process starts, and when the configuration says so; then one process does it for all (F50).

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use super::tiers::{Cache, Cached};
use crate::clock;
use crate::config::Live;
use crate::domain::Unacceptable;
use crate::domain::page::{DEFAULT_LIMIT, PageRequest};
use crate::domain::tariff::region::Region;
use crate::entropy;
use crate::redis_link::RedisLink;
use crate::routing::{Scope, StoreError};
use crate::store::accounts::FindUser;
use crate::store::everyone::{Candidate, RecentPeople};
use crate::store::memories::ListMemories;
use crate::store::plans::{FindPlan, ListPlans};
use crate::store::usage::FindRecommendation;

/// Limit of one warm-up.
const LIMIT: Duration = Duration::from_mins(2);
/// A schedule is followed within this time, so that processes and schedules do not all begin at once.
const JITTER: Duration = Duration::from_secs(10);
/// How often schedules are looked at.
const TICK: Duration = Duration::from_secs(20);
/// Answers that are loaded at the same time: few, because nobody waits for them.
const AT_ONCE: usize = 4;
/// Limit of one question to Redis.
const QUESTION: Duration = Duration::from_millis(500);

/// What to load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Everything.
    #[default]
    Full,
    /// The plan catalogue.
    Plans,
    /// What people see first who were here lately.
    Profiles,
    /// Recommendations of people who were here lately.
    Recommendations,
}

/// How much to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// At most so many of each.
    pub limit: i32,
    /// People who were here in so many days.
    pub days: i32,
}

impl Default for Amount {
    fn default() -> Self {
        Self { limit: 100, days: 7 }
    }
}

impl Amount {
    /// Checks what a person asks for.
    pub fn parse(limit: Option<u32>, days: Option<u32>) -> Result<Self, (&'static str, Unacceptable)> {
        let within = |value: u32, most: u32| {
            let whole = i32::try_from(value).ok().filter(|_| (1..=most).contains(&value));
            whole.ok_or_else(|| Unacceptable(format!("must be between 1 and {most}")))
        };
        Ok(Self {
            limit: within(limit.unwrap_or(100), 10_000).map_err(|problem| ("limit", problem))?,
            days: within(days.unwrap_or(7), 365).map_err(|problem| ("days", problem))?,
        })
    }
}

/// What was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Warmed {
    /// Answers of the plan catalogue.
    pub plans: usize,
    /// People: profiles and first pages.
    pub profiles: usize,
    /// Recommendations.
    pub recommendations: usize,
    /// Answers that could not be loaded.
    pub failed: usize,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Loads.
pub async fn run(cache: &Cache, mode: Mode, amount: Amount, deadline: Instant) -> Result<Warmed, StoreError> {
    let started = Instant::now();
    let mut warmed = Warmed::default();
    let mut note = |(good, bad): (usize, usize)| {
        warmed.failed += bad;
        good
    };
    if matches!(mode, Mode::Full | Mode::Plans) {
        let good = note(plans(cache, amount, deadline).await?);
        warmed.plans = good;
    }
    if matches!(mode, Mode::Full | Mode::Profiles) {
        let mut loads = Vec::new();
        for person in people(cache, amount, deadline).await? {
            let list = ListMemories {
                user_id: person.user_id,
                memory_type: None,
                page: PageRequest {
                    after: None,
                    limit: DEFAULT_LIMIT,
                },
            };
            let (cache, tenant) = (cache.clone(), Some(person.tenant));
            let profile = load(cache.clone(), tenant, FindUser(person.user_id), deadline);
            let list = load(cache, tenant, list, deadline);
            loads.push(async { profile.await & list.await }.boxed());
        }
        let good = note(all(loads).await);
        warmed.profiles = good;
    }
    if matches!(mode, Mode::Full | Mode::Recommendations) {
        let mut loads = Vec::new();
        for person in people(cache, amount, deadline).await? {
            let read = FindRecommendation(person.user_id);
            loads.push(load(cache.clone(), Some(person.tenant), read, deadline));
        }
        let good = note(all(loads).await);
        warmed.recommendations = good;
    }
    warmed.seconds = started.elapsed().as_secs_f64();
    Ok(warmed)
}

/// The catalogue, that of each region, and single plans.
async fn plans(cache: &Cache, amount: Amount, deadline: Instant) -> Result<(usize, usize), StoreError> {
    let scope = scope(None, deadline);
    let (plans, _) = cache.get(&scope, &ListPlans { region: None }).await?;
    let limit = usize::try_from(amount.limit).unwrap_or(0);
    let regions: BTreeSet<Region> = plans
        .iter()
        .flat_map(|plan| &plan.regions)
        .filter_map(|region| Region::parse(region).ok())
        .collect();
    let mut loads = Vec::new();
    for region in regions.into_iter().take(limit) {
        let list = ListPlans { region: Some(region) };
        loads.push(load(cache.clone(), None, list, deadline));
    }
    for plan in plans.into_iter().take(limit) {
        loads.push(load(cache.clone(), None, FindPlan(plan.id), deadline));
    }
    Ok(all(loads).await)
}

async fn people(cache: &Cache, amount: Amount, deadline: Instant) -> Result<Vec<Candidate>, StoreError> {
    let scope = scope(None, deadline);
    let recent = RecentPeople {
        days: amount.days,
        limit: amount.limit,
    };
    Ok(cache.fleet().read(&scope, &recent).await?.0)
}

fn load<R>(cache: Cache, tenant: Option<Uuid>, read: R, deadline: Instant) -> BoxFuture<'static, bool>
where
    R: Cached,
    R::Output: Serialize,
{
    async move {
        let outcome = cache.read(&scope(tenant, deadline), &read).await;
        matches!(outcome, Ok(_) | Err(StoreError::Missing))
    }
    .boxed()
}

fn scope(tenant: Option<Uuid>, deadline: Instant) -> Scope {
    Scope {
        tenant,
        deadline,
        at_least: None,
        primary_only: false,
    }
}

/// Runs loads, a few at a time; answers how many worked and how many did not.
async fn all(loads: Vec<BoxFuture<'static, bool>>) -> (usize, usize) {
    let count = loads.len();
    let mut running = futures::stream::iter(loads).buffer_unordered(AT_ONCE);
    let mut good = 0;
    while let Some(worked) = running.next().await {
        good += usize::from(worked);
    }
    (good, count - good)
}

/// Warms up after the start and by the schedules of the configuration, in one process of all.
pub async fn follow(cache: Cache, link: RedisLink, live: Live, stop: CancellationToken) {
    let work = async {
        if live.get().cache.warm_up.on_start {
            sleep(entropy::jitter(Duration::from_secs(1))).await;
            once(&cache, &link, "start", TICK * 3).await;
        }
        let mut since = clock::now();
        loop {
            sleep(TICK).await;
            let now = clock::now();
            let due = is_due(&live.get().cache.warm_up.schedules, since, now);
            since = now;
            if due {
                sleep(entropy::jitter(JITTER)).await;
                once(&cache, &link, "schedule", TICK * 2).await;
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Whether one of the schedules (cron, five fields, UTC) fell into the time after `since` up to `now`.
pub fn is_due(schedules: &[String], since: Timestamp, now: Timestamp) -> bool {
    schedules.iter().any(|text| {
        let Ok(cron) = Cron::from_str(text) else {
            return false;
        };
        cron.find_next_occurrence(&since.to_zoned(TimeZone::UTC), false)
            .is_ok_and(|next| next.timestamp() <= now)
    })
}

/// Warms up unless another process has just done so.
async fn once(cache: &Cache, link: &RedisLink, why: &'static str, pause: Duration) {
    let Some(connected) = link.get() else {
        return;
    };
    let key = format!("tanka:cache:warm:{why}");
    let mut connection = connected.of(&key);
    let mut take = redis::cmd("SET");
    take.arg(key)
        .arg("1")
        .arg("NX")
        .arg("PX")
        .arg(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
    let taken = timeout(QUESTION, take.query_async::<Option<String>>(&mut connection)).await;
    match taken {
        Ok(Ok(Some(_))) => {}
        Ok(Ok(None)) => {
            tracing::info!(why, "the cache is left to another process to warm up");
            return;
        }
        // Whether another process does it cannot be found out now; without Redis there is little to warm.
        _ => return,
    }
    match run(cache, Mode::Full, Amount::default(), Instant::now() + LIMIT).await {
        Ok(warmed) => tracing::info!(
            why,
            plans = warmed.plans,
            profiles = warmed.profiles,
            recommendations = warmed.recommendations,
            failed = warmed.failed,
            duration_s = warmed.seconds,
            "the cache was warmed up"
        ),
        Err(error) => tracing::warn!(why, error = ?error, "the cache could not be warmed up"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_schedule_is_due_once_when_its_time_has_passed() {
        let half_hourly = ["*/30 * * * *".to_owned()];
        let due = |since, now| is_due(&half_hourly, at(since), at(now));
        assert!(due("2026-01-01T10:29:50Z", "2026-01-01T10:30:10Z"));
        assert!(!due("2026-01-01T10:30:00Z", "2026-01-01T10:30:20Z"));
        assert!(!due("2026-01-01T10:30:10Z", "2026-01-01T10:59:59Z"));
        assert!(!is_due(
            &["nonsense".to_owned()],
            at("2026-01-01T00:00:00Z"),
            at("2026-01-02T00:00:00Z")
        ));
    }

    #[test]
    fn amounts_are_bounded() {
        assert_eq!(Amount::parse(None, None), Ok(Amount::default()));
        assert_eq!(Amount::parse(Some(0), None).unwrap_err().0, "limit");
        assert_eq!(Amount::parse(None, Some(366)).unwrap_err().0, "days");
    }
}
