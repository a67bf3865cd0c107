//! When something is due: cron expressions of five fields, in a time zone.

use std::str::FromStr;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Unacceptable;
use super::tariff::zone;

/// Schedules of a tenant.
pub const MOST_SCHEDULES: i64 = 50;

/// A schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Reads five fields: minute, hour, day of the month, month, day of the week.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Self, Unacceptable> {
        let unacceptable =
            || Unacceptable("must be a cron expression of five fields, such as */5 * * * *".to_owned());
        // A list without items is nothing to the library, which would look for it hour by hour.
        let empty = |field: &str| field.split(',').any(str::is_empty);
        if text.len() > 100 || text.split_whitespace().count() != 5 || text.split_whitespace().any(empty) {
            return Err(unacceptable());
        }
        let cron = Cron::from_str(text).map_err(|_| unacceptable())?;
        let schedule = Self { cron, zone };
        // One that is never due, such as the 30th of February, is a mistake.
        if schedule.next(Timestamp::UNIX_EPOCH).is_none() {
            return Err(Unacceptable("is never due".to_owned()));
        }
        Ok(schedule)
    }

    /// Reads what was stored; one that a later release wrote is never due.
    pub fn stored(text: &str, zone_name: &str) -> Option<Self> {
        Self::parse(text, zone::parse(zone_name).ok()?).ok()
    }

    /// When it is due after a time. What was missed since is not made up for.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.to_zoned(self.zone.clone());
        self.cron
            .find_next_occurrence(&after, false)
            .ok()
            .map(|next| next.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(cron: &str, zone_name: &str, after: &str) -> String {
        let schedule = Schedule::parse(cron, zone::parse(zone_name).unwrap()).unwrap();
        schedule.next(after.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn schedules_are_due_in_their_time_zone() {
        assert_eq!(
            next("*/5 * * * *", "UTC", "2026-11-21T12:00:00Z"),
            "2026-11-21T12:05:00Z"
        );
        assert_eq!(
            next("*/5 * * * *", "UTC", "2026-11-21T12:04:59Z"),
            "2026-11-21T12:05:00Z"
        );
        assert_eq!(
            next("0 9 * * 1", "Europe/Zurich", "2026-11-21T12:00:00Z"),
            "2026-11-23T08:00:00Z"
        );
        assert_eq!(
            next("0 9 * * *", "Europe/Zurich", "2026-07-01T00:00:00Z"),
            "2026-07-01T07:00:00Z"
        );
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for wrong in [
            "",
            "* * * *",
            "* * * * * *",
            "61 * * * *",
            "@hourly",
            "x * * * *",
            "0 0 30 2 *",
        ] {
            assert!(Schedule::parse(wrong, TimeZone::UTC).is_err(), "{wrong}");
        }
    }
}
