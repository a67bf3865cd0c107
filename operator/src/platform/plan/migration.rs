//! Where the migration of this release stands.

use serde_json::Value;

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
        };
    }
    Migration::Running {
        failures: job["status"]["failed"].as_i64().unwrap_or(0),
    }
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
    #[case(json!({"failed": 5, "conditions": [{"type": "Failed", "status": "True", "message": "limit"}]}), Migration::Failed { message: "limit".to_owned() })]
    fn the_state_is_read_off_the_job(#[case] status: Value, #[case] expected: Migration) {
        assert_eq!(state(Some(&json!({"status": status}))), expected);
    }
}
