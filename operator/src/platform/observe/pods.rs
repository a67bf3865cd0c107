//! What pods and their volumes say about themselves, reduced to what decisions need.

use crds::conditions::Reason;
use crds::names;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// A container that ended this often, the last time this recently, and does not serve, is in a crash loop, whether it runs at the
/// moment or waits for its next try.
const CRASHES: i64 = 2;
const RECENT: SignedDuration = SignedDuration::from_mins(10);

/// Something that keeps a pod from running, with a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Class of the problem.
    pub reason: Reason,
    /// What and why, naming the object.
    pub message: String,
}

/// A pod as decisions see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Identity across deletion and re-creation.
    pub uid: String,
    /// When it was made, to the second.
    pub created: Option<Timestamp>,
    /// Revision of its StatefulSet that it was made from.
    pub revision: Option<String>,
    /// Value of the component label.
    pub component: String,
    /// Address, once it has one.
    pub ip: Option<String>,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Whether it is on its way out.
    pub deleting: bool,
    /// Whether all its containers have ended for good.
    pub ended: bool,
    /// What is wrong with it.
    pub problem: Option<Problem>,
    /// What its last ended container left as a message.
    pub last_words: Option<String>,
}

/// Reduces a pod, seen at `now`.
pub fn reduce(pod: &Value, now: Timestamp) -> Pod {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let name = text(&pod["metadata"]["name"]).unwrap_or_default();
    Pod {
        uid: text(&pod["metadata"]["uid"]).unwrap_or_default(),
        created: created(pod),
        revision: text(&pod["metadata"]["labels"]["controller-revision-hash"]),
        component: text(&pod["metadata"]["labels"][names::COMPONENT_LABEL]).unwrap_or_default(),
        ip: text(&pod["status"]["podIP"]),
        ready: condition(pod, "Ready").is_some_and(|c| c["status"] == "True"),
        deleting: pod["metadata"].get("deletionTimestamp").is_some(),
        ended: ["Succeeded", "Failed"]
            .iter()
            .any(|phase| pod["status"]["phase"] == *phase),
        problem: unschedulable(pod, &name)
            .or_else(|| containers(pod).find_map(|c| waiting(c, &name)))
            .or_else(|| containers(pod).find_map(|c| crashing(c, &name, now))),
        last_words: containers(pod).find_map(last_words),
        name,
    }
}

/// When an object was made, to the second.
pub fn created(object: &Value) -> Option<Timestamp> {
    object["metadata"]["creationTimestamp"].as_str()?.parse().ok()
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    pod["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let status = &pod["status"];
    ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .flat_map(move |field| status[field].as_array().into_iter().flatten())
}

fn unschedulable(pod: &Value, name: &str) -> Option<Problem> {
    let scheduled = condition(pod, "PodScheduled").filter(|c| c["status"] == "False")?;
    let cause = scheduled["message"].as_str().unwrap_or("no node fits");
    let reason = if cause.contains("PersistentVolumeClaim") {
        Reason::VolumePending
    } else {
        Reason::Unschedulable
    };
    Some(Problem {
        reason,
        message: format!("pod {name} cannot be scheduled: {cause}"),
    })
}

fn waiting(container: &Value, pod: &str) -> Option<Problem> {
    let waiting = &container["state"]["waiting"];
    let message = waiting["message"].as_str().unwrap_or_default();
    let name = container["name"].as_str().unwrap_or_default();
    match waiting["reason"].as_str()? {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable" => {
            let image = container["image"].as_str().unwrap_or_default();
            Some(Problem {
                reason: Reason::ImagePullFailed,
                message: format!("image {image} cannot be pulled (pod {pod}): {message}"),
            })
        }
        "CrashLoopBackOff" => Some(crash_loop(container, pod)),
        "CreateContainerConfigError" => Some(Problem {
            reason: Reason::SecretMissing,
            message: format!("container {name} of pod {pod} cannot be configured: {message}"),
        }),
        "CreateContainerError" | "RunContainerError" => Some(Problem {
            reason: Reason::CrashLoop,
            message: format!("container {name} of pod {pod} cannot start: {message}"),
        }),
        _ => None,
    }
}

