//! The Deployment controller, without ReplicaSets in between: one pod more than wanted while a new template rolls out, none less.

use serde_json::{Value, json};

use super::hands::Hands;
use super::sets::owner;
use super::{name, pods_of, ready, revision};
use crate::view::Objects;

pub async fn keep(hands: &Hands, world: &Objects, deployment: &Value) {
    let wanted = usize::try_from(deployment["spec"]["replicas"].as_u64().unwrap_or(1)).unwrap();
    let hash = revision(deployment);
    let pods: Vec<&Value> = pods_of(world, deployment).collect();
    let (new, old): (Vec<&Value>, Vec<&Value>) = pods
        .iter()
        .copied()
        .partition(|pod| pod["metadata"]["labels"]["pod-template-hash"] == hash);
    let room = wanted + usize::from(!old.is_empty());
    let free = (0..).map(|index| format!("{}-{hash}-{index}", name(deployment)));
    let absent = free.filter(|candidate| !new.iter().any(|pod| name(pod) == candidate));
    let missing = wanted
        .saturating_sub(new.len())
        .min(room.saturating_sub(pods.len()));
    for pod_name in absent.take(missing) {
        hands.create("pods", pod(deployment, &pod_name, &hash)).await;
    }
    for surplus in new.iter().skip(wanted) {
        hands.delete("pods", surplus).await;
    }
    let serving = pods.iter().filter(|pod| ready(pod)).count();
    let spare = if new.len() >= wanted {
        old.len()
    } else {
        serving.saturating_sub(wanted)
    };
    let may_go = old.iter().rev().filter(|pod| !ready(pod)).chain(
        old.iter()
            .rev()
            .filter(|pod| ready(pod))
            .take(serving.saturating_sub(wanted).min(spare)),
    );
    for pod in may_go {
        hands.delete("pods", pod).await;
    }
    let ready_count = pods.iter().filter(|pod| ready(pod)).count();
    let status = json!({
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": pods.len(),
        "updatedReplicas": new.len(),
        "readyReplicas": ready_count,
        "availableReplicas": ready_count,
        "unavailableReplicas": pods.len() - ready_count,
    });
    hands.status("deployments", deployment, &status).await;
}

fn pod(deployment: &Value, pod: &str, hash: &str) -> Value {
    let template = &deployment["spec"]["template"];
    let mut object = json!({"metadata": template["metadata"], "spec": template["spec"]});
    object["metadata"]["name"] = json!(pod);
    object["metadata"]["ownerReferences"] = json!([owner(deployment, "Deployment")]);
    object["metadata"]["labels"]["pod-template-hash"] = json!(hash);
    object
}
