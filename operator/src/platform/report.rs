//! Writing status and events: only what differs, and an event only when readiness flips or its reason changes.

use crds::conditions::ConditionType;
use crds::names;
use crds::{TankaPlatform, TankaPlatformStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

use super::deadline::bounded;
use super::status;
use crate::metrics::Metrics;

/// Writes status and events.
pub struct Reporter {
    client: Client,
    recorder: Recorder,
    metrics: Metrics,
}

impl Reporter {
    /// A reporter that shares its recorder, since the recorder is what adds repeated events up.
    pub fn new(client: Client, recorder: Recorder, metrics: Metrics) -> Self {
        Self {
            client,
            recorder,
            metrics,
        }
    }

    /// Writes the status of a platform whose spec contradicts itself.
    ///
    /// # Errors
    /// The API server's.
    pub async fn invalid(
        &self,
        stored: &TankaPlatform,
        message: &str,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        let before = stored.status.clone().unwrap_or_default();
        let generation = stored.metadata.generation.unwrap_or_default();
        self.write(stored, &status::invalid(message, generation, &before, now))
            .await
    }

    /// Writes a status if it differs from the one that is stored.
    ///
    /// # Errors
    /// The API server's.
    pub async fn write(
        &self,
        stored: &TankaPlatform,
        status: &TankaPlatformStatus,
    ) -> Result<(), kube::Error> {
        if stored.status.as_ref() == Some(status) {
            return Ok(());
        }
        let namespace = stored.namespace().unwrap_or_default();
        let api: Api<TankaPlatform> = Api::namespaced(self.client.clone(), &namespace);
        let patch = json!({
            "apiVersion": TankaPlatform::api_version(&()),
            "kind": TankaPlatform::kind(&()),
            "status": status,
        });
        let parameters = PatchParams::apply(names::STATUS_FIELD_MANAGER).force();
        self.metrics.status_write();
        bounded(api.patch_status(&stored.name_any(), &parameters, &Patch::Apply(&patch))).await?;
        self.announce(stored, status).await;
        Ok(())
    }

    /// Publishes a change of readiness. An event that cannot be written is not worth a failure.
    async fn announce(&self, stored: &TankaPlatform, status: &TankaPlatformStatus) {
        let of = |conditions: &[Condition]| {
            conditions
                .iter()
                .find(|c| c.type_ == ConditionType::Ready.as_str())
                .cloned()
        };
        let before = stored.status.as_ref().and_then(|status| of(&status.conditions));
        let Some(after) = of(&status.conditions) else {
            return;
        };
        if before
            .as_ref()
            .is_some_and(|before| before.status == after.status && before.reason == after.reason)
        {
            return;
        }
        let worked = before.is_some_and(|before| before.status == "True");
        let event = Event {
            // A platform that is on its way is no reason to worry; one that stopped working, or needs somebody, is.
            type_: if after.status == "True" || !(worked || status::stalled(&status.conditions)) {
                EventType::Normal
            } else {
                EventType::Warning
            },
            reason: after.reason,
            note: Some(after.message),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &stored.object_ref(&())).await {
            tracing::warn!(%error, "an event could not be published");
        }
    }
}
