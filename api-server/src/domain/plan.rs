//! Plans as they are offered, and which of them suits a person's usage best.

use std::collections::HashMap;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::tariff::region::Region;
use super::tariff::{RateStructure, Reading, Usage, cost, kwh, rounded, zone};
use super::{Unacceptable, line};

/// Plans that a recommendation names.
const MOST_RANKED: usize = 20;
/// Months of fixed charges in a year's cost.
const YEAR: u32 = 12;

/// A plan as somebody wants to offer it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// Its name.
    pub name: String,
    /// Who sells it.
    pub provider: String,
    /// Where it is sold, such as `DE` or `US-CA`.
    pub regions: Vec<String>,
    /// Three capitals, such as `EUR`.
    pub currency: String,
    /// In whose local time it is priced, such as `Europe/Berlin`.
    pub time_zone: String,
    /// Renewable share in percent.
    pub renewable_percentage: i16,
    /// How it is priced.
    pub rate_structure: RateStructure,
    /// Whether it is offered now; `true` if absent.
    #[serde(default = "yes")]
    pub is_active: bool,
}

const fn yes() -> bool {
    true
}

/// A plan that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanDraft {
    /// Its name.
    pub name: String,
    /// Who sells it.
    pub provider: String,
    /// Where it is sold.
    pub regions: Vec<String>,
    /// Its currency.
    pub currency: String,
    /// In whose local time it is priced.
    pub time_zone: String,
    /// Renewable share in percent.
    pub renewable_percentage: i16,
    /// How it is priced.
    pub rate_structure: RateStructure,
    /// Whether it is offered now.
    pub is_active: bool,
}

impl PlanDraft {
    /// Checks everything, and tells of everything that is wrong: fields and why.
    pub fn parse(request: PlanRequest) -> Result<Self, Vec<(&'static str, Unacceptable)>> {
        let mut problems = Vec::new();
        let mut check = |field: &'static str, outcome: Result<(), Unacceptable>| {
            problems.extend(outcome.err().map(|problem| (field, problem)));
        };
        check("name", line(&request.name, 200).map(drop));
        check("provider", line(&request.provider, 200).map(drop));
        let regions: Result<Vec<_>, _> = request
            .regions
            .iter()
            .map(|region| Region::parse(region))
            .collect();
        let regions = match regions {
            Ok(regions) if (1..=200).contains(&regions.len()) => regions,
            Ok(_) => {
                check("regions", Err(Unacceptable("must be 1 to 200".to_owned())));
                Vec::new()
            }
            Err(problem) => {
                check("regions", Err(problem));
                Vec::new()
            }
        };
        if request.currency.len() != 3 || !request.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            check(
                "currency",
                Err(Unacceptable("must be three capitals, such as EUR".to_owned())),
            );
        }
        check("time_zone", zone::parse(&request.time_zone).map(drop));
        if !(0..=100).contains(&request.renewable_percentage) {
            check(
                "renewable_percentage",
                Err(Unacceptable("must be between 0 and 100".to_owned())),
            );
        }
        check("rate_structure", request.rate_structure.check());
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            name: request.name.trim().to_owned(),
            provider: request.provider.trim().to_owned(),
            regions: regions.iter().map(|region| region.as_str().to_owned()).collect(),
            currency: request.currency,
            time_zone: request.time_zone,
            renewable_percentage: request.renewable_percentage,
            rate_structure: request.rate_structure,
            is_active: request.is_active,
        })
    }
}

/// A plan of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Identifies it.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Who sells it.
    pub provider: String,
    /// Where it is sold.
    pub regions: Vec<String>,
    /// Its currency.
    pub currency: String,
    /// In whose local time it is priced.
    pub time_zone: String,
    /// Renewable share in percent.
    pub renewable_percentage: i16,
    /// How it is priced.
    pub rate_structure: RateStructure,
    /// Whether it is offered now.
    pub is_active: bool,
    /// When it was offered first.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What a person would pay by a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ranked {
    /// The plan.
    pub plan_id: Uuid,
    /// Its name.
    pub name: String,
    /// Who sells it.
    pub provider: String,
    /// What the usage of the last year would have cost.
    #[schema(value_type = String, example = "812.40")]
    pub yearly_cost: Decimal,
    /// How much less than by the current plan; negative if more. Absent without a current plan in the same currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "103.75")]
    pub yearly_saving: Option<Decimal>,
    /// Currency of both.
    pub currency: String,
    /// Renewable share in percent.
    pub renewable_percentage: i16,
}

