//! Writing status and events: only what differs, and an event only when readiness flips or its reason changes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crds::conditions::Reason;
use crds::names;
use crds::{TankaPlatform, TankaPlatformSpec, TankaPlatformStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::runtime::events::Recorder;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

use super::deadline::bounded;
use super::status::{self, announce};
use crate::metrics::Metrics;
use crate::planted::{self, Bug};

/// Writes status and events.
pub struct Reporter {
    client: Client,
    recorder: Recorder,
    metrics: Metrics,
    /// What was written last, by namespace and name, until the watch has brought it back.
    written: Mutex<HashMap<(String, String), Written>>,
}

/// A status, and the version of the object that it made.
struct Written {
    version: u64,
    status: TankaPlatformStatus,
}

impl Reporter {
    /// A reporter that shares its recorder, since the recorder is what adds repeated events up.
    pub fn new(client: Client, recorder: Recorder, metrics: Metrics) -> Self {
        Self {
            client,
            recorder,
            metrics,
            written: Mutex::default(),
        }
    }

    /// The status as it is: the one that is stored, or, where the object is older than our last write, what was written then.
    /// Otherwise a look that comes before the watch would write over it, with times that never were.
    pub fn latest(&self, stored: &TankaPlatform) -> TankaPlatformStatus {
        self.known(stored).1
    }

    /// The version of the object that is known, and its status.
    fn known(&self, stored: &TankaPlatform) -> (u64, TankaPlatformStatus) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let place = place(stored);
        match written.get(&place) {
            Some(last) if version(stored) < last.version => (last.version, last.status.clone()),
            _ => {
                written.remove(&place);
                (version(stored), stored.status.clone().unwrap_or_default())
            }
        }
    }

    /// Writes that a platform was not looked at to the end, and why.
    ///
    /// # Errors
    /// The API server's.
    pub async fn halted(
        &self,
        stored: &TankaPlatform,
        reason: Reason,
        message: &str,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        let before = self.latest(stored);
        let generation = stored.metadata.generation.unwrap_or_default();
        self.write(stored, &status::halted(reason, message, generation, &before, now))
            .await
    }

    /// The same of an object that is no `TankaPlatform` that this release can read. It is read again without its type, for what
    /// its status says already.
    ///
    /// # Errors
    /// The API server's.
    pub async fn unreadable(&self, metadata: &ObjectMeta, now: Timestamp) -> Result<(), kube::Error> {
        let (namespace, name) = (
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        );
        let api: Api<DynamicObject> = Api::namespaced_with(
            self.client.clone(),
            &namespace,
            &ApiResource::erase::<TankaPlatform>(&()),
        );
        let Some(object) = bounded(api.get_opt(&name)).await? else {
            return Ok(());
        };
        let message = match serde_path_to_error::deserialize::<_, TankaPlatformSpec>(&object.data["spec"]) {
            Ok(_) => "the object cannot be read".to_owned(),
            Err(error) => format!(
                "spec.{} cannot be read: {}. Write it as `kubectl explain tankaplatform.spec` says",
                error.path(),
                error.inner()
            ),
        };
        let mut stored = TankaPlatform::new(&name, TankaPlatformSpec::default());
        stored.metadata = object.metadata;
        stored.status = serde_json::from_value(object.data["status"].clone()).unwrap_or_default();
        self.halted(&stored, Reason::InvalidSpec, &message, now).await
    }

    /// Writes a status if it differs from the one that is stored. It is what was seen of a version of the object: where there is a
    /// newer one by now, nothing is written, since that one is looked at next.
    ///
    /// # Errors
    /// The API server's.
    pub async fn write(
        &self,
        stored: &TankaPlatform,
        status: &TankaPlatformStatus,
    ) -> Result<(), kube::Error> {
        let (version_before, before) = self.known(stored);
        if before == *status {
            return Ok(());
        }
        let namespace = stored.namespace().unwrap_or_default();
        let api: Api<TankaPlatform> = Api::namespaced(self.client.clone(), &namespace);
        let patch = json!({
            "apiVersion": TankaPlatform::api_version(&()),
            "kind": TankaPlatform::kind(&()),
            // Without the uid the patch would make a platform that was deleted meanwhile anew.
            "metadata": {"uid": stored.metadata.uid, "resourceVersion": version_before.to_string()},
            "status": status,
        });
        let parameters = PatchParams::apply(names::STATUS_FIELD_MANAGER).force();
        self.metrics.status_write();
        if planted::is(Bug::StatusBelieved) {
            self.remember(stored, u64::MAX, status);
        }
        let after =
            match bounded(api.patch_status(&stored.name_any(), &parameters, &Patch::Apply(&patch))).await {
                // It is gone, it has changed, or another one has its name.
                Err(kube::Error::Api(refused)) if refused.code == 404 || refused.code == 409 => return Ok(()),
                answer => answer?,
            };
        self.remember(stored, version(&after), status);
        self.announce(stored, &before, status).await;
        Ok(())
    }

    fn remember(&self, stored: &TankaPlatform, version: u64, status: &TankaPlatformStatus) {
        let written = Written {
            version,
            status: status.clone(),
        };
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(place(stored), written);
    }

    /// Publishes what changed. An event that cannot be written is not worth a failure.
    async fn announce(
        &self,
        stored: &TankaPlatform,
        before: &TankaPlatformStatus,
        status: &TankaPlatformStatus,
    ) {
        for event in announce::events(before, status) {
            if let Err(error) = bounded(self.recorder.publish(&event, &stored.object_ref(&()))).await {
                tracing::warn!(%error, "an event could not be published");
            }
        }
    }
}

fn place(stored: &TankaPlatform) -> (String, String) {
    (stored.namespace().unwrap_or_default(), stored.name_any())
}

/// Versions of one object can be compared: they are numbers that grow.
fn version(stored: &TankaPlatform) -> u64 {
    stored
        .resource_version()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}
