//! Which changes of a status are events. Only transitions: what repeats is in the conditions.

use crds::TankaPlatformStatus;
use crds::conditions::ConditionType;
use crds::platform::status::LastFailover;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};

use super::stalled;

/// The events of a change.
pub fn events(before: &TankaPlatformStatus, after: &TankaPlatformStatus) -> Vec<Event> {
    readiness(before, after)
        .into_iter()
        .chain(failover(before, after))
        .collect()
}

/// Readiness has flipped, or its reason is another one.
fn readiness(before: &TankaPlatformStatus, status: &TankaPlatformStatus) -> Option<Event> {
    let of = |conditions: &[Condition]| {
        conditions
            .iter()
            .find(|c| c.type_ == ConditionType::Ready.as_str())
            .cloned()
    };
    let before = of(&before.conditions);
    let after = of(&status.conditions)?;
    if before
        .as_ref()
        .is_some_and(|before| before.status == after.status && before.reason == after.reason)
    {
        return None;
    }
    let worked = before.is_some_and(|before| before.status == "True");
    Some(Event {
        // A platform that is on its way is no reason to worry; one that stopped working, or needs somebody, is.
        type_: if after.status == "True" || !(worked || stalled(&status.conditions)) {
            EventType::Normal
        } else {
            EventType::Warning
        },
        reason: after.reason,
        note: Some(after.message),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}

/// Another instance of PostgreSQL took over.
fn failover(before: &TankaPlatformStatus, after: &TankaPlatformStatus) -> Option<Event> {
    let of = |status: &TankaPlatformStatus| -> Option<LastFailover> {
        status.postgres.as_ref()?.last_failover.clone()
    };
    let last = of(after).filter(|last| of(before).as_ref() != Some(last))?;
    let seconds = last.downtime_millis.max(0);
    Some(Event {
        type_: EventType::Normal,
        reason: "FailedOver".to_owned(),
        note: Some(format!(
            "{} took over from {}: {}; nothing took writes for {}.{:03} s",
            last.to,
            last.from,
            last.reason,
            seconds / 1_000,
            seconds % 1_000
        )),
        action: "Failover".to_owned(),
        secondary: None,
    })
}

#[cfg(test)]
mod tests {
    use crds::platform::status::PostgresStatus;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn status(ready: &str, reason: &str, failover: Option<i64>) -> TankaPlatformStatus {
        let ready = Condition {
            type_: "Ready".to_owned(),
            status: ready.to_owned(),
            reason: reason.to_owned(),
            message: "so it is".to_owned(),
            observed_generation: Some(1),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let last_failover = failover.map(|downtime_millis| LastFailover {
            from: "acme-postgres-0".to_owned(),
            to: "acme-postgres-1".to_owned(),
            reason: "the primary was gone".to_owned(),
            detected_at: Time(Timestamp::UNIX_EPOCH),
            writable_at: Time(Timestamp::UNIX_EPOCH),
            downtime_millis,
        });
        TankaPlatformStatus {
            conditions: vec![ready],
            postgres: Some(PostgresStatus {
                last_failover,
                ..PostgresStatus::default()
            }),
            ..TankaPlatformStatus::default()
        }
    }

    #[test]
    fn a_failover_is_told_once_with_its_time() {
        let (before, after) = (
            status("True", "AllReady", None),
            status("True", "AllReady", Some(1_640)),
        );
        let told = events(&before, &after);
        assert_eq!(told.len(), 1);
        assert_eq!(
            told[0].note.as_deref(),
            Some(
                "acme-postgres-1 took over from acme-postgres-0: the primary was gone; nothing took writes for 1.640 s"
            )
        );
        assert!(events(&after, &after).is_empty());
    }

    #[test]
    fn a_platform_that_stops_working_is_a_warning_and_one_on_its_way_is_not() {
        let warns = |before: &TankaPlatformStatus, after: &TankaPlatformStatus| {
            matches!(events(before, after)[0].type_, EventType::Warning)
        };
        let works = status("True", "AllReady", None);
        let fails = status("False", "NoPrimary", None);
        assert!(warns(&works, &fails));
        assert!(!warns(&fails, &status("False", "Progressing", None)));
        assert!(!warns(&fails, &works));
        assert!(events(&fails, &fails).is_empty());
    }
}
