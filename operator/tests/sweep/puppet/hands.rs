//! The puppet's writes. What is refused is tried again at the next change: a controller's work is never done.

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use crate::view::resource;

/// Writes in one namespace.
pub struct Hands {
    client: Client,
    namespace: String,
}

impl Hands {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
        }
    }

    pub fn api(&self, plural: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(plural))
    }

    pub async fn create(&self, plural: &str, object: Value) {
        let object = serde_json::from_value(object).unwrap();
        let made = self.api(plural).create(&PostParams::default(), &object).await;
        complain(plural, made.map(|_| ()));
    }

    pub async fn merge(&self, plural: &str, name: &str, patch: &Value) {
        let patched = self
            .api(plural)
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        complain(plural, patched.map(|_| ()));
    }

    /// Writes a status, if it says anything new.
    pub async fn status(&self, plural: &str, object: &Value, status: &Value) {
        let same = status
            .as_object()
            .unwrap()
            .iter()
            .all(|(field, value)| object["status"][field] == *value);
        if same {
            return;
        }
        let name = object["metadata"]["name"].as_str().unwrap();
        let patch = json!({"status": status});
        let patched = self
            .api(plural)
            .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        complain(plural, patched.map(|_| ()));
    }

    pub async fn delete(&self, plural: &str, object: &Value) {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object["metadata"]["uid"].as_str().map(str::to_owned),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        let name = object["metadata"]["name"].as_str().unwrap();
        let deleted = self.api(plural).delete(name, &parameters).await;
        complain(plural, deleted.map(|_| ()));
    }
}

/// The view is always a little behind, so a name that is taken or gone is nothing to talk about.
fn complain(plural: &str, outcome: Result<(), kube::Error>) {
    match outcome {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => eprintln!("the puppet could not write {plural}: {error}"),
        Ok(()) => {}
    }
}
