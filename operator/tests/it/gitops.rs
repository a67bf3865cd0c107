//! What GitOps tools rely on: a status that is true from the first write on, and a spec that nobody but its author changes.

use std::path::Path;
use std::sync::{Arc, Mutex};

use crds::TankaPlatform;
use crds::kstatus::{Verdict, judge, violations};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::core::{ApiResource, WatchEvent};
use operator::platform::object::Kind;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{World, eventually};

/// Every version of the platforms in a namespace, in order.
#[derive(Clone, Default)]
struct History(Arc<Mutex<Vec<TankaPlatform>>>);

impl History {
    /// Begins before there is a platform.
    async fn start(world: &World) -> Self {
        let history = Self::default();
        let (api, versions) = (world.platforms(), history.clone());
        let from = api
            .list(&ListParams::default())
            .await
            .unwrap()
            .metadata
            .resource_version
            .unwrap();
        let stream = api.watch(&WatchParams::default(), &from).await.unwrap();
        tokio::spawn(stream.for_each(move |event| {
            if let Ok(WatchEvent::Added(platform) | WatchEvent::Modified(platform)) = event {
                versions.0.lock().unwrap().push(platform);
            }
            std::future::ready(())
        }));
        history
    }

    fn versions(&self) -> Vec<TankaPlatform> {
        self.0.lock().unwrap().clone()
    }

    fn verdict(&self) -> Option<Verdict> {
        let versions = self.versions();
        let latest = versions.last()?;
        Some(judge(latest.metadata.generation?, latest.status.as_ref()))
    }
}

/// Every status that was ever written keeps the conventions; before the first there was no child, and time moves only with a status.
fn check(versions: &[TankaPlatform]) {
    let mut before: Option<&TankaPlatform> = None;
    for version in versions {
        let Some(status) = &version.status else {
            assert!(
                before.is_none_or(|before| before.status.is_none()),
                "a status was taken away"
            );
            continue;
        };
        let generation = version.metadata.generation.unwrap();
        assert_eq!(
            violations(generation, status),
            Vec::<String>::new(),
            "{status:#?}"
        );
        let earlier = before.and_then(|before| before.status.as_ref());
        for condition in &status.conditions {
            let same = earlier
                .into_iter()
                .flat_map(|earlier| &earlier.conditions)
                .find(|earlier| earlier.type_ == condition.type_ && earlier.status == condition.status);
            if let Some(same) = same {
                assert_eq!(
                    same.last_transition_time, condition.last_transition_time,
                    "the time of {} moved without a transition",
                    condition.type_
                );
            }
        }
        before = Some(version);
    }
}

#[tokio::test]
async fn every_status_from_the_first_on_keeps_the_conventions() {
    let mut world = World::empty("kstatus").await;
    let history = History::start(&world).await;
    world.start_operator();
    world.create("acme", json!({})).await;
    world.object(Kind::ConfigMap, "acme-api-config").await;
    eventually("a platform that starts to be in progress", || async {
        (history.verdict() == Some(Verdict::InProgress)).then_some(())
    })
    .await;
    // The first status is older than the first object.
    let first = history
        .versions()
        .into_iter()
        .find(|version| version.status.is_some())
        .unwrap();
    let ready = &first.status.as_ref().unwrap().conditions[0];
    assert_eq!((ready.type_.as_str(), ready.status.as_str()), ("Ready", "False"));
    let set = world.object(Kind::StatefulSet, "acme-postgres").await;
    assert!(set.creation_timestamp().unwrap().0 >= ready.last_transition_time.0);

    // A change is in progress at once, whatever the status said before, and is observed.
    let change = Patch::Merge(json!({"spec": {"version": "0.2.0"}}));
    let generation = world
        .platforms()
        .patch("acme", &PatchParams::default(), &change)
        .await
        .unwrap()
        .metadata
        .generation;
    eventually("the change to be observed", || async {
        (history.versions().last()?.status.as_ref()?.observed_generation == generation).then_some(())
    })
    .await;
    check(&history.versions());
}

#[tokio::test]
async fn what_needs_a_person_is_failed_and_recovers() {
    let mut world = World::empty("stalled").await;
    let foreign = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "acme-api-config"}});
    world
        .objects(Kind::ConfigMap)
        .create(&PostParams::default(), &serde_json::from_value(foreign).unwrap())
        .await
        .unwrap();
    let history = History::start(&world).await;
    world.start_operator();
    world.create("acme", json!({})).await;
    eventually("the conflict to be a failure", || async {
        (history.verdict() == Some(Verdict::Failed)).then_some(())
    })
    .await;
    world
        .objects(Kind::ConfigMap)
        .delete("acme-api-config", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the platform to be on its way again", || async {
        (history.verdict() == Some(Verdict::InProgress)).then_some(())
    })
    .await;
    check(&history.versions());
}

fn sample(name: &str, namespace: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../config/samples")
        .join(name);
    let mut sample: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    sample["metadata"]["namespace"] = json!(namespace);
    sample
}

/// What stands in git is applied, read back and applied again: the defaults of the schema, and the operator at work, make no difference.
#[rstest]
#[case::minimal("minimal.yaml")]
#[case::production("production.yaml")]
#[case::external("external.yaml")]
#[tokio::test]
async fn a_sample_that_is_applied_again_changes_nothing(#[case] name: &str) {
    let world = World::new("samples").await;
    let resource = ApiResource::erase::<TankaPlatform>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), &world.namespace, &resource);
    let written = sample(name, &world.namespace);
    let by = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::apply("argocd-controller")
    };
    let first = api.patch("acme", &by, &Patch::Apply(&written)).await.unwrap();
    eventually("a status", || async {
        world.platforms().get("acme").await.unwrap().status
    })
    .await;
    world.calm().await;

    let stored = api.get("acme").await.unwrap();
    assert_eq!(
        stored.data["spec"], first.data["spec"],
        "somebody changed the spec"
    );
    assert_eq!(stored.metadata.generation, Some(1));
    assert_eq!(stored.metadata.labels, first.metadata.labels);
    assert_eq!(stored.metadata.annotations, first.metadata.annotations);
    assert!(stored.finalizers().is_empty(), "{:?}", stored.finalizers());
    let others: Vec<_> = stored
        .managed_fields()
        .iter()
        .filter(|entry| entry.manager.as_deref() != Some("argocd-controller"))
        .collect();
    assert!(
        others
            .iter()
            .all(|entry| entry.subresource.as_deref() == Some("status")),
        "somebody else owns fields outside of the status: {others:#?}"
    );

    let again = api.patch("acme", &by, &Patch::Apply(&written)).await.unwrap();
    assert_eq!(
        again.resource_version(),
        stored.resource_version(),
        "applying it again was a change"
    );
    // What `kubectl get -o yaml` shows is as good as what was written.
    let read_back = json!({"apiVersion": written["apiVersion"], "kind": written["kind"],
        "metadata": {"name": "acme", "namespace": world.namespace}, "spec": stored.data["spec"]});
    let again = api.patch("acme", &by, &Patch::Apply(&read_back)).await.unwrap();
    assert_eq!(
        again.metadata.generation,
        Some(1),
        "what was read back is a change"
    );
}
