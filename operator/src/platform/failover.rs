//! Measuring a change of primary from what was seen, look by look.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crds::platform::status::LastFailover;

/// What was seen of the primary so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tracker {
    primary: Option<String>,
    gone_since: Option<Timestamp>,
}

/// Takes in one look. `primary` is who takes writes, if anybody does. Answers with a report when a new primary has taken over from
/// another one that was seen before; a platform's first primary is no failover.
pub fn track(tracker: &mut Tracker, primary: Option<&str>, now: Timestamp) -> Option<LastFailover> {
    match (&tracker.primary, primary) {
        (_, None) => {
            tracker.gone_since = tracker.gone_since.or(Some(now));
            None
        }
        (Some(before), Some(after)) if before != after => {
            let detected_at = tracker.gone_since.unwrap_or(now);
            let reason = if tracker.gone_since.is_some() {
                "the primary was gone"
            } else {
                "the role was handed over"
            };
            let report = LastFailover {
                from: before.clone(),
                to: after.to_owned(),
                reason: reason.to_owned(),
                detected_at: Time(detected_at),
                writable_at: Time(now),
                downtime_millis: now.as_millisecond() - detected_at.as_millisecond(),
            };
            *tracker = Tracker {
                primary: Some(after.to_owned()),
                gone_since: None,
            };
            Some(report)
        }
        (_, Some(current)) => {
            *tracker = Tracker {
                primary: Some(current.to_owned()),
                gone_since: None,
            };
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn the_first_primary_is_no_failover() {
        let mut tracker = Tracker::default();
        assert_eq!(track(&mut tracker, None, at(0)), None);
        assert_eq!(track(&mut tracker, Some("pg-0"), at(10)), None);
    }

    #[test]
    fn the_time_without_a_primary_is_measured() {
        let mut tracker = Tracker::default();
        track(&mut tracker, Some("pg-0"), at(0));
        track(&mut tracker, None, at(1_000));
        track(&mut tracker, None, at(1_250));
        let report = track(&mut tracker, Some("pg-1"), at(2_500)).unwrap();
        assert_eq!(
            (report.from.as_str(), report.to.as_str(), report.downtime_millis),
            ("pg-0", "pg-1", 1_500)
        );
    }

    #[test]
    fn a_primary_that_comes_back_is_no_failover() {
        let mut tracker = Tracker::default();
        track(&mut tracker, Some("pg-0"), at(0));
        track(&mut tracker, None, at(1_000));
        assert_eq!(track(&mut tracker, Some("pg-0"), at(2_000)), None);
    }
}
