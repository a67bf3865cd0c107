//! Life and death of a platform: who owns what outlives its pods, what is left alone, and what is looked at twice.

use kube::ResourceExt;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use operator::platform::object::Kind;
use serde_json::{Value, json};

use crate::harness::{World, eventually};

/// Whether the platform is among the owners of an object.
fn is_owned(object: &DynamicObject) -> bool {
    object
        .owner_references()
        .iter()
        .any(|owner| owner.kind == "TankaPlatform")
}

async fn set_policy(world: &World, policy: &str) {
    let patch = Patch::Merge(json!({"spec": {"deletionPolicy": policy}}));
    world
        .platforms()
        .patch("acme", &PatchParams::default(), &patch)
        .await
        .unwrap();
}

async fn owned(world: &World, kind: Kind, name: &str, wanted: bool) {
    let what = format!(
        "{} {name} to be {}",
        kind.as_str(),
        if wanted { "owned" } else { "free" }
    );
    eventually(&what, || async {
        let object = world.objects(kind).get_opt(name).await.unwrap()?;
        (is_owned(&object) == wanted).then_some(())
    })
    .await;
}

async fn gone(world: &World, kind: Kind, name: &str) {
    eventually(&format!("{} {name} to go", kind.as_str()), || async {
        let found = world.objects(kind).get_opt(name).await.unwrap();
        found.is_none().then_some(())
    })
    .await;
}

async fn delete_platform(world: &World, name: &str) {
    world
        .platforms()
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
    eventually("the platform to go, with no finalizer in its way", || async {
        world
            .platforms()
            .get_opt(name)
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
}

/// What Patroni would write: there is no PostgreSQL here.
async fn patroni_state(world: &World) {
    let labels = json!({
        "app.kubernetes.io/name": "tanka", "app.kubernetes.io/instance": "acme", "app.kubernetes.io/component": "postgres",
    });
    let state = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "acme-postgres-config", "labels": labels}});
    world
        .objects(Kind::ConfigMap)
        .create(&PostParams::default(), &serde_json::from_value(state).unwrap())
        .await
        .unwrap();
}

const KEPT: [(Kind, &str); 5] = [
    (Kind::Secret, "acme-postgres"),
    (Kind::Secret, "acme-api"),
    (Kind::Secret, "acme-redis"),
    (Kind::PersistentVolumeClaim, "data-acme-postgres-0"),
    (Kind::ConfigMap, "acme-postgres-config"),
];

#[tokio::test]
async fn the_deletion_policy_moves_owners_both_ways() {
    let world = World::new("tenure").await;
    world.create("acme", json!({})).await;
    // The volumes are made by the controller of the StatefulSet.
    world
        .object(Kind::PersistentVolumeClaim, "data-acme-postgres-0")
        .await;
    patroni_state(&world).await;
    for policy in ["Delete", "Retain", "Delete"] {
        set_policy(&world, policy).await;
        for (kind, name) in KEPT {
            owned(&world, kind, name, policy == "Delete").await;
        }
    }
    delete_platform(&world, "acme").await;
    for (kind, name) in KEPT {
        gone(&world, kind, name).await;
    }
}

#[tokio::test]
async fn a_platform_that_is_made_again_finds_its_volumes_and_credentials() {
    let world = World::new("again").await;
    world.create("acme", json!({})).await;
    let volume = world
        .object(Kind::PersistentVolumeClaim, "data-acme-postgres-0")
        .await;
    let secret = world.object(Kind::Secret, "acme-postgres").await;
    delete_platform(&world, "acme").await;
    gone(&world, Kind::StatefulSet, "acme-postgres").await;
    world.create("acme", json!({})).await;
    world.object(Kind::StatefulSet, "acme-postgres").await;
    world.object(Kind::ConfigMap, "acme-api-config").await;
    let same_volume = world
        .object(Kind::PersistentVolumeClaim, "data-acme-postgres-0")
        .await;
    let same_secret = world.object(Kind::Secret, "acme-postgres").await;
    assert_eq!(same_volume.uid(), volume.uid());
    assert_eq!(same_secret.data["data"], secret.data["data"]);
}