/// A container that has ended often and runs again for a moment: without this a crash loop would seem cured at every try.
fn crashing(container: &Value, pod: &str, now: Timestamp) -> Option<Problem> {
    let ended = &container["lastState"]["terminated"];
    let at: Timestamp = ended["finishedAt"].as_str()?.parse().ok()?;
    let often = container["restartCount"].as_i64().unwrap_or(0) >= CRASHES;
    let failed = ended["exitCode"].as_i64().is_some_and(|code| code != 0);
    let serves = container["ready"].as_bool().unwrap_or(false);
    (often && failed && !serves && now.duration_since(at) < RECENT).then(|| crash_loop(container, pod))
}

fn crash_loop(container: &Value, pod: &str) -> Problem {
    let name = container["name"].as_str().unwrap_or_default();
    let words = last_words(container).unwrap_or_else(|| "it left no message".to_owned());
    Problem {
        reason: Reason::CrashLoop,
        message: format!("container {name} of pod {pod} ends again and again: {words}"),
    }
}

/// The last line that an ended container left behind.
fn last_words(container: &Value) -> Option<String> {
    let ended = [
        &container["state"]["terminated"],
        &container["lastState"]["terminated"],
    ];
    let terminated = ended
        .into_iter()
        .find(|state| state["exitCode"].as_i64().is_some_and(|code| code != 0))?;
    if terminated["reason"] == "OOMKilled" {
        return Some("it needed more memory than its limit".to_owned());
    }
    let message = terminated["message"].as_str().unwrap_or_default();
    let line = message.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let code = terminated["exitCode"].as_i64().unwrap_or_default();
    Some(line.map_or_else(
        || format!("exit code {code}"),
        |line| line.chars().take(300).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    #[rstest]
    #[case::again("2026-11-21T11:59:00Z", 2, false, true)]
    #[case::once("2026-11-21T11:59:00Z", 1, false, false)]
    #[case::long_ago("2026-11-21T11:00:00Z", 9, false, false)]
    #[case::serves("2026-11-21T11:59:00Z", 9, true, false)]
    fn a_crash_loop_is_one_between_its_crashes_too(
        #[case] ended: &str,
        #[case] restarts: i64,
        #[case] ready: bool,
        #[case] expected: bool,
    ) {
        let container = json!({"name": "api", "ready": ready, "restartCount": restarts, "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 1, "message": "no way", "finishedAt": ended}}});
        let pod = json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [container]}});
        assert_eq!(reduce(&pod, now()).problem.is_some(), expected);
    }

    #[test]
    fn running_out_of_memory_is_said_in_words() {
        let container = json!({"name": "api", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}});
        let pod = json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [container]}});
        assert!(
            reduce(&pod, now())
                .problem
                .unwrap()
                .message
                .ends_with("more memory than its limit")
        );
    }

    #[rstest]
    #[case::image(
        json!({"containerStatuses": [{"name": "api", "image": "tanka/api:9.9", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}]}),
        Reason::ImagePullFailed, "image tanka/api:9.9 cannot be pulled"
    )]
    #[case::crash(
        json!({"containerStatuses": [{"name": "api", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1, "message": "first\nbad config\n"}}}]}),
        Reason::CrashLoop, "bad config"
    )]
    #[case::unschedulable(
        json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: insufficient cpu"}]}),
        Reason::Unschedulable, "insufficient cpu"
    )]
    fn problems_are_named(#[case] status: Value, #[case] reason: Reason, #[case] words: &str) {
        let pod = reduce(
            &json!({"metadata": {"name": "acme-api-1"}, "status": status}),
            now(),
        );
        let problem = pod.problem.unwrap();
        assert_eq!(problem.reason, reason);
        assert!(
            problem.message.contains(words) && problem.message.contains("acme-api-1"),
            "{}",
            problem.message
        );
    }

    #[test]
    fn a_pod_that_starts_has_no_problem() {
        let status = json!({"containerStatuses": [{"name": "api", "state": {"waiting": {"reason": "ContainerCreating"}}}]});
        assert_eq!(
            reduce(&json!({"metadata": {"name": "p"}, "status": status}), now()).problem,
            None
        );
    }
}
