//! Where the migration of this release stands.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// How long a failed migration rests before it is tried again by itself: what it failed on may have been mended.
const REST: SignedDuration = SignedDuration::from_mins(5);

/// State of the migration Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Migration {
    /// There is no Job for this release yet.
    Absent,
    /// It runs, or waits for its next try; with what the last try said, if one failed.
    Running {
        /// Tries that failed.
        failures: i64,
    },
    /// The schema fits the release.
    Done,
    /// It was tried as often as it may be.
    Failed {
        /// Kubernetes' own words.
        message: String,
        /// When it was given up.
        at: Option<Timestamp>,
    },
}

/// Reads the state off a Job. A Job that failed once and then succeeded is done.
pub fn state(job: Option<&Value>) -> Migration {
    let Some(job) = job else { return Migration::Absent };
    let conditions = job["status"]["conditions"].as_array();
    let holds = |kind: &str| {
        conditions.and_then(|all| all.iter().find(|c| c["type"] == kind && c["status"] == "True"))
    };
    if holds("Complete").is_some() {
        return Migration::Done;
    }
    if let Some(failed) = holds("Failed") {
        return Migration::Failed {
            message: failed["message"].as_str().unwrap_or("the Job failed").to_owned(),
            at: failed["lastTransitionTime"]
                .as_str()
                .and_then(|time| time.parse().ok()),
        };
    }
    Migration::Running {
        failures: job["status"]["failed"].as_i64().unwrap_or(0),
    }
}

/// Whether a failed migration has rested long enough to be tried again.
pub fn is_due(state: &Migration, now: Timestamp) -> bool {
    matches!(state, Migration::Failed { at: Some(at), .. } if now.duration_since(*at) >= REST)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({}), Migration::Running { failures: 0 })]
    #[case(json!({"failed": 2, "active": 1}), Migration::Running { failures: 2 })]
    #[case(json!({"failed": 1, "succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}), Migration::Done)]
    #[case(json!({"failed": 5, "conditions": [{"type": "Failed", "status": "True", "message": "limit"}]}), Migration::Failed { message: "limit".to_owned(), at: None })]
    fn the_state_is_read_off_the_job(#[case] status: Value, #[case] expected: Migration) {
        assert_eq!(state(Some(&json!({"status": status}))), expected);
    }

    #[test]
    fn a_failed_migration_is_tried_again_after_a_rest() {
        let condition =
            json!({"type": "Failed", "status": "True", "lastTransitionTime": "2026-11-21T12:00:00Z"});
        let failed = state(Some(&json!({"status": {"conditions": [condition]}})));
        let due = |time: &str| is_due(&failed, time.parse().unwrap());
        assert!(!due("2026-11-21T12:04:59Z"));
        assert!(due("2026-11-21T12:05:00Z"));
        assert!(!is_due(&Migration::Done, "2027-01-01T00:00:00Z".parse().unwrap()));
    }
}
