//! Energy tariffs and what usage costs under them. Exact: energy in whole watt hours, money in decimals, time in the zone of the tariff.
//!
//! Usage comes by the hour, as instants, so a day on which clocks change has 23 or 25 of them and none is counted twice. An hour is
//! priced by the local time at which it begins.

pub mod region;
pub mod zone;

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Unacceptable;

/// Tiers or periods of one tariff.
const MOST_PARTS: usize = 50;
/// Greatest rate or charge; beyond it somebody has mistaken the unit.
const GREATEST: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);
const WATT_HOURS_OF_A_KWH: Decimal = Decimal::ONE_THOUSAND;

/// How a plan is priced. All amounts are in the plan's currency; decimals are written as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct RateStructure {
    /// Fixed amount for each calendar month.
    #[serde(default)]
    #[schema(value_type = String, example = "9.90")]
    pub monthly_charge: Decimal,
    /// What a kilowatt hour costs.
    pub energy: Energy,
}

/// What a kilowatt hour costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Energy {
    /// Always the same.
    Flat {
        /// For a kilowatt hour.
        #[schema(value_type = String, example = "0.3125")]
        rate: Decimal,
    },
    /// By how much was used in the calendar month already.
    Tiered {
        /// In ascending order; the last one has no end.
        tiers: Vec<Tier>,
    },
    /// By local time.
    TimeOfUse {
        /// Outside of all periods.
        #[schema(value_type = String, example = "0.35")]
        rate: Decimal,
        /// The first that fits counts.
        periods: Vec<Period>,
    },
}

/// A part of a month's usage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Kilowatt hours of the month up to which it applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "250")]
    pub up_to_kwh: Option<Decimal>,
    /// For a kilowatt hour.
    #[schema(value_type = String, example = "0.28")]
    pub rate: Decimal,
}

/// Hours of days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// Local days; every day if empty.
    #[serde(default)]
    pub days: Vec<Day>,
    /// Calendar months, 1 to 12; every month if empty.
    #[serde(default)]
    pub months: Vec<i8>,
    /// First local hour, 0 to 23.
    pub from_hour: i8,
    /// Hour before which it ends, 1 to 24. Not after `from_hour`: it goes past midnight, and `days` are those of each hour.
    pub to_hour: i8,
    /// For a kilowatt hour.
    #[schema(value_type = String, example = "0.21")]
    pub rate: Decimal,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "days need no explanation")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    const fn weekday(self) -> Weekday {
        match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        }
    }
}

impl RateStructure {
    /// Checks what serde cannot.
    pub fn check(&self) -> Result<(), Unacceptable> {
        let sound = |amount: Decimal| amount >= Decimal::ZERO && amount <= GREATEST;
        if !sound(self.monthly_charge) {
            return Err(refused("monthly_charge must be between 0 and 1,000,000"));
        }
        match &self.energy {
            Energy::Flat { rate } if sound(*rate) => Ok(()),
            Energy::Flat { .. } => Err(refused("rate must be between 0 and 1,000,000")),
            Energy::Tiered { tiers } => check_tiers(tiers, sound),
            Energy::TimeOfUse { rate, periods } => {
                if !sound(*rate) || periods.len() > MOST_PARTS || !periods.iter().all(|p| p.is_sound(sound)) {
                    return Err(refused(
                        "rates must be between 0 and 1,000,000, from_hour 0 to 23, to_hour 1 to 24, months 1 to 12, \
                         and there may be at most 50 periods",
                    ));
                }
                Ok(())
            }
        }
    }
}

fn refused(text: &str) -> Unacceptable {
    Unacceptable(text.to_owned())
}

fn check_tiers(tiers: &[Tier], sound: impl Fn(Decimal) -> bool) -> Result<(), Unacceptable> {
    let ends: Vec<_> = tiers.iter().map_while(|tier| tier.up_to_kwh).collect();
    let ascending = ends.windows(2).all(|pair| pair[0] < pair[1]);
    let starts = ends.first().is_none_or(|end| *end > Decimal::ZERO);
    if tiers.is_empty() || tiers.len() > MOST_PARTS || ends.len() + 1 != tiers.len() || !ascending || !starts
    {
        return Err(refused(
            "tiers must be at most 50, ascending by up_to_kwh, and only the last one has none",
        ));
    }
    if tiers.iter().all(|tier| sound(tier.rate)) {
        Ok(())
    } else {
        Err(refused("rates must be between 0 and 1,000,000"))
    }
}