/// The active plans of a person's region, the cheapest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recommendation {
    /// Whose.
    pub user_id: Uuid,
    /// Region of the person.
    pub region: String,
    /// Energy of the last year in kilowatt hours.
    #[schema(value_type = String, example = "3120.5")]
    pub yearly_kwh: Decimal,
    /// Hours of the last year for which usage is known, of 8,760.
    pub known_hours: usize,
    /// Plans, the cheapest first; of two with one price the greener one.
    pub plans: Vec<Ranked>,
    /// When it was computed.
    pub computed_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Ranks plans by what usage would have cost. A plan that cannot be priced (its time zone is gone) is left out. Costs in different
/// currencies do not compare; they are ranked currency by currency, that of the current plan first.
pub fn rank(plans: &[Plan], current: Option<&Plan>, readings: &[Reading]) -> Vec<Ranked> {
    let mut by_zone: HashMap<String, Usage> = HashMap::new();
    let mut price = |plan: &Plan| -> Option<Decimal> {
        if !by_zone.contains_key(&plan.time_zone) {
            let zone = zone::parse(&plan.time_zone).ok()?;
            by_zone.insert(plan.time_zone.clone(), Usage::new(readings, &zone));
        }
        let usage = by_zone.get(&plan.time_zone)?;
        Some(rounded(cost(&plan.rate_structure, usage, YEAR)))
    };
    let paid = current.and_then(|plan| Some((plan.currency.clone(), price(plan)?)));
    let mut ranked: Vec<Ranked> = plans
        .iter()
        .filter_map(|plan| {
            let yearly_cost = price(plan)?;
            let saving = paid.as_ref().filter(|(currency, _)| *currency == plan.currency);
            Some(Ranked {
                plan_id: plan.id,
                name: plan.name.clone(),
                provider: plan.provider.clone(),
                yearly_cost,
                yearly_saving: saving.map(|(_, paid)| paid - yearly_cost),
                currency: plan.currency.clone(),
                renewable_percentage: plan.renewable_percentage,
            })
        })
        .collect();
    let home = paid.map(|(currency, _)| currency).unwrap_or_default();
    ranked.sort_by(|a, b| {
        let foreign = |plan: &Ranked| plan.currency != home;
        (foreign(a), &a.currency, a.yearly_cost)
            .cmp(&(foreign(b), &b.currency, b.yearly_cost))
            .then(b.renewable_percentage.cmp(&a.renewable_percentage))
            .then(a.plan_id.cmp(&b.plan_id))
    });
    ranked.truncate(MOST_RANKED);
    ranked
}

/// Energy as it is shown.
pub fn shown_kwh(watt_hours: i64) -> Decimal {
    kwh(watt_hours).normalize()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(id: u128, name: &str, rate: &str, renewable: i16) -> Plan {
        Plan {
            id: Uuid::from_u128(id),
            name: name.to_owned(),
            provider: "P".to_owned(),
            regions: vec!["DE".to_owned()],
            currency: "EUR".to_owned(),
            time_zone: "Europe/Berlin".to_owned(),
            renewable_percentage: renewable,
            rate_structure: serde_json::from_value(json!({"energy": {"type": "flat", "rate": rate}}))
                .unwrap(),
            is_active: true,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_cheapest_comes_first_and_of_two_the_greener() {
        let readings = [Reading {
            at: Timestamp::UNIX_EPOCH,
            watt_hours: 1_000_000,
        }];
        let plans = [
            plan(1, "dear", "0.40", 100),
            plan(2, "grey", "0.30", 10),
            plan(3, "green", "0.30", 90),
            Plan {
                currency: "USD".to_owned(),
                ..plan(4, "foreign", "0.01", 0)
            },
        ];
        let ranked = rank(&plans, Some(&plans[0]), &readings);
        let seen: Vec<_> = ranked
            .iter()
            .map(|plan| {
                (
                    plan.name.as_str(),
                    plan.yearly_cost.to_string(),
                    plan.yearly_saving.map(|s| s.to_string()),
                )
            })
            .collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            seen,
            [
                ("green", "300.00".to_owned(), some("100.00")),
                ("grey", "300.00".to_owned(), some("100.00")),
                ("dear", "400.00".to_owned(), some("0.00")),
                ("foreign", "10.00".to_owned(), None),
            ]
        );
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let request: PlanRequest = serde_json::from_value(json!({
            "name": "", "provider": "", "regions": [], "currency": "euro", "time_zone": "Berlin",
            "renewable_percentage": 101, "rate_structure": {"energy": {"type": "flat", "rate": "-1"}},
        }))
        .unwrap();
        assert_eq!(PlanDraft::parse(request).unwrap_err().len(), 7);
    }
}
