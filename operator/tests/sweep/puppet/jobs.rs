//! The Job controller: a Job is done at once, unless its image says that it fails.

use serde_json::{Value, json};

use super::hands::Hands;
use crate::view::Objects;

/// Part of an image's name that makes Jobs fail.
pub const FAILING: &str = "failing";
const BEGAN: &str = "2026-01-01T00:00:00Z";

pub async fn keep(hands: &Hands, _world: &Objects, job: &Value) {
    if job["status"]["conditions"].is_array() {
        return;
    }
    let image = job["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
    // A failure that is long past would be tried again at once.
    let now = moment();
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": "True", "reason": reason, "message": message,
            "lastProbeTime": now, "lastTransitionTime": now,
        })
    };
    let status = if image.is_some_and(|image| image.contains(FAILING)) {
        let all = ["FailureTarget", "Failed"]
            .map(|kind| condition(kind, "BackoffLimitExceeded", "it failed too often"));
        json!({"startTime": BEGAN, "failed": 5, "conditions": all, "uncountedTerminatedPods": {}})
    } else {
        let all = ["SuccessCriteriaMet", "Complete"]
            .map(|kind| condition(kind, "CompletionsReached", "it is done"));
        json!({"startTime": BEGAN, "completionTime": BEGAN, "succeeded": 1, "conditions": all, "uncountedTerminatedPods": {}})
    };
    hands.status("jobs", job, &status).await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "the puppet has the clock of the cluster"
)]
fn moment() -> String {
    let now = jiff::Timestamp::now();
    now.round(jiff::Unit::Second).unwrap_or(now).to_string()
}