/// The controller of the StatefulSet takes its own hands off a volume only while it has a pod; one that was scaled away is ours to free.
#[tokio::test]
async fn a_volume_that_was_scaled_away_is_kept_too() {
    let world = World::new("scaled").await;
    world
        .create(
            "acme",
            json!({"deletionPolicy": "Delete", "redis": {"managed": {"storage": {"size": "1Gi"}}}}),
        )
        .await;
    owned(&world, Kind::PersistentVolumeClaim, "data-acme-redis-2", true).await;
    let fewer =
        Patch::Merge(json!({"spec": {"deletionPolicy": "Retain", "redis": {"managed": {"replicas": 1}}}}));
    world
        .platforms()
        .patch("acme", &PatchParams::default(), &fewer)
        .await
        .unwrap();
    eventually("the volume to have no owner at all", || async {
        let volume = world
            .object(Kind::PersistentVolumeClaim, "data-acme-redis-2")
            .await;
        volume.owner_references().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_reported_and_nothing_starts_with_it() {
    let mut world = World::empty("theirs").await;
    let theirs = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "acme-postgres"}, "stringData": {"superuser-password": "x"}});
    let before = world
        .objects(Kind::Secret)
        .create(&PostParams::default(), &serde_json::from_value(theirs).unwrap())
        .await
        .unwrap();
    world.start_operator();
    world.create("acme", json!({})).await;
    let database = world.condition("acme", "DatabaseReady", "NameConflict").await;
    assert!(
        database.message.contains("Secret \"acme-postgres\""),
        "{}",
        database.message
    );
    world.object(Kind::StatefulSet, "acme-redis").await;
    assert!(
        world
            .objects(Kind::StatefulSet)
            .get_opt("acme-postgres")
            .await
            .unwrap()
            .is_none()
    );
    let after = world.object(Kind::Secret, "acme-postgres").await;
    assert_eq!(after.resource_version(), before.resource_version());
    // Once it is out of the way, all goes on by itself.
    world
        .objects(Kind::Secret)
        .delete("acme-postgres", &DeleteParams::default())
        .await
        .unwrap();
    world.object(Kind::StatefulSet, "acme-postgres").await;
}

