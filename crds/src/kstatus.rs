//! What a tool that knows only the conventions reads from a status: Flux and others that use kstatus, and every person. The operator
//! writes its status so that they are right at every moment, from the first write on; the tests hold each status that was ever written
//! against [`violations`].

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::TankaPlatformStatus;
use crate::conditions::{ConditionType, Reason};

/// kstatus' words for an object that is not being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// On its way: wait.
    InProgress,
    /// It will not get there by itself: tell somebody.
    Failed,
    /// As it was asked to be.
    Current,
}

/// kstatus' judgement, as its library computes it for a kind that it does not know.
pub fn judge(generation: i64, status: Option<&TankaPlatformStatus>) -> Verdict {
    let Some(status) = status else {
        // This is why the first write comes before the first object: whoever looks earlier is told that all is well.
        return Verdict::Current;
    };
    if status
        .observed_generation
        .is_some_and(|observed| observed != generation)
    {
        return Verdict::InProgress;
    }
    if is_true(status, ConditionType::Reconciling) {
        return Verdict::InProgress;
    }
    if is_true(status, ConditionType::Stalled) {
        return Verdict::Failed;
    }
    match find(status, ConditionType::Ready) {
        Some(ready) if ready.status != "True" => Verdict::InProgress,
        _ => Verdict::Current,
    }
}

/// What a status does that the conventions forbid.
pub fn violations(generation: i64, status: &TankaPlatformStatus) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut rule = |kept: bool, words: String| {
        if !kept {
            wrong.push(words);
        }
    };
    let observed = status.observed_generation;
    rule(
        observed.is_some_and(|observed| (1..=generation).contains(&observed)),
        format!("observedGeneration is {observed:?} at generation {generation}"),
    );
    rule(
        find(status, ConditionType::Ready).is_some(),
        "Ready is missing".to_owned(),
    );
    for kind in [ConditionType::Reconciling, ConditionType::Stalled] {
        rule(
            find(status, kind).is_none() || is_true(status, kind),
            format!("{kind} is there without being true"),
        );
    }
    rule(
        !(is_true(status, ConditionType::Reconciling) && is_true(status, ConditionType::Stalled)),
        "Reconciling and Stalled at the same time".to_owned(),
    );
    let mut seen = BTreeSet::new();
    for condition in &status.conditions {
        let kind = condition.type_.as_str();
        rule(seen.insert(kind), format!("{kind} is there twice"));
        rule(
            ConditionType::ALL.iter().any(|known| known.as_str() == kind),
            format!("nobody knows the condition {kind}"),
        );
        rule(
            Reason::ALL.iter().any(|known| known.as_str() == condition.reason),
            format!("nobody knows the reason {} of {kind}", condition.reason),
        );
        rule(!condition.message.is_empty(), format!("{kind} says nothing"));
        rule(
            condition.observed_generation.is_some() && condition.observed_generation <= observed,
            format!("{kind} speaks of generation {:?}", condition.observed_generation),
        );
    }
    let ready = find(status, ConditionType::Ready);
    if ready.is_some_and(|ready| ready.status == "True" && ready.reason == Reason::AllReady.as_str()) {
        rule(
            !is_true(status, ConditionType::Reconciling) && !is_true(status, ConditionType::Stalled),
            "all is ready, and yet something goes on".to_owned(),
        );
    }
    wrong
}

fn find(status: &TankaPlatformStatus, kind: ConditionType) -> Option<&Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind.as_str())
}

fn is_true(status: &TankaPlatformStatus, kind: ConditionType) -> bool {
    find(status, kind).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn status(conditions: &[(&str, &str, &str)]) -> TankaPlatformStatus {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status, reason)| {
                json!({"type": kind, "status": status, "reason": reason, "message": "so it is", "observedGeneration": 2,
                       "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        serde_json::from_value(json!({"observedGeneration": 2, "conditions": conditions})).unwrap()
    }

    #[rstest]
    #[case::works(&[("Ready", "True", "AllReady")], Verdict::Current)]
    #[case::starts(&[("Ready", "False", "Progressing"), ("Reconciling", "True", "Progressing")], Verdict::InProgress)]
    #[case::works_and_mends(&[("Ready", "True", "ReplicaNotStreaming"), ("Reconciling", "True", "ReplicaNotStreaming")], Verdict::InProgress)]
    #[case::stuck(&[("Ready", "False", "ImagePullFailed"), ("Stalled", "True", "ImagePullFailed")], Verdict::Failed)]
    fn kstatus_understands_what_is_written(
        #[case] conditions: &[(&str, &str, &str)],
        #[case] verdict: Verdict,
    ) {
        let status = status(conditions);
        assert_eq!(violations(2, &status), Vec::<String>::new());
        assert_eq!(judge(2, Some(&status)), verdict);
        assert_eq!(judge(3, Some(&status)), Verdict::InProgress);
    }

    #[rstest]
    #[case::no_ready(&[("ApiReady", "True", "Available")], "Ready is missing")]
    #[case::false_abnormal(&[("Ready", "True", "AllReady"), ("Stalled", "False", "AllReady")], "without being true")]
    #[case::both(&[("Ready", "False", "Progressing"), ("Reconciling", "True", "Progressing"), ("Stalled", "True", "CrashLoop")], "at the same time")]
    #[case::ready_and_reconciling(&[("Ready", "True", "AllReady"), ("Reconciling", "True", "Progressing")], "something goes on")]
    #[case::unknown_reason(&[("Ready", "False", "Because")], "nobody knows the reason")]
    #[case::twice(&[("Ready", "True", "AllReady"), ("Ready", "True", "AllReady")], "twice")]
    fn what_the_conventions_forbid_is_found(#[case] conditions: &[(&str, &str, &str)], #[case] words: &str) {
        let found = violations(2, &status(conditions));
        assert!(found.iter().any(|found| found.contains(words)), "{found:?}");
    }
}
