//! The plan catalogue: of the whole platform, read by everybody, written by its operators.

use serde::Serialize;
use uuid::Uuid;

use crate::cache::tiers::Cached;
use crate::cache::{Entity, Kind, Target};
use crate::domain::plan::{Plan, PlanDraft};
use crate::domain::tariff::region::Region;
use crate::routing::{Read, ReadHandle, StoreError, Write, WriteHandle};

/// Plans that a catalogue shows at most.
const MOST: i64 = 500;

struct Row {
    id: Uuid,
    name: String,
    provider: String,
    available_regions: Vec<String>,
    currency: String,
    time_zone: String,
    renewable_percentage: i16,
    rate_structure: String,
    is_active: bool,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
}

impl TryFrom<Row> for Plan {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            name: row.name,
            provider: row.provider,
            regions: row.available_regions,
            currency: row.currency,
            time_zone: row.time_zone,
            renewable_percentage: row.renewable_percentage,
            rate_structure: serde_json::from_str(&row.rate_structure)?,
            is_active: row.is_active,
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
        })
    }
}

/// Active plans, of a region or of all, the greenest first.
#[derive(Debug, Clone)]
pub struct ListPlans {
    /// Only plans that are sold here.
    pub region: Option<Region>,
}

impl Cached for ListPlans {
    fn entity(&self, _: Option<Uuid>) -> Entity {
        Entity::of_platform(Kind::Plans)
    }

    fn arguments(&self) -> impl Serialize {
        (
            "list",
            self.region.as_ref().map(|region| region.as_str().to_owned()),
        )
    }
}

impl Read for ListPlans {
    type Output = Vec<Plan>;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Vec<Plan>, StoreError> {
        let rows = match &self.region {
            Some(region) => {
                sqlx::query_as!(
                    Row,
                    r#"SELECT id, name, provider, available_regions, currency, time_zone, renewable_percentage,
                              rate_structure::text AS "rate_structure!", is_active,
                              created_at AS "created_at: jiff_sqlx::Timestamp", updated_at AS "updated_at: jiff_sqlx::Timestamp"
                         FROM plan_catalog WHERE available_regions @> ARRAY[$1]::text[] AND is_active
                        ORDER BY renewable_percentage DESC, id LIMIT $2"#,
                    region.as_str(),
                    MOST,
                )
                .fetch_all(&mut *on.connection)
                .await?
            }
            None => {
                sqlx::query_as!(
                    Row,
                    r#"SELECT id, name, provider, available_regions, currency, time_zone, renewable_percentage,
                              rate_structure::text AS "rate_structure!", is_active,
                              created_at AS "created_at: jiff_sqlx::Timestamp", updated_at AS "updated_at: jiff_sqlx::Timestamp"
                         FROM plan_catalog WHERE is_active ORDER BY renewable_percentage DESC, id LIMIT $1"#,
                    MOST,
                )
                .fetch_all(&mut *on.connection)
                .await?
            }
        };
        rows.into_iter().map(Plan::try_from).collect()
    }
}

/// One plan, active or not.
#[derive(Debug, Clone)]
pub struct FindPlan(pub Uuid);

impl Cached for FindPlan {
    fn entity(&self, _: Option<Uuid>) -> Entity {
        Entity::of_platform(Kind::Plans)
    }

    fn arguments(&self) -> impl Serialize {
        ("one", self.0)
    }
}

impl Read for FindPlan {
    type Output = Plan;

    async fn run(&self, on: &mut ReadHandle<'_>) -> Result<Plan, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id, name, provider, available_regions, currency, time_zone, renewable_percentage,
                      rate_structure::text AS "rate_structure!", is_active,
                      created_at AS "created_at: jiff_sqlx::Timestamp", updated_at AS "updated_at: jiff_sqlx::Timestamp"
                 FROM plan_catalog WHERE id = $1"#,
            self.0,
        )
        .fetch_optional(&mut *on.connection)
        .await?
        .ok_or(StoreError::Missing)?
        .try_into()
    }
}

/// Offers a plan, or changes one.
#[derive(Debug)]
pub struct SavePlan {
    /// Identifies it.
    pub id: Uuid,
    /// What it is to be.
    pub draft: PlanDraft,
    /// Whether it has to be there already, or must not be.
    pub exists: bool,
}

impl Write for SavePlan {
    type Output = Plan;

    async fn run(&self, on: &mut WriteHandle<'_>) -> Result<Plan, StoreError> {
        let draft = &self.draft;
        let rates = serde_json::to_string(&draft.rate_structure)?;
        let saved = if self.exists {
            sqlx::query!(
                "UPDATE plan_catalog SET name = $2, provider = $3, available_regions = $4, currency = $5, time_zone = $6,
                        renewable_percentage = $7, rate_structure = $8::text::jsonb, is_active = $9,
                        updated_at = clock_timestamp()
                  WHERE id = $1",
                self.id,
                draft.name,
                draft.provider,
                &draft.regions,
                draft.currency,
                draft.time_zone,
                draft.renewable_percentage,
                rates,
                draft.is_active,
            )
            .execute(&mut *on.connection)
            .await?
        } else {
            sqlx::query!(
                "INSERT INTO plan_catalog (id, name, provider, available_regions, currency, time_zone,
                                           renewable_percentage, rate_structure, is_active)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9)",
                self.id,
                draft.name,
                draft.provider,
                &draft.regions,
                draft.currency,
                draft.time_zone,
                draft.renewable_percentage,
                rates,
                draft.is_active,
            )
            .execute(&mut *on.connection)
            .await?
        };
        if saved.rows_affected() == 0 {
            return Err(StoreError::Missing);
        }
        on.invalidate(&[
            Entity::of_platform(Kind::Plans).into(),
            Target::Kind(Kind::Recommendations),
        ])
        .await?;
        let mut read = ReadHandle {
            connection: &mut *on.connection,
        };
        FindPlan(self.id).run(&mut read).await
    }
}