#[tokio::test]
async fn a_volume_of_somebody_else_is_never_taken_over() {
    let mut world = World::empty("volume").await;
    let theirs = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data-acme-postgres-1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    world
        .objects(Kind::PersistentVolumeClaim)
        .create(&PostParams::default(), &serde_json::from_value(theirs).unwrap())
        .await
        .unwrap();
    world.start_operator();
    world.create("acme", json!({})).await;
    let database = world.condition("acme", "DatabaseReady", "NameConflict").await;
    assert!(
        database.message.contains("data-acme-postgres-1"),
        "{}",
        database.message
    );
    assert!(
        world
            .objects(Kind::StatefulSet)
            .get_opt("acme-postgres")
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn two_platforms_share_a_namespace() {
    let world = World::new("two").await;
    world.create("acme", json!({})).await;
    world
        .create("umbrella", json!({"deletionPolicy": "Delete"}))
        .await;
    for name in ["acme", "umbrella"] {
        world.object(Kind::StatefulSet, &format!("{name}-postgres")).await;
        world.object(Kind::ConfigMap, &format!("{name}-api-config")).await;
        owned(
            &world,
            Kind::PersistentVolumeClaim,
            &format!("data-{name}-postgres-0"),
            name == "umbrella",
        )
        .await;
    }
    let before = world.object(Kind::StatefulSet, "acme-postgres").await;
    delete_platform(&world, "umbrella").await;
    gone(&world, Kind::StatefulSet, "umbrella-postgres").await;
    gone(&world, Kind::Secret, "umbrella-postgres").await;
    let after = world.object(Kind::StatefulSet, "acme-postgres").await;
    assert_eq!(after.metadata.generation, before.metadata.generation);
    world.calm().await;
}

#[tokio::test]
async fn a_namespace_that_goes_first_takes_everything_with_it() {
    use k8s_openapi::api::core::v1::Namespace;
    use kube::Api;
    let mut world = World::new("namespace").await;
    world.create("acme", json!({})).await;
    world.object(Kind::ConfigMap, "acme-api-config").await;
    // The operator is gone before as well: nothing may wait for it.
    world.kill_operator();
    let api: Api<Namespace> = Api::all(world.client.clone());
    api.delete(&world.namespace, &DeleteParams::default())
        .await
        .unwrap();
    eventually("the platform to go", || async {
        world
            .platforms()
            .get_opt("acme")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    gone(&world, Kind::StatefulSet, "acme-postgres").await;
}

#[tokio::test]
async fn an_unreadable_platform_is_told_so() {
    use kube::Api;
    use kube::core::ApiResource;
    let world = World::new("unreadable").await;
    let resource = ApiResource::erase::<crds::TankaPlatform>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), &world.namespace, &resource);
    let odd = json!({
        "apiVersion": "tanka.dev/v1alpha1", "kind": "TankaPlatform", "metadata": {"name": "odd"},
        "spec": {"api": {"podTemplate": {"tolerations": [{"tolerationSeconds": "not a number"}]}}},
    });
    api.create(&PostParams::default(), &serde_json::from_value(odd).unwrap())
        .await
        .unwrap();
    let told = eventually("the status to say what is wrong", || async {
        let object = api.get("odd").await.unwrap();
        let conditions = object.data["status"]["conditions"].as_array()?.clone();
        conditions
            .into_iter()
            .find(|c| c["type"] == "Stalled" && c["reason"] == "InvalidSpec")
    })
    .await;
    let words: &Value = &told["message"];
    assert!(words.as_str().unwrap().contains("tolerationSeconds"), "{words}");
    // Other platforms are none the worse for it.
    world.create("acme", json!({})).await;
    world.object(Kind::StatefulSet, "acme-postgres").await;
}

#[tokio::test]
async fn a_quota_is_named_and_what_it_held_back_goes_on_when_it_is_raised() {
    use k8s_openapi::api::core::v1::ResourceQuota;
    use kube::Api;
    let mut world = World::empty("quota").await;
    let quotas: Api<ResourceQuota> = Api::namespaced(world.client.clone(), &world.namespace);
    let quota = json!({"metadata": {"name": "compute"}, "spec": {"hard": {"pods": "0"}}});
    quotas
        .create(&PostParams::default(), &serde_json::from_value(quota).unwrap())
        .await
        .unwrap();
    eventually("the quota to be in force", || async {
        quotas
            .get("compute")
            .await
            .unwrap()
            .status?
            .hard?
            .contains_key("pods")
            .then_some(())
    })
    .await;
    world.start_operator();
    world.create("acme", json!({})).await;
    let refused = world.condition("acme", "CacheReady", "PodsRefused").await;
    assert!(refused.message.contains("compute"), "{}", refused.message);
    world.condition("acme", "Stalled", "PodsRefused").await;
    let more = Patch::Merge(json!({"spec": {"hard": {"pods": "20"}}}));
    quotas
        .patch("compute", &PatchParams::default(), &more)
        .await
        .unwrap();
    // The pods exist then, and no node takes them here.
    let begun = std::time::Instant::now();
    eventually("the pods to be made", || async {
        let platform = world.platforms().get("acme").await.unwrap();
        let told = platform
            .status?
            .conditions
            .into_iter()
            .any(|c| c.reason == "PodsRefused");
        (!told).then_some(())
    })
    .await;
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );
}
