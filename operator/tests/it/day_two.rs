//! What the operator asks for after day one, as far as an API server without nodes can show it: volumes, replacement of
//! StatefulSets, and Patroni's state. The rest needs pods and is in the end-to-end scenarios.

use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use operator::platform::object::Kind;
use serde_json::{Value, json};

use crate::harness::{World, eventually};

/// An object of any kind, applied.
async fn put(world: &World, kind: &str, plural: &str, object: Value) {
    let version = object["apiVersion"].as_str().unwrap().to_owned();
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let api: Api<DynamicObject> = Api::all_with(world.client.clone(), &resource);
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let parameters = PatchParams::apply("tests").force();
    api.patch(&name, &parameters, &Patch::Apply(object))
        .await
        .unwrap();
}

/// A StorageClass of this test's own, and volumes for three claims of it.
async fn volumes(world: &World, expandable: bool) -> String {
    let class = format!("{}-class", world.namespace);
    put(world, "StorageClass", "storageclasses", json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class},
        "provisioner": "tests.tanka.dev/none", "allowVolumeExpansion": expandable, "volumeBindingMode": "Immediate",
    }))
    .await;
    for ordinal in 0..3 {
        put(world, "PersistentVolume", "persistentvolumes", json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("{class}-{ordinal}")},
            "spec": {
                "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "persistentVolumeReclaimPolicy": "Delete", "hostPath": {"path": format!("/tmp/{class}-{ordinal}")},
            },
        }))
        .await;
    }
    class
}

fn storage(class: &str, size: &str) -> Value {
    json!({"postgres": {"managed": {"storage": {"size": size, "storageClassName": class}}}})
}

async fn bound(world: &World) {
    eventually("three claims to be bound", || async {
        let claims = world
            .objects(Kind::PersistentVolumeClaim)
            .list(&ListParams::default())
            .await
            .unwrap();
        let bound = claims
            .items
            .iter()
            .filter(|claim| claim.data["status"]["phase"] == "Bound");
        (bound.count() == 3).then_some(())
    })
    .await;
}

async fn change(world: &World, spec: Value) {
    world
        .platforms()
        .patch(
            "acme",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": spec})),
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn volumes_grow_and_the_set_is_made_again_without_its_pods() {
    let world = World::new("grow").await;
    let class = volumes(&world, true).await;
    world.create("acme", storage(&class, "10Gi")).await;
    bound(&world).await;
    let set = world.object(Kind::StatefulSet, "acme-postgres").await;
    let pod = world.object(Kind::Pod, "acme-postgres-0").await;
    change(&world, storage(&class, "20Gi")).await;
    let again = eventually("the set to ask for larger volumes", || async {
        let again = world
            .objects(Kind::StatefulSet)
            .get_opt("acme-postgres")
            .await
            .unwrap()?;
        let template = &again.data["spec"]["volumeClaimTemplates"][0];
        (template["spec"]["resources"]["requests"]["storage"] == "20Gi").then_some(again)
    })
    .await;
    assert_ne!(again.uid(), set.uid(), "a template cannot be changed");
    for ordinal in 0..3 {
        let name = format!("data-acme-postgres-{ordinal}");
        let claim = world.object(Kind::PersistentVolumeClaim, &name).await;
        assert_eq!(
            claim.data["spec"]["resources"]["requests"]["storage"], "20Gi",
            "{name}"
        );
    }
    // The new set takes the pods over.
    let adopted = eventually("the pod to belong to the new set", || async {
        let pod = world
            .objects(Kind::Pod)
            .get_opt("acme-postgres-0")
            .await
            .unwrap()?;
        let owner = pod.owner_references().first()?.uid.clone();
        (Some(owner) == again.uid()).then_some(pod)
    })
    .await;
    assert_eq!(adopted.uid(), pod.uid(), "the pod was replaced");
    let before = world.calm().await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(world.writes().await, before);
}

#[tokio::test]
async fn a_class_that_cannot_grow_is_told_with_the_name_of_the_claim() {
    let world = World::new("fixed").await;
    let class = volumes(&world, false).await;
    world.create("acme", storage(&class, "10Gi")).await;
    bound(&world).await;
    let set = world.object(Kind::StatefulSet, "acme-postgres").await;
    change(&world, storage(&class, "20Gi")).await;
    let condition = world
        .condition("acme", "DatabaseReady", "VolumeNotExpandable")
        .await;
    assert!(
        condition.message.contains("data-acme-postgres-") && condition.message.contains(&class),
        "{}",
        condition.message
    );
    world.condition("acme", "Stalled", "VolumeNotExpandable").await;
    // Other changes of the set still arrive.
    change(
        &world,
        json!({"postgres": {"managed": {"resources": {"requests": {"cpu": "150m"}}}}}),
    )
    .await;
    let changed = eventually("the resources to reach the set", || async {
        let set = world.object(Kind::StatefulSet, "acme-postgres").await;
        let container = &set.data["spec"]["template"]["spec"]["containers"][0];
        (container["resources"]["requests"]["cpu"] == "150m").then_some(set)
    })
    .await;
    assert_eq!(changed.uid(), set.uid());
}

/// A `ConfigMap` as Patroni leaves it behind.
async fn left_behind(world: &World, name: &str) -> DynamicObject {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "labels": {"tanka.dev/postgres-cluster": "acme-postgres"},
            "annotations": {"initialize": "7000000000000000000"},
        },
    });
    world
        .objects(Kind::ConfigMap)
        .create(&PostParams::default(), &serde_json::from_value(map).unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn state_of_volumes_that_are_gone_is_discarded_before_a_new_platform_starts() {
    let world = World::new("stale").await;
    left_behind(&world, "acme-postgres-config").await;
    world.create("acme", json!({})).await;
    world.object(Kind::StatefulSet, "acme-postgres").await;
    let map = world
        .objects(Kind::ConfigMap)
        .get_opt("acme-postgres-config")
        .await
        .unwrap();
    assert!(
        map.is_none(),
        "the set exists, and so does the old state: {map:?}"
    );
}

#[tokio::test]
async fn state_of_volumes_that_stayed_is_kept() {
    let world = World::new("kept").await;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data-acme-postgres-0", "labels": {
            "tanka.dev/platform": "acme", "app.kubernetes.io/managed-by": "tanka-operator",
        }},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}},
    });
    world
        .objects(Kind::PersistentVolumeClaim)
        .create(&PostParams::default(), &serde_json::from_value(claim).unwrap())
        .await
        .unwrap();
    let map = left_behind(&world, "acme-postgres-config").await;
    world.create("acme", json!({})).await;
    world.object(Kind::StatefulSet, "acme-postgres").await;
    let kept = world.object(Kind::ConfigMap, "acme-postgres-config").await;
    assert_eq!(kept.uid(), map.uid());
}
