//! Carrying a plan out: create Secrets once, apply what differs, delete what has no place. Nothing to do means no request.

mod doubt;
mod refusals;
mod secrets;
mod stranger;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use crds::names::{self, Component};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Client, Error};
use serde_json::{Value, json};

use self::doubt::Doubt;
use self::refusals::Refusals;
use super::deadline::bounded;
use super::diff::project;
use super::object::{Key, Kind, Object, is_ours};
use super::observe::{Rejection, World};
use super::plan::Plan;
use super::plan::nudge;
use super::plan::prune::Deletion;
use super::plan::scaling::SEED_MANAGER;
use super::plan::tenure::Tenure;
use super::validate::Platform;
use crate::metrics::{Cause, Metrics};
use crate::planted::{self, Bug};

/// Carries plans out and remembers what the API server made of each object.
pub struct Applier {
    client: Client,
    metrics: Metrics,
    /// What an object's fields looked like after it was applied, where the API server writes them differently (`1000m` as `1`).
    accepted: Mutex<HashMap<Place, Accepted>>,
    refusals: Refusals<Place>,
    /// Values of Secrets that were seen, so that one that is deleted comes back with credentials that work.
    credentials: Mutex<HashMap<(String, String), BTreeMap<String, String>>>,
}

/// Namespace, platform and object.
type Place = (String, String, Key);

struct Accepted {
    sent: Value,
    stored: Value,
}

/// What could not be done, by object.
pub type Rejections = BTreeMap<Key, Rejection>;

