//! Costs against plain arithmetic, across clock changes, and as properties.

use jiff::{SignedDuration, ToSpan};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn flat(rate: &str) -> RateStructure {
    RateStructure {
        monthly_charge: Decimal::ZERO,
        energy: Energy::Flat { rate: decimal(rate) },
    }
}

fn night(rate: &str, night: &str) -> RateStructure {
    RateStructure {
        monthly_charge: Decimal::ZERO,
        energy: Energy::TimeOfUse {
            rate: decimal(rate),
            periods: vec![Period {
                days: Vec::new(),
                months: Vec::new(),
                from_hour: 22,
                to_hour: 6,
                rate: decimal(night),
            }],
        },
    }
}

/// So many hours of 1 kWh each.
fn hours(from: &str, count: i64) -> Vec<Reading> {
    let from: Timestamp = from.parse().unwrap();
    (0..count)
        .map(|hour| Reading {
            at: from + SignedDuration::from_hours(hour),
            watt_hours: 1_000,
        })
        .collect()
}

/// The local day has 23 hours in March and 25 in October; the night has 7 and 9 of them.
#[test]
fn days_on_which_clocks_change_have_their_true_length() {
    let berlin = zone::parse("Europe/Berlin").unwrap();
    for (midnight, length, nightly) in [
        ("2026-03-29T00:00:00+01:00", 23, 7),
        ("2026-06-01T00:00:00+02:00", 24, 8),
        ("2026-10-25T00:00:00+02:00", 25, 9),
    ] {
        let day = hours(midnight, length);
        let usage = Usage::new(&day, &berlin);
        assert_eq!(usage.watt_hours(), length * 1_000);
        let price = cost(&night("1", "0"), &usage, 0);
        assert_eq!(price, Decimal::from(length - nightly), "{midnight}");
        let next: Timestamp = midnight.parse().unwrap();
        let local_end = next.to_zoned(berlin.clone()).checked_add(1.day()).unwrap();
        let seconds = local_end.timestamp().as_second() - next.as_second();
        assert_eq!(seconds, length * 3_600);
    }
}

#[test]
fn tiers_begin_anew_with_every_local_month() {
    let rates = RateStructure {
        monthly_charge: decimal("5"),
        energy: Energy::Tiered {
            tiers: vec![
                Tier {
                    up_to_kwh: Some(decimal("10")),
                    rate: decimal("0.1"),
                },
                Tier {
                    up_to_kwh: None,
                    rate: decimal("0.3"),
                },
            ],
        },
    };
    // 20 hours around midnight of the first of February in New York: 12 in January, 8 in February.
    let readings = hours("2026-01-31T17:00:00Z", 20);
    let new_york = zone::parse("America/New_York").unwrap();
    let usage = Usage::new(&readings, &new_york);
    assert_eq!(
        cost(&rates, &usage, 2),
        decimal("10") + decimal("1.0") + decimal("0.6") + decimal("0.8")
    );
    let utc = Usage::new(&readings, &zone::parse("UTC").unwrap());
    assert_eq!(
        cost(&rates, &utc, 0),
        decimal("0.7") + decimal("1.0") + decimal("0.9")
    );
}

