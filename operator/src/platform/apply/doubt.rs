//! A second look. Nothing is made, deleted, scaled down or restarted on the word of a cache: the platform is read once more, past all
//! caches, and so is an object that is there; the request carries what was seen, so that the API server refuses it if anything moved meanwhile.

use crds::TankaPlatform;
use kube::api::Api;
use kube::{Client, Error};
use serde_json::Value;

use crate::platform::deadline::bounded;
use crate::platform::object::Kind;
use crate::platform::validate::Platform;

/// Whether the platform still is what a plan was made for. Asked once for each plan, and only if something depends on it.
pub(super) struct Doubt<'a> {
    client: &'a Client,
    platform: &'a Platform,
    answer: Option<bool>,
}

impl<'a> Doubt<'a> {
    pub(super) fn new(client: &'a Client, platform: &'a Platform) -> Self {
        Self {
            client,
            platform,
            answer: None,
        }
    }

    /// Whether to go on: the stored platform has the uid and generation of the plan and is not being deleted.
    pub(super) async fn cleared(&mut self) -> Result<bool, Error> {
        if let Some(answer) = self.answer {
            return Ok(answer);
        }
        let api: Api<TankaPlatform> = Api::namespaced(self.client.clone(), &self.platform.namespace);
        let stored = bounded(api.get_metadata_opt(&self.platform.name)).await?;
        let answer = stored.is_some_and(|stored| {
            stored.metadata.uid.as_ref() == Some(&self.platform.uid)
                && stored.metadata.generation == Some(self.platform.generation)
                && stored.metadata.deletion_timestamp.is_none()
        });
        if !answer {
            tracing::info!(
                platform.name = self.platform.name,
                "the platform has changed since it was looked at: what would make objects or end pods waits for the next look"
            );
        }
        self.answer = Some(answer);
        Ok(answer)
    }
}

/// Whether a change of such an object can end pods.
pub(super) fn ends_pods(kind: Kind) -> bool {
    matches!(kind, Kind::StatefulSet | Kind::Deployment)
}

/// Ties a request to the object as it was seen.
pub(super) fn tie(manifest: &mut Value, seen: &Value) {
    for field in ["uid", "resourceVersion"] {
        manifest["metadata"][field] = seen["metadata"][field].clone();
    }
}

/// Names of the volumes that a new StatefulSet would take over if they existed.
pub(super) fn volumes_of(set: &Value) -> Vec<String> {
    let name = set["metadata"]["name"].as_str().unwrap_or_default();
    let templates = set["spec"]["volumeClaimTemplates"]
        .as_array()
        .into_iter()
        .flatten();
    let replicas = set["spec"]["replicas"].as_i64().unwrap_or(0);
    templates
        .filter_map(|template| template["metadata"]["name"].as_str())
        .flat_map(|volume| (0..replicas).map(move |ordinal| format!("{volume}-{name}-{ordinal}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn volumes_have_the_names_that_the_set_will_look_for() {
        let set = json!({"metadata": {"name": "acme-redis"}, "spec": {"replicas": 2, "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}});
        assert_eq!(volumes_of(&set), ["data-acme-redis-0", "data-acme-redis-1"]);
        assert_eq!(
            volumes_of(&json!({"spec": {"replicas": 2}})),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_request_names_the_object_that_was_seen() {
        let mut manifest = json!({"metadata": {"name": "a"}});
        tie(
            &mut manifest,
            &json!({"metadata": {"uid": "u", "resourceVersion": "3"}}),
        );
        assert_eq!(
            manifest,
            json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "3"}})
        );
    }
}
