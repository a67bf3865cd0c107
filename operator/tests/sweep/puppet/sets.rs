//! The StatefulSet controller: ordinals, volumes, and updates from the highest ordinal down, each when all others are ready.

use serde_json::{Value, json};

use super::hands::Hands;
use super::{name, owned_by, pods_of, ready, revision};
use crate::view::Objects;

pub async fn keep(hands: &Hands, world: &Objects, set: &Value) {
    let wanted = set["spec"]["replicas"].as_u64().unwrap_or(1);
    let update = format!("{}-{}", name(set), revision(set));
    let pods: Vec<&Value> = pods_of(world, set).collect();
    let find = |ordinal: u64| {
        let pod = format!("{}-{ordinal}", name(set));
        pods.iter().copied().find(|candidate| name(candidate) == pod)
    };
    let account = set["spec"]["template"]["spec"]["serviceAccountName"].as_str();
    // A real API server refuses pods whose account is not there.
    let admitted = account.is_none_or(|account| world.contains_key(&("serviceaccounts", account.to_owned())));
    for ordinal in 0..wanted {
        volumes(hands, world, set, ordinal).await;
        if admitted && find(ordinal).is_none() {
            hands.create("pods", pod(set, ordinal, &update)).await;
        }
    }
    for surplus in pods.iter().filter(|pod| ordinal(pod) >= wanted) {
        hands.delete("pods", surplus).await;
    }
    let kept: Vec<&Value> = pods.iter().copied().filter(|pod| ordinal(pod) < wanted).collect();
    let current = |pod: &Value| pod["metadata"]["labels"]["controller-revision-hash"] == update;
    let complete = kept.len() as u64 == wanted;
    if set["spec"]["updateStrategy"]["type"] != "OnDelete" && complete {
        let outdated = kept
            .iter()
            .filter(|pod| !current(pod))
            .max_by_key(|pod| ordinal(pod));
        if let Some(outdated) = outdated
            && (kept.iter().all(|pod| ready(pod)) || !ready(outdated))
        {
            hands.delete("pods", outdated).await;
        }
    }
    let updated = kept.iter().filter(|pod| current(pod)).count();
    let before = set["status"]["currentRevision"].as_str().unwrap_or(&update);
    let done = complete && updated as u64 == wanted;
    let status = json!({
        "observedGeneration": set["metadata"]["generation"],
        "replicas": pods.len(),
        "readyReplicas": kept.iter().filter(|pod| ready(pod)).count(),
        "availableReplicas": kept.iter().filter(|pod| ready(pod)).count(),
        "currentReplicas": if done { updated } else { kept.len() - updated },
        "updatedReplicas": updated,
        "currentRevision": if done { update.as_str() } else { before },
        "updateRevision": update,
    });
    hands.status("statefulsets", set, &status).await;
}

fn ordinal(pod: &Value) -> u64 {
    let digits = name(pod).rsplit('-').next().unwrap_or_default();
    digits.parse().unwrap_or(u64::MAX)
}

/// The volumes of one member. They belong to the set exactly while it says that they go with it.
async fn volumes(hands: &Hands, world: &Objects, set: &Value, ordinal: u64) {
    let goes = set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete";
    for template in set["spec"]["volumeClaimTemplates"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let claim = format!("{}-{}-{ordinal}", name(template), name(set));
        let owners = if goes {
            json!([owner(set, "StatefulSet")])
        } else {
            json!([])
        };
        match world.get(&("persistentvolumeclaims", claim.clone())) {
            None => {
                let mut object = template.clone();
                object["metadata"]["name"] = json!(claim);
                object["metadata"]["ownerReferences"] = owners;
                object["status"] = Value::Null;
                hands.create("persistentvolumeclaims", object).await;
            }
            Some(live) if owned_by(live, &set["metadata"]["uid"]) != goes => {
                let patch = json!({"metadata": {"ownerReferences": owners}});
                hands.merge("persistentvolumeclaims", &claim, &patch).await;
            }
            Some(live) if live["status"]["phase"] != "Bound" => {
                let capacity = &live["spec"]["resources"]["requests"];
                let status =
                    json!({"phase": "Bound", "capacity": capacity, "accessModes": ["ReadWriteOnce"]});
                hands.status("persistentvolumeclaims", live, &status).await;
            }
            // A volume that may grow does, at once.
            Some(live) if live["status"]["capacity"] != live["spec"]["resources"]["requests"] => {
                let status = json!({"capacity": live["spec"]["resources"]["requests"]});
                hands.status("persistentvolumeclaims", live, &status).await;
            }
            Some(_) => {}
        }
    }
}

pub fn owner(object: &Value, kind: &str) -> Value {
    let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    json!({
        "apiVersion": version, "kind": kind, "name": name(object), "uid": object["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    })
}

fn pod(set: &Value, ordinal: u64, revision: &str) -> Value {
    let template = &set["spec"]["template"];
    let pod = format!("{}-{ordinal}", name(set));
    let mut object = json!({"metadata": template["metadata"], "spec": template["spec"]});
    object["metadata"]["name"] = json!(pod);
    object["metadata"]["ownerReferences"] = json!([owner(set, "StatefulSet")]);
    object["metadata"]["labels"]["controller-revision-hash"] = json!(revision);
    object["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] = json!(pod);
    object["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = json!(ordinal.to_string());
    let claims = set["spec"]["volumeClaimTemplates"]
        .as_array()
        .into_iter()
        .flatten();
    for template in claims {
        let claim = format!("{}-{pod}", name(template));
        let volume = json!({"name": name(template), "persistentVolumeClaim": {"claimName": claim}});
        if object["spec"]["volumes"].is_null() {
            object["spec"]["volumes"] = json!([]);
        }
        object["spec"]["volumes"].as_array_mut().unwrap().push(volume);
    }
    object
}
