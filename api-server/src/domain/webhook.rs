//! Endpoints that are told of events.

use std::time::Duration;

use super::task::Patience;
use super::{Unacceptable, line};

/// Events that endpoints can be told of.
pub const EVENT_TYPES: [&str; 15] = [
    "conversation.created",
    "conversation.updated",
    "conversation.deleted",
    "message.created",
    "resource.created",
    "resource.deleted",
    "sync.failed",
    "sync.succeeded",
    "tenant.broadcast",
    "workroom.created",
    "workroom.deleted",
    "workroom.member.added",
    "workroom.member.removed",
    "workroom.message.created",
    "workroom.updated",
];
/// Endpoints of a tenant.
pub const MOST_ENDPOINTS: i64 = 20;
/// Characters of a description.
const LONGEST_DESCRIPTION: usize = 200;
/// After a rotation the old secret signs for so long too.
pub const ROTATION: Duration = Duration::from_hours(24);

/// Nine attempts over a day.
pub const PATIENCE: Patience = Patience {
    first: Duration::from_secs(5),
    factor: 4,
    longest: Duration::from_hours(8),
    unavailable: Some(9),
    refused: 3,
};

/// Checks which events an endpoint wants: known ones, each once.
pub fn event_types(wanted: &[String]) -> Result<Vec<String>, Unacceptable> {
    let mut types = wanted.to_vec();
    types.sort();
    types.dedup();
    if types.is_empty() {
        return Err(Unacceptable("must name at least one event type".to_owned()));
    }
    match types.iter().find(|name| !EVENT_TYPES.contains(&name.as_str())) {
        None => Ok(types),
        Some(_) => Err(Unacceptable(format!("must be of {}", EVENT_TYPES.join(", ")))),
    }
}

/// Checks a description.
pub fn description(text: &str) -> Result<String, Unacceptable> {
    line(text, LONGEST_DESCRIPTION)
}

/// Failures in a row before an endpoint is given up.
const MOST_FAILURES: i32 = 20;
/// And for so long.
const LONGEST_FAILING: Duration = Duration::from_hours(24);

/// Why an endpoint is not told any more, if its failures are enough: many in a row, and over a long time. A busy tenant has many in a
/// minute, and one whose endpoint is repaired within a day should not notice.
pub fn give_up(failures: i32, failing_for: Duration, gone: bool) -> Option<String> {
    if gone {
        return Some("It answered 410 Gone.".to_owned());
    }
    (failures >= MOST_FAILURES && failing_for >= LONGEST_FAILING).then(|| {
        format!(
            "{failures} attempts in a row failed over more than {} hours.",
            LONGEST_FAILING.as_secs() / 3_600
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_are_from_a_closed_set() {
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let twice = text(&["message.created", "conversation.created", "message.created"]);
        assert_eq!(
            event_types(&twice).unwrap(),
            ["conversation.created", "message.created"]
        );
        assert!(event_types(&[]).is_err());
        assert!(event_types(&text(&["session.revoked"])).is_err());
    }

    #[test]
    fn an_endpoint_is_given_up_after_many_failures_over_a_long_time() {
        let (hour, day) = (Duration::from_hours(1), Duration::from_hours(25));
        assert_eq!(give_up(1_000, hour, false), None);
        assert_eq!(give_up(19, day, false), None);
        assert!(give_up(20, day, false).is_some());
        assert!(give_up(1, Duration::ZERO, true).is_some());
    }
}
