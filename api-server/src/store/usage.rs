//! Usage of energy: written in bulk, added up by the database, and what it would have cost elsewhere.

use std::time::Duration;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::on_constraint;
use crate::cache::tiers::Cached;
use crate::cache::{Entity, Kind};
use crate::domain::plan::{Plan, Recommendation, rank, shown_kwh};
use crate::domain::tariff::Reading;
use crate::domain::tariff::region::Region;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};
use crate::store::plans::{FindPlan, ListPlans};

fn entity(kind: Kind, tenant: Option<Uuid>, user_id: Uuid) -> Entity {
    Entity {
        kind,
        tenant,
        id: Some(user_id),
    }
}

/// Writes readings down; one that is there already is replaced.
#[derive(Debug)]
pub struct SaveUsage {
    /// The person.
    pub user_id: Uuid,
    /// Where the person uses energy, if that is to be noted.
    pub region: Option<Region>,
    /// The person's plan, if that is to be noted.
    pub current_plan_id: Option<Uuid>,
    /// Readings, each hour once.
    pub readings: Vec<Reading>,
}

impl Write for SaveUsage {
    type Output = u64;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<u64, StoreError> {
        let hours: Vec<jiff_sqlx::Timestamp> =
            self.readings.iter().map(|reading| reading.at.into()).collect();
        let energies: Vec<i64> = self.readings.iter().map(|reading| reading.watt_hours).collect();
        let saved = sqlx::query!(
            "INSERT INTO usage_history (user_id, usage_date, tenant_id, watt_hours)
             SELECT $1, hour, $2, energy FROM unnest($3::timestamptz[], $4::bigint[]) AS reading (hour, energy)
             ON CONFLICT (user_id, usage_date) DO UPDATE SET watt_hours = EXCLUDED.watt_hours",
            self.user_id,
            on.tenant,
            &hours as _,
            &energies,
        )
        .execute(&mut *on.connection)
        .await?;
        if let Some(region) = &self.region {
            sqlx::query!(
                "INSERT INTO energy_profiles (user_id, tenant_id, region, current_plan_id) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (user_id) DO UPDATE
                    SET region = EXCLUDED.region, updated_at = clock_timestamp(),
                        current_plan_id = COALESCE(EXCLUDED.current_plan_id, energy_profiles.current_plan_id)",
                self.user_id,
                on.tenant,
                region.as_str(),
                self.current_plan_id,
            )
            .execute(&mut *on.connection)
            .await
            .map_err(|error| on_constraint(error, "energy_profiles_current_plan_id_fkey"))?;
        }
        sqlx::query!("DELETE FROM recommendations WHERE user_id = $1", self.user_id)
            .execute(&mut *on.connection)
            .await?;
        let changed = [Kind::UsageAnalysis, Kind::Recommendations];
        on.invalidate(&changed.map(|kind| entity(kind, on.tenant, self.user_id).into()))
            .await?;
        Ok(saved.rows_affected())
    }
}

/// Usage of one part of the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// `2026-03`, or an hour of the day.
    pub name: String,
    /// Energy in kilowatt hours.
    #[schema(value_type = String, example = "212.4")]
    pub kwh: Decimal,
    /// Hours for which usage is known.
    pub hours: i64,
}

/// Usage, added up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Analysis {
    /// From when on.
    pub from: Timestamp,
    /// Time zone of months and hours.
    pub time_zone: String,
    /// All energy in kilowatt hours.
    #[schema(value_type = String, example = "3120.5")]
    pub total_kwh: Decimal,
    /// Hours for which usage is known.
    pub hours: i64,
    /// By local month, in order.
    pub months: Vec<Part>,
    /// By local hour of the day, in order.
    pub hours_of_day: Vec<Part>,
    /// The hour of most use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<Peak>,
}

/// The hour of most use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peak {
    /// When it began.
    pub at: Timestamp,
    /// Energy in kilowatt hours.
    #[schema(value_type = String, example = "4.2")]
    pub kwh: Decimal,
}

/// Adds a person's usage up, in the database.
#[derive(Debug, Clone)]
pub struct AnalyseUsage {
    /// The person.
    pub user_id: Uuid,
    /// From when on.
    pub from: Timestamp,
    /// Time zone of months and hours; checked.
    pub time_zone: String,
}

impl Cached for AnalyseUsage {
    fn entity(&self, tenant: Option<Uuid>) -> Entity {
        entity(Kind::UsageAnalysis, tenant, self.user_id)
    }

    fn arguments(&self) -> impl Serialize {
        (self.from, self.time_zone.clone())
    }
}

