//! What people, controllers and chance do to a platform, and what it says then.

use std::sync::Arc;

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::Stage;
use crate::incarnation::PLATFORM;
use crate::view::resource;
use crate::workload::Deed;

impl Stage<'_> {
    pub(super) fn api(&self, plural: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.lab.client.clone(), &self.namespace, &resource(plural))
    }

    pub(super) async fn act(&self, deed: &Deed) -> Result<(), String> {
        let outcome = match deed {
            Deed::Gone => {
                let gone = || self.platform().is_none().then_some(());
                return self.wait(gone, || "the platform is still there".to_owned()).await;
            }
            Deed::Await(kind, reason) => {
                let says = || self.says(kind, reason).then_some(());
                let complaint = || format!("{kind} never says {reason}: {}", self.words());
                return self.wait(says, complaint).await;
            }
            Deed::Change(spec) => self.change(spec).await,
            deed => self.write(deed).await,
        };
        outcome.map_err(|error| format!("{deed:?} was refused: {error}"))
    }

    /// Changes the spec. What is waited for next is waited for after the change, so it has to be seen first.
    async fn change(&self, spec: &Value) -> Result<(), kube::Error> {
        let platforms = self.api("tankaplatforms");
        let patch = Patch::Merge(json!({"spec": spec}));
        let changed = platforms.patch(PLATFORM, &PatchParams::default(), &patch).await?;
        let shows = || {
            let seen = self.platform()?["metadata"]["generation"].as_i64();
            (seen >= changed.metadata.generation).then_some(())
        };
        let seen = self.wait(shows, || "the change is not to be seen".to_owned());
        seen.await.map_err(|words| kube::Error::Service(words.into()))
    }

    async fn write(&self, deed: &Deed) -> Result<(), kube::Error> {
        let platforms = self.api("tankaplatforms");
        let someone = PatchParams::default();
        match deed {
            Deed::Create(spec) => {
                let object = json!({"apiVersion": "tanka.dev/v1alpha1", "kind": "TankaPlatform", "metadata": {"name": PLATFORM}, "spec": spec});
                let object = serde_json::from_value(object).unwrap();
                platforms.create(&PostParams::default(), &object).await?;
            }
            Deed::Delete => {
                platforms.delete(PLATFORM, &DeleteParams::default()).await?;
            }
            Deed::Drift(plural, name, patch) => {
                self.api(plural)
                    .patch(name, &someone, &Patch::Merge(patch))
                    .await?;
            }
            Deed::Lose(plural, name) => {
                self.api(plural).delete(name, &DeleteParams::background()).await?;
            }
            Deed::Foreign(plural, object) => {
                let object = serde_json::from_value(object.clone()).unwrap();
                self.api(plural).create(&PostParams::default(), &object).await?;
            }
            Deed::Scale(replicas) => {
                let scaler = PatchParams {
                    field_manager: Some("kube-controller-manager".to_owned()),
                    ..PatchParams::default()
                };
                let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
                self.api("deployments")
                    .patch_scale("acme-api", &scaler, &patch)
                    .await?;
            }
            Deed::Change(_) | Deed::Gone | Deed::Await(..) => {}
        }
        Ok(())
    }

    pub(super) fn platform(&self) -> Option<Arc<Value>> {
        let objects = self.lab.view.objects(&self.namespace);
        objects.get(&("tankaplatforms", PLATFORM.to_owned())).cloned()
    }

    pub(super) fn says(&self, kind: &str, reason: &str) -> bool {
        let Some(platform) = self.platform() else {
            return false;
        };
        let current = platform["status"]["observedGeneration"] == platform["metadata"]["generation"];
        let conditions = platform["status"]["conditions"].as_array();
        current
            && conditions.is_some_and(|all| all.iter().any(|c| c["type"] == kind && c["reason"] == reason))
    }

    /// What the conditions say, for people.
    pub(super) fn words(&self) -> String {
        let Some(platform) = self.platform() else {
            return "there is no platform".to_owned();
        };
        let conditions = platform["status"]["conditions"].as_array().into_iter().flatten();
        conditions
            .map(|c| {
                format!(
                    "{}={} {}",
                    c["type"].as_str().unwrap_or(""),
                    c["status"],
                    c["message"]
                )
            })
            .collect::<Vec<_>>()
            .join("; ")
    }

    pub(super) async fn ready(&self) -> Result<(), String> {
        self.wait(
            || self.says("Ready", "AllReady").then_some(()),
            || format!("never ready: {}", self.words()),
        )
        .await
    }
}