impl Applier {
    /// An applier that writes through `client`.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self {
            client,
            metrics,
            accepted: Mutex::default(),
            refusals: Refusals::default(),
            credentials: Mutex::default(),
        }
    }

    /// Carries out a plan as far as possible: one object that is refused does not stop the others.
    ///
    /// # Errors
    /// Only where the API server cannot be reached or failed itself; refusals are answers.
    #[tracing::instrument(skip_all)]
    pub async fn apply(
        &self,
        platform: &Platform,
        world: &mut World,
        plan: Plan,
    ) -> Result<Rejections, Error> {
        let mut rejections = Rejections::new();
        let mut doubt = Doubt::new(&self.client, platform);
        for request in &plan.secrets {
            if !doubt.cleared().await? {
                break;
            }
            if let Some(rejection) = self.create_secret(platform, world, request).await? {
                rejections.insert(Key::new(Kind::Secret, &request.name), rejection);
            }
        }
        if let Some(replicas) = plan.seed_replicas {
            self.seed_replicas(platform, world, &plan, replicas, &mut doubt)
                .await?;
        }
        for object in &plan.objects {
            match self.apply_object(platform, world, object, &mut doubt).await? {
                // The status that is written next must not speak of the object as it was before.
                Ok(Some(known)) => {
                    let seen = world.objects.insert(object.key.clone(), known);
                    let known = &world.objects[&object.key];
                    if seen.is_none_or(|seen| revision(&seen) != revision(known)) {
                        world.moved.insert(object.key.clone());
                    }
                }
                Ok(None) => {
                    world.moved.insert(object.key.clone());
                }
                Err((key, rejection)) => {
                    world.moved.insert(object.key.clone());
                    tracing::warn!(platform.name, platform.namespace, object = %key, ?rejection, "an object was rejected");
                    rejections.insert(key, rejection);
                }
            }
        }
        for tenure in &plan.tenures {
            if doubt.cleared().await? {
                self.change_owners(platform, tenure).await?;
            }
        }
        for key in &plan.nudges {
            self.remind(platform, key, world).await?;
        }
        for deletion in &plan.deletions {
            if doubt.cleared().await? {
                self.delete(platform, deletion).await?;
            }
        }
        Ok(rejections)
    }

    fn api(&self, platform: &Platform, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &platform.namespace, &kind.api_resource())
    }

    /// Leaves `spec.replicas` with a field manager of its own. A Deployment that does not exist yet is created with it.
    async fn seed_replicas(
        &self,
        platform: &Platform,
        world: &World,
        plan: &Plan,
        replicas: i32,
        doubt: &mut Doubt<'_>,
    ) -> Result<(), Error> {
        let name = names::component(&platform.name, Component::Api);
        let key = Key::new(Kind::Deployment, &name);
        let Some(wanted) = plan.objects.iter().find(|object| object.key == key) else {
            return Ok(());
        };
        let mut manifest = if world.objects.contains_key(&key) {
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": platform.namespace}})
        } else {
            wanted.manifest.clone()
        };
        manifest["spec"]["replicas"] = json!(replicas);
        let api = self.api(platform, Kind::Deployment);
        let made = world.objects.contains_key(&key);
        if !made && (!doubt.cleared().await? || bounded(api.get_opt(&name)).await?.is_some()) {
            // The cache is behind, or the name is somebody else's: the next look decides.
            return Ok(());
        }
        self.metrics.write(Kind::Deployment, Cause::HandOver);
        match bounded(api.patch(
            &name,
            &PatchParams::apply(SEED_MANAGER).force(),
            &Patch::Apply(&manifest),
        ))
        .await
        {
            Err(Error::Api(status)) if status.code < 500 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Answers with the object as it is known to be afterwards, which the cache may not show yet.
    async fn apply_object(
        &self,
        platform: &Platform,
        world: &World,
        object: &Object,
        doubt: &mut Doubt<'_>,
    ) -> Result<Result<Option<Value>, (Key, Rejection)>, Error> {
        let cached = world.objects.get(&object.key);
        let mut live = match cached {
            Some(live) => Some(live.clone()),
            // The cache holds only what carries our label, and may be behind.
            None => match self.read(platform, &object.key).await {
                // An optional API that was taken away a moment ago: discovery will say so at one of the next looks.
                Err(Error::Api(status)) if status.code == 404 => {
                    return Ok(Err((
                        object.key.clone(),
                        Rejection::Refused(status.message.clone()),
                    )));
                }
                live => live?,
            },
        };
        if cached.is_some()
            && doubt::ends_pods(object.key.kind)
            && !self.is_done(platform, object, live.as_ref())
        {
            if !doubt.cleared().await? {
                return Ok(Ok(None));
            }
            live = self.read(platform, &object.key).await?;
        }
        if self.is_done(platform, object, live.as_ref()) {
            return Ok(Ok(live));
        }
        let mut manifest = object.manifest.clone();
        match &live {
            Some(live) if !is_ours(live, &platform.name, &platform.uid) => {
                return Ok(Err((object.key.clone(), Rejection::Foreign)));
            }
            Some(live) if doubt::ends_pods(object.key.kind) => doubt::tie(&mut manifest, live),
            Some(_) => {}
            // Nothing is made for a platform that is gone.
            None if !doubt.cleared().await? => return Ok(Ok(None)),
            None => {
                if let Some(volume) = self.foreign_volume(platform, object).await? {
                    return Ok(Err((volume, Rejection::Foreign)));
                }
            }
        }
        self.send_unless_refused(platform, world, object, &manifest, live.as_ref())
            .await
    }

    /// Sends it, unless the same was refused a moment ago.
    async fn send_unless_refused(
        &self,
        platform: &Platform,
        world: &World,
        object: &Object,
        manifest: &Value,
        live: Option<&Value>,
    ) -> Result<Result<Option<Value>, (Key, Rejection)>, Error> {
        let place = place(platform, object);
        let version = live.and_then(|live| live["metadata"]["resourceVersion"].as_str());
        if let Some(words) = self
            .refusals
            .standing(&place, &object.manifest, version, world.now)
        {
            return Ok(Err((object.key.clone(), Rejection::Refused(words))));
        }
        let cause = if live.is_some() {
            Cause::Differs
        } else {
            Cause::Missing
        };
        let outcome = self.send(platform, object, manifest, cause, live).await?;
        if let Err((_, Rejection::Refused(words))) = &outcome {
            self.refusals
                .note(place, &object.manifest, version, words, world.now);
        } else {
            self.refusals.clear(&place);
        }
        Ok(outcome)
    }

    async fn send(
        &self,
        platform: &Platform,
        object: &Object,
        manifest: &Value,
        cause: Cause,
        live: Option<&Value>,
    ) -> Result<Result<Option<Value>, (Key, Rejection)>, Error> {
        let api = self.api(platform, object.key.kind);
        let name = &object.key.name;
        self.metrics.write(object.key.kind, cause);
        let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
        match bounded(api.patch(name, &parameters, &Patch::Apply(manifest))).await {
            Ok(stored) => {
                let stored = serde_json::to_value(stored).map_err(Error::SerdeError)?;
                self.remember(platform, object, &stored);
                tracing::info!(platform.name, platform.namespace, object = %object.key, "applied");
                Ok(Ok(Some(stored)))
            }
            // It has changed since it was seen: the next look decides.
            Err(Error::Api(status)) if status.code == 409 => Ok(Ok(None)),
            Err(Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                if status.code == 422
                    && let Some(live) = live
                    && self.take_out_strangers(platform, object, live).await?
                {
                    return Ok(Ok(None));
                }
                let words = status.message.clone();
                Ok(Err((object.key.clone(), Rejection::Refused(words))))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads an object past all caches.
    async fn read(&self, platform: &Platform, key: &Key) -> Result<Option<Value>, Error> {
        let live = bounded(self.api(platform, key.kind).get_opt(&key.name)).await?;
        Ok(live.and_then(|live| serde_json::to_value(live).ok()))
    }

    /// Whether nothing is to be done: it is ours and what it should be.
    fn is_done(&self, platform: &Platform, object: &Object, live: Option<&Value>) -> bool {
        live.is_some_and(|live| {
            is_ours(live, &platform.name, &platform.uid) && self.is_current(platform, object, live)
        })
    }

    /// A volume that a new StatefulSet would take over although it belongs to somebody else.
    async fn foreign_volume(&self, platform: &Platform, object: &Object) -> Result<Option<Key>, Error> {
        if object.key.kind != Kind::StatefulSet {
            return Ok(None);
        }
        for name in doubt::volumes_of(&object.manifest) {
            let key = Key::new(Kind::PersistentVolumeClaim, name);
            let live = self.read(platform, &key).await?;
            if live.is_some_and(|live| !is_ours(&live, &platform.name, &platform.uid)) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Has the controller of an object look at it again.
    async fn remind(&self, platform: &Platform, key: &Key, world: &World) -> Result<(), Error> {
        let now = world.now.round(jiff::Unit::Second).unwrap_or(world.now);
        let patch = json!({"metadata": {"annotations": {nudge::ANNOTATION: now.to_string()}}});
        let parameters = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.metrics.write(key.kind, Cause::Reminder);
        match bounded(
            self.api(platform, key.kind)
                .patch(&key.name, &parameters, &Patch::Merge(&patch)),
        )
        .await
        {
            Err(Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Hands an object over to other owners, if it still is as it was seen.
    async fn change_owners(&self, platform: &Platform, tenure: &Tenure) -> Result<(), Error> {
        let patch = json!({"metadata": {
            "uid": tenure.uid,
            "resourceVersion": tenure.resource_version,
            "ownerReferences": tenure.owners,
        }});
        let parameters = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.metrics.write(tenure.key.kind, Cause::Differs);
        tracing::info!(platform.name, platform.namespace, object = %tenure.key, owners = tenure.owners.len(), "owners changed with the deletion policy");
        let api = self.api(platform, tenure.key.kind);
        match bounded(api.patch(&tenure.key.name, &parameters, &Patch::Merge(&patch))).await {
            Err(Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Whether the live object has what we would send, as we write it or as the API server wrote it when we sent it last.
    fn is_current(&self, platform: &Platform, object: &Object, live: &Value) -> bool {
        let projection = project(live, &object.manifest);
        if projection == object.manifest {
            return true;
        }
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let known = accepted.get(&place(platform, object));
        known.is_some_and(|known| known.sent == object.manifest && known.stored == projection)
    }

    fn remember(&self, platform: &Platform, object: &Object, stored: &Value) {
        let projection = project(stored, &object.manifest);
        let key = place(platform, object);
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if projection == object.manifest {
            accepted.remove(&key);
        } else {
            accepted.insert(
                key,
                Accepted {
                    sent: object.manifest.clone(),
                    stored: projection,
                },
            );
        }
    }

    async fn delete(&self, platform: &Platform, deletion: &Deletion) -> Result<(), Error> {
        let Some(live) = self.read(platform, &deletion.key).await? else {
            return Ok(());
        };
        let metadata = &live["metadata"];
        if metadata["uid"] != deletion.uid
            || metadata.get("deletionTimestamp").is_some()
            || !is_ours(&live, &platform.name, &platform.uid)
        {
            return Ok(());
        }
        let preconditions = Preconditions {
            uid: Some(deletion.uid.clone()),
            resource_version: metadata["resourceVersion"].as_str().map(str::to_owned),
        };
        let parameters = DeleteParams {
            preconditions: Some(preconditions).filter(|_| !planted::is(Bug::DeletionUntied)),
            ..DeleteParams::background()
        };
        self.metrics.write(deletion.key.kind, Cause::Obsolete);
        tracing::info!(platform.name, platform.namespace, object = %deletion.key, "deleted, it has no place any more");
        match bounded(
            self.api(platform, deletion.key.kind)
                .delete(&deletion.key.name, &parameters),
        )
        .await
        {
            Err(Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// What tells which pods of an object are outdated.
fn revision(object: &Value) -> (&Value, &Value) {
    (
        &object["metadata"]["generation"],
        &object["status"]["updateRevision"],
    )
}

/// By names, not by uid: a platform that is made again takes the place of the one before, so nothing grows without end.
fn place(platform: &Platform, object: &Object) -> Place {
    (
        platform.namespace.clone(),
        platform.name.clone(),
        object.key.clone(),
    )
}