impl Period {
    fn is_sound(&self, sound: impl Fn(Decimal) -> bool) -> bool {
        sound(self.rate)
            && (0..=23).contains(&self.from_hour)
            && (1..=24).contains(&self.to_hour)
            && self.days.len() <= 7
            && self.months.len() <= 12
            && self.months.iter().all(|month| (1..=12).contains(month))
    }

    fn holds(&self, hour: LocalHour) -> bool {
        let within = if self.from_hour < self.to_hour {
            (self.from_hour..self.to_hour).contains(&hour.hour)
        } else {
            hour.hour >= self.from_hour || hour.hour < self.to_hour
        };
        within
            && (self.days.is_empty() || self.days.iter().any(|day| day.weekday() == hour.weekday))
            && (self.months.is_empty() || self.months.contains(&hour.month))
    }
}

/// Energy of one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// When the hour begins.
    pub at: Timestamp,
    /// Whole watt hours.
    pub watt_hours: i64,
}

/// What matters of a local hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LocalHour {
    year: i16,
    month: i8,
    weekday: Weekday,
    hour: i8,
}

/// Usage by local month, day of the week and hour: all that any tariff asks, computed once for a time zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage(BTreeMap<(i16, i8, i8, i8), i64>);

impl Usage {
    /// Adds readings up, in a time zone.
    pub fn new(readings: &[Reading], zone: &TimeZone) -> Self {
        let mut hours = BTreeMap::new();
        for reading in readings {
            let local = zone.to_datetime(reading.at);
            let place = (
                local.year(),
                local.month(),
                local.weekday().to_monday_zero_offset(),
                local.hour(),
            );
            *hours.entry(place).or_insert(0) += reading.watt_hours;
        }
        Self(hours)
    }

    /// All of it, in watt hours.
    pub fn watt_hours(&self) -> i64 {
        self.0.values().sum()
    }

    fn hours(&self) -> impl Iterator<Item = (LocalHour, i64)> {
        self.0
            .iter()
            .filter_map(|((year, month, weekday, hour), energy)| {
                let hour = LocalHour {
                    year: *year,
                    month: *month,
                    weekday: Weekday::from_monday_zero_offset(*weekday).ok()?,
                    hour: *hour,
                };
                Some((hour, *energy))
            })
    }
}

/// What usage costs, with the fixed charge of so many months; not rounded.
pub fn cost(rates: &RateStructure, usage: &Usage, months: u32) -> Decimal {
    let energy = match &rates.energy {
        Energy::Flat { rate } => kwh(usage.watt_hours()) * rate,
        Energy::Tiered { tiers } => {
            let mut by_month: BTreeMap<(i16, i8), i64> = BTreeMap::new();
            for (hour, energy) in usage.hours() {
                *by_month.entry((hour.year, hour.month)).or_insert(0) += energy;
            }
            by_month.values().map(|energy| tiered(tiers, kwh(*energy))).sum()
        }
        Energy::TimeOfUse { rate, periods } => usage
            .hours()
            .map(|(hour, energy)| {
                let period = periods.iter().find(|period| period.holds(hour));
                kwh(energy) * period.map_or(*rate, |period| period.rate)
            })
            .sum(),
    };
    energy + rates.monthly_charge * Decimal::from(months)
}

/// What a month's usage costs by tiers.
fn tiered(tiers: &[Tier], used: Decimal) -> Decimal {
    let (mut from, mut sum) = (Decimal::ZERO, Decimal::ZERO);
    for tier in tiers {
        let to = tier.up_to_kwh.map_or(used, |end| end.min(used));
        if to > from {
            sum += (to - from) * tier.rate;
            from = to;
        }
    }
    sum
}

/// Watt hours as kilowatt hours.
pub fn kwh(watt_hours: i64) -> Decimal {
    Decimal::from(watt_hours) / WATT_HOURS_OF_A_KWH
}

/// Kilowatt hours as whole watt hours, if they are.
pub fn watt_hours(kwh: Decimal) -> Option<i64> {
    let whole = (kwh * WATT_HOURS_OF_A_KWH).normalize();
    if whole.scale() != 0 {
        return None;
    }
    i64::try_from(whole).ok()
}

/// An amount as it is shown: two decimals, halves away from zero.
pub fn rounded(amount: Decimal) -> Decimal {
    let mut shown = amount.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero);
    shown.rescale(2);
    shown
}

#[cfg(test)]
mod tests;
