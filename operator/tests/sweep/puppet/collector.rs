//! The garbage collector: what has owners, none of which exists, goes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::deleting;
use super::hands::Hands;
use crate::view::Objects;

pub async fn collect(hands: &Hands, world: &Objects) {
    let alive: BTreeSet<&str> = world
        .values()
        .filter_map(|object| object["metadata"]["uid"].as_str())
        .collect();
    for ((plural, _), object) in world {
        if deleting(object) && object["metadata"]["finalizers"].is_array() {
            // Volumes are protected while they are in use; here nobody uses them.
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            hands
                .merge(plural, name, &json!({"metadata": {"finalizers": null}}))
                .await;
        }
        let owners = object["metadata"]["ownerReferences"].as_array();
        let Some(owners) = owners.filter(|owners| !owners.is_empty()) else {
            continue;
        };
        let known = |owner: &Value| owner["uid"].as_str().is_some_and(|uid| alive.contains(uid));
        if deleting(object) || owners.iter().any(known) {
            continue;
        }
        // The view may be behind; the real collector looks once more, too.
        let mut absent = true;
        for owner in owners {
            absent &= !exists(hands, owner).await;
        }
        if absent {
            hands.delete(plural, object).await;
        }
    }
}

async fn exists(hands: &Hands, owner: &Value) -> bool {
    let plural = match owner["kind"].as_str() {
        Some("TankaPlatform") => "tankaplatforms",
        Some("StatefulSet") => "statefulsets",
        Some("Deployment") => "deployments",
        Some("Job") => "jobs",
        _ => return true,
    };
    let live = hands
        .api(plural)
        .get_opt(owner["name"].as_str().unwrap_or_default())
        .await;
    // Whoever cannot be asked may exist.
    live.map_or(true, |live| {
        live.is_some_and(|live| live.metadata.uid.as_deref() == owner["uid"].as_str())
    })
}