#[test]
fn the_first_period_that_fits_counts() {
    let period = |days: &[Day], months: &[i8], from_hour, to_hour, rate| Period {
        days: days.to_vec(),
        months: months.to_vec(),
        from_hour,
        to_hour,
        rate: decimal(rate),
    };
    let rates = RateStructure {
        monthly_charge: Decimal::ZERO,
        energy: Energy::TimeOfUse {
            rate: decimal("0.5"),
            periods: vec![
                period(&[Day::Sat, Day::Sun], &[], 0, 24, "0.1"),
                period(&[], &[7], 17, 20, "0.9"),
                period(&[], &[], 17, 20, "0.7"),
            ],
        },
    };
    let price = |at| cost(&rates, &Usage::new(&hours(at, 1), &TimeZone::UTC), 0);
    assert_eq!(price("2026-07-04T18:00:00Z"), decimal("0.1"), "a Saturday");
    assert_eq!(price("2026-07-06T18:00:00Z"), decimal("0.9"), "a Monday in July");
    assert_eq!(price("2026-08-03T18:00:00Z"), decimal("0.7"));
    assert_eq!(price("2026-08-03T20:00:00Z"), decimal("0.5"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refuses = |json: serde_json::Value| {
        let rates: Result<RateStructure, _> = serde_json::from_value(json);
        rates.map_or(true, |rates| rates.check().is_err())
    };
    for energy in [
        json!({"type": "flat", "rate": "-0.1"}),
        json!({"type": "flat"}),
        json!({"type": "spot", "rate": "1"}),
        json!({"type": "tiered", "tiers": []}),
        json!({"type": "tiered", "tiers": [{"up_to_kwh": "10", "rate": "1"}]}),
        json!({"type": "tiered", "tiers": [{"up_to_kwh": "10", "rate": "1"}, {"up_to_kwh": "9", "rate": "1"}, {"rate": "1"}]}),
        json!({"type": "tiered", "tiers": [{"rate": "1"}, {"rate": "1"}]}),
        json!({"type": "time_of_use", "rate": "1", "periods": [{"from_hour": 24, "to_hour": 1, "rate": "1"}]}),
        json!({"type": "time_of_use", "rate": "1", "periods": [{"from_hour": 0, "to_hour": 1, "months": [13], "rate": "1"}]}),
    ] {
        assert!(refuses(json!({"energy": energy})), "{energy}");
    }
    assert!(!refuses(
        json!({"energy": {"type": "flat", "rate": "0.3"}, "monthly_charge": "9.90"})
    ));
}

#[test]
fn energy_is_whole_watt_hours() {
    assert_eq!(watt_hours(decimal("1.234")), Some(1_234));
    assert_eq!(watt_hours(decimal("0.0001")), None);
    assert_eq!(watt_hours(decimal("12.0000")), Some(12_000));
    assert_eq!(rounded(decimal("0.125")).to_string(), "0.13");
    assert_eq!(rounded(decimal("3")).to_string(), "3.00");
}

prop_compose! {
    fn readings()(
        start in 1_700_000_000_i64..1_800_000_000, energies in proptest::collection::vec(0_i64..5_000, 1..200)
    ) -> Vec<Reading> {
        let start = start / 3_600 * 3_600;
        energies.into_iter().enumerate().map(|(hour, watt_hours)| Reading {
            at: Timestamp::from_second(start + 3_600 * i64::try_from(hour).unwrap()).unwrap(), watt_hours,
        }).collect()
    }
}

const ZONES: [&str; 5] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
];

proptest! {
    #[test]
    fn tariffs_of_one_rate_cost_the_same(readings in readings(), zone in 0_usize..5, mills in 0_i64..1_000) {
        let zone = zone::parse(ZONES[zone]).unwrap();
        let usage = Usage::new(&readings, &zone);
        let rate = Decimal::new(mills, 3).to_string();
        let one_tier = RateStructure {
            monthly_charge: Decimal::ZERO,
            energy: Energy::Tiered { tiers: vec![
                Tier { up_to_kwh: Some(decimal("7.5")), rate: decimal(&rate) }, Tier { up_to_kwh: None, rate: decimal(&rate) },
            ] },
        };
        let plain = cost(&flat(&rate), &usage, 0);
        prop_assert_eq!(plain, cost(&night(&rate, &rate), &usage, 0));
        prop_assert_eq!(plain, cost(&one_tier, &usage, 0));
        let all: i64 = readings.iter().map(|reading| reading.watt_hours).sum();
        prop_assert_eq!(plain, Decimal::from(all) * Decimal::new(mills, 6));
    }

    #[test]
    fn no_energy_is_lost_in_any_zone_and_parts_add_up(readings in readings(), zone in 0_usize..5, cut in 0_usize..200) {
        let zone = zone::parse(ZONES[zone]).unwrap();
        let (one, two) = readings.split_at(cut.min(readings.len()));
        let rates = night("0.35", "0.21");
        let parts = cost(&rates, &Usage::new(one, &zone), 0) + cost(&rates, &Usage::new(two, &zone), 0);
        prop_assert_eq!(parts, cost(&rates, &Usage::new(&readings, &zone), 0));
    }

    #[test]
    fn tiers_equal_a_sum_over_single_watt_hours(used in 0_i64..40_000, first in 1_i64..20, second in 1_i64..20) {
        let (a, b) = (Decimal::from(first), Decimal::from(first + second));
        let tiers = [
            Tier { up_to_kwh: Some(a), rate: decimal("0.2") },
            Tier { up_to_kwh: Some(b), rate: decimal("0.3") },
            Tier { up_to_kwh: None, rate: decimal("0.5") },
        ];
        let (one, two) = (used.min(first * 1_000), used.min((first + second) * 1_000));
        let expected = kwh(one) * decimal("0.2") + kwh(two - one) * decimal("0.3") + kwh(used - two) * decimal("0.5");
        prop_assert_eq!(tiered(&tiers, kwh(used)), expected);
    }

    #[test]
    fn a_rate_structure_is_read_back(mills in 0_i64..10_000, from in 0_i8..24, to in 1_i8..25) {
        let rates = RateStructure {
            monthly_charge: Decimal::new(mills, 2),
            energy: Energy::TimeOfUse { rate: Decimal::new(mills, 4), periods: vec![Period {
                days: vec![Day::Sat], months: vec![12], from_hour: from, to_hour: to, rate: Decimal::new(mills, 3),
            }] },
        };
        let json = serde_json::to_string(&rates).unwrap();
        prop_assert_eq!(serde_json::from_str::<RateStructure>(&json).unwrap(), rates.clone());
        prop_assert!(rates.check().is_ok());
    }
}