impl Read for AnalyseUsage {
    type Output = Analysis;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Analysis, StoreError> {
        // One pass over the person's rows: both groupings, the sum, and the greatest hour.
        let rows = sqlx::query!(
            r#"SELECT to_char(date_trunc('month', usage_date AT TIME ZONE $3), 'YYYY-MM') AS month,
                      extract(hour FROM usage_date AT TIME ZONE $3)::int AS hour,
                      COALESCE(sum(watt_hours), 0)::bigint AS "energy!", count(*) AS "count!",
                      (array_agg(usage_date ORDER BY watt_hours DESC, usage_date))[1] AS "peak_at?: jiff_sqlx::Timestamp",
                      max(watt_hours) AS "peak?"
                 FROM usage_history WHERE user_id = $1 AND usage_date >= $2
                GROUP BY GROUPING SETS ((1), (2), ())
                ORDER BY 1 NULLS LAST, 2 NULLS LAST"#,
            self.user_id,
            jiff_sqlx::Timestamp::from(self.from) as _,
            self.time_zone,
        )
        .fetch_all(&mut *on.connection)
        .await?;
        let mut analysis = Analysis {
            from: self.from,
            time_zone: self.time_zone.clone(),
            total_kwh: Decimal::ZERO,
            hours: 0,
            months: Vec::new(),
            hours_of_day: Vec::new(),
            peak: None,
        };
        for row in rows {
            let part = |name: String| Part {
                name,
                kwh: shown_kwh(row.energy),
                hours: row.count,
            };
            match (row.month, row.hour) {
                (Some(month), _) => analysis.months.push(part(month)),
                (None, Some(hour)) => analysis.hours_of_day.push(part(hour.to_string())),
                (None, None) => {
                    analysis.total_kwh = shown_kwh(row.energy);
                    analysis.hours = row.count;
                    analysis.peak = row.peak_at.zip(row.peak).map(|(at, energy)| Peak {
                        at: at.to_jiff(),
                        kwh: shown_kwh(energy),
                    });
                }
            }
        }
        Ok(analysis)
    }
}

/// The recommendation that was computed last, while it holds: it has not ended, and no plan has changed since.
#[derive(Debug, Clone)]
pub struct FindRecommendation(pub Uuid);

impl Cached for FindRecommendation {
    fn entity(&self, tenant: Option<Uuid>) -> Entity {
        entity(Kind::Recommendations, tenant, self.0)
    }

    fn arguments(&self) -> impl Serialize {
        "current"
    }
}

impl Read for FindRecommendation {
    type Output = Recommendation;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Recommendation, StoreError> {
        let body = sqlx::query_scalar!(
            "SELECT body FROM recommendations
              WHERE user_id = $1 AND expires_at > clock_timestamp()
                AND computed_at > COALESCE((SELECT max(updated_at) FROM plan_catalog), '-infinity')
              ORDER BY expires_at DESC LIMIT 1",
            self.0,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?;
        Ok(serde_json::from_str(&body)?)
    }
}

/// Computes a recommendation and keeps it until it ends.
#[derive(Debug)]
pub struct Recommend {
    /// The person.
    pub user_id: Uuid,
    /// The time now.
    pub now: Timestamp,
    /// How long it holds.
    pub ttl: Duration,
}

impl Write for Recommend {
    type Output = Recommendation;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Recommendation, StoreError> {
        let profile = sqlx::query!(
            "SELECT region, current_plan_id FROM energy_profiles WHERE user_id = $1",
            self.user_id,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?;
        let region =
            Region::parse(&profile.region).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let mut read = ReadHandle {
            connection: &mut *on.connection,
        };
        let plans = ListPlans { region: Some(region) }.run(&mut read).await?;
        let current = match profile.current_plan_id {
            Some(id) => current_plan(&plans, id, &mut read).await?,
            None => None,
        };
        let readings = last_year(self.user_id, self.now, &mut read).await?;
        let recommendation = Recommendation {
            user_id: self.user_id,
            region: profile.region,
            yearly_kwh: shown_kwh(readings.iter().map(|reading| reading.watt_hours).sum()),
            known_hours: readings.len(),
            plans: rank(&plans, current.as_ref(), &readings),
            computed_at: self.now,
            expires_at: self.now + self.ttl,
        };
        let body = serde_json::to_string(&recommendation)?;
        sqlx::query!("DELETE FROM recommendations WHERE user_id = $1", self.user_id)
            .execute(&mut *on.connection)
            .await?;
        // The clock of the database, which is the one that plans are stamped with.
        sqlx::query!(
            "INSERT INTO recommendations (user_id, tenant_id, body, computed_at, expires_at)
             VALUES ($1, $2, $3, now(), $4)",
            self.user_id,
            on.tenant,
            body,
            jiff_sqlx::Timestamp::from(recommendation.expires_at) as _,
        )
        .execute(&mut *on.connection)
        .await?;
        on.invalidate(&[entity(Kind::Recommendations, on.tenant, self.user_id).into()])
            .await?;
        Ok(recommendation)
    }
}

/// The person's plan, which may no longer be offered.
async fn current_plan(plans: &[Plan], id: Uuid, on: &mut ReadHandle<'_>) -> Result<Option<Plan>, StoreError> {
    if let Some(plan) = plans.iter().find(|plan| plan.id == id) {
        return Ok(Some(plan.clone()));
    }
    match FindPlan(id).run(on).await {
        Ok(plan) => Ok(Some(plan)),
        Err(StoreError::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Hours and no sums: each plan has a time zone, steps and times of day of its own, so that what an hour costs depends on the plan. It is
/// computed once a day and person, of at most 8,760 rows.
async fn last_year(
    user_id: Uuid,
    now: Timestamp,
    on: &mut ReadHandle<'_>,
) -> Result<Vec<Reading>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT usage_date AS "at: jiff_sqlx::Timestamp", watt_hours FROM usage_history
            WHERE user_id = $1 AND usage_date > $2::timestamptz - interval '365 days' AND usage_date <= $2
            ORDER BY usage_date DESC"#,
        user_id,
        jiff_sqlx::Timestamp::from(now) as _,
    )
    .fetch_all(&mut *on.connection)
    .await?;
    let readings = rows.into_iter().map(|row| Reading {
        at: row.at.to_jiff(),
        watt_hours: row.watt_hours,
    });
    Ok(readings.collect())
}
