//! What the operator makes, keeps, leaves alone and deletes.

use std::time::Duration;

use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use operator::platform::object::Kind;
use serde_json::json;

use crate::harness::{World, eventually};

#[tokio::test]
async fn a_platform_gets_its_foundation_and_an_honest_status() {
    let world = World::new("foundation").await;
    world.create("acme", json!({})).await;
    for (kind, name) in [
        (Kind::Secret, "acme-postgres"),
        (Kind::Secret, "acme-redis"),
        (Kind::Secret, "acme-api"),
        (Kind::StatefulSet, "acme-postgres"),
        (Kind::StatefulSet, "acme-redis"),
        (Kind::Service, "acme-postgres-rw"),
        (Kind::Service, "acme-postgres-ro"),
        (Kind::ConfigMap, "acme-api-config"),
        (Kind::NetworkPolicy, "acme-postgres"),
        (Kind::PodDisruptionBudget, "acme-redis"),
    ] {
        world.object(kind, name).await;
    }
    // Nothing runs here, so nothing behind the database may exist, and the status says what it waits for.
    assert!(
        world
            .objects(Kind::Deployment)
            .get_opt("acme-api")
            .await
            .unwrap()
            .is_none()
    );
    let ready = world.condition("acme", "Ready", "Progressing").await;
    assert_eq!(ready.status, "False");
    let migrations = world
        .condition("acme", "MigrationsApplied", "WaitingForDependency")
        .await;
    assert!(
        migrations.message.contains("waits for the database"),
        "{}",
        migrations.message
    );
}

#[tokio::test]
async fn an_idle_platform_causes_no_write() {
    let world = World::new("idle").await;
    world.create("acme", json!({})).await;
    world.object(Kind::ConfigMap, "acme-api-config").await;
    let before = world.calm().await;
    // Ten looks and more: the database is not there, so the operator looks four times a second.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.writes().await, before);
}

#[tokio::test]
async fn a_deleted_object_comes_back_and_a_drifted_one_is_mended() {
    let world = World::new("drift").await;
    world.create("acme", json!({})).await;
    let service = world.object(Kind::Service, "acme-postgres-ro").await;
    world.object(Kind::ConfigMap, "acme-api-config").await;
    world
        .objects(Kind::Service)
        .delete("acme-postgres-ro", &DeleteParams::default())
        .await
        .unwrap();
    eventually("another service of that name", || async {
        let again = world
            .objects(Kind::Service)
            .get_opt("acme-postgres-ro")
            .await
            .unwrap()?;
        (again.uid() != service.uid()).then_some(())
    })
    .await;
    let drift = Patch::Merge(json!({"spec": {"maxUnavailable": 3}}));
    world
        .objects(Kind::PodDisruptionBudget)
        .patch("acme-postgres", &PatchParams::default(), &drift)
        .await
        .unwrap();
    eventually("the budget to be mended", || async {
        let budget = world.object(Kind::PodDisruptionBudget, "acme-postgres").await;
        (budget.data["spec"]["maxUnavailable"] == 1).then_some(())
    })
    .await;
}

/// The key of a port in a Service is its number: one that was changed by hand is another one.
#[tokio::test]
async fn a_port_that_was_changed_by_hand_is_mended() {
    let world = World::new("ports").await;
    world.create("acme", json!({})).await;
    let service = world.object(Kind::Service, "acme-postgres-ro").await;
    let wanted = service.data["spec"]["ports"].clone();
    let mut drifted = wanted.clone();
    drifted[0]["port"] = json!(6543);
    let drift = Patch::Merge(json!({"spec": {"ports": drifted}}));
    world
        .objects(Kind::Service)
        .patch("acme-postgres-ro", &PatchParams::default(), &drift)
        .await
        .unwrap();
    eventually("the ports to be mended", || async {
        let service = world.object(Kind::Service, "acme-postgres-ro").await;
        (service.data["spec"]["ports"] == wanted).then_some(())
    })
    .await;
    let before = world.calm().await;
    assert_eq!(world.calm().await, before);
}

#[tokio::test]
async fn what_others_add_is_left_alone() {
    let world = World::new("additions").await;
    world.create("acme", json!({})).await;
    world.object(Kind::ConfigMap, "acme-api-config").await;
    let addition = Patch::Merge(json!({"metadata": {"annotations": {"team.example.com/owner": "ada"}}}));
    world
        .objects(Kind::StatefulSet)
        .patch("acme-redis", &PatchParams::default(), &addition)
        .await
        .unwrap();
    let before = world.calm().await;
    let set = world.object(Kind::StatefulSet, "acme-redis").await;
    assert_eq!(set.annotations()["team.example.com/owner"], "ada");
    assert_eq!(world.writes().await, before);
}

#[tokio::test]
async fn credentials_are_made_once_and_come_back_as_they_were() {
    let world = World::new("secrets").await;
    world.create("acme", json!({})).await;
    let first = world.object(Kind::Secret, "acme-postgres").await;
    world.object(Kind::ConfigMap, "acme-api-config").await;
    world.calm().await;
    world
        .objects(Kind::Secret)
        .delete("acme-postgres", &DeleteParams::default())
        .await
        .unwrap();
    let again = eventually("the Secret to be back", || async {
        world
            .objects(Kind::Secret)
            .get_opt("acme-postgres")
            .await
            .unwrap()
            .filter(|secret| secret.uid() != first.uid())
    })
    .await;
    assert_eq!(again.data["data"], first.data["data"]);
}

/// Nobody remembers them, and instances hold them: new ones would lock everybody out.
#[tokio::test]
async fn credentials_that_are_lost_are_told_of_until_they_are_put_back() {
    let mut world = World::new("lost-secret").await;
    world.create("acme", json!({})).await;
    let kept = world.object(Kind::Secret, "acme-postgres").await;
    world.object(Kind::Pod, "acme-postgres-0").await;
    world.calm().await;
    world.kill_operator();
    let secrets = world.objects(Kind::Secret);
    secrets
        .delete("acme-postgres", &DeleteParams::default())
        .await
        .unwrap();
    world.start_operator();
    let lost = world.condition("acme", "DatabaseReady", "SecretMissing").await;
    assert!(lost.message.contains("put it back"), "{}", lost.message);
    assert!(secrets.get_opt("acme-postgres").await.unwrap().is_none());
    let mut again = kept.clone();
    again.metadata.resource_version = None;
    again.metadata.uid = None;
    secrets.create(&PostParams::default(), &again).await.unwrap();
    world.condition("acme", "DatabaseReady", "Progressing").await;
}

#[tokio::test]
async fn somebody_elses_object_is_reported_and_never_touched() {
    let mut world = World::empty("foreign").await;
    let foreign = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "acme-api-config"}, "data": {"mine": "yes"},
    }))
    .unwrap();
    let before = world
        .objects(Kind::ConfigMap)
        .create(&PostParams::default(), &foreign)
        .await
        .unwrap();
    world.start_operator();
    world.create("acme", json!({})).await;
    let api = world.condition("acme", "ApiReady", "NameConflict").await;
    assert!(
        api.message.contains("ConfigMap \"acme-api-config\""),
        "{}",
        api.message
    );
    world.condition("acme", "Stalled", "NameConflict").await;
    let after = world.object(Kind::ConfigMap, "acme-api-config").await;
    assert_eq!(after.resource_version(), before.resource_version());
}

#[tokio::test]
async fn what_is_switched_off_goes() {
    let world = World::new("prune").await;
    world.create("acme", json!({})).await;
    world.object(Kind::NetworkPolicy, "acme-redis").await;
    let off = Patch::Merge(json!({"spec": {"networkPolicy": {"enabled": false}}}));
    world
        .platforms()
        .patch("acme", &PatchParams::default(), &off)
        .await
        .unwrap();
    eventually("the policy to go", || async {
        world
            .objects(Kind::NetworkPolicy)
            .get_opt("acme-redis")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    world.object(Kind::StatefulSet, "acme-redis").await;
}

#[tokio::test]
async fn a_paused_platform_is_left_as_it_is() {
    let world = World::new("paused").await;
    world.create("acme", json!({"paused": true})).await;
    world.condition("acme", "Ready", "Progressing").await;
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
async fn a_deleted_platform_takes_all_but_credentials_with_it() {
    let world = World::new("deleted").await;
    world.create("acme", json!({})).await;
    world.object(Kind::ConfigMap, "acme-api-config").await;
    world
        .platforms()
        .delete("acme", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the platform to go, with no finalizer in its way", || async {
        world
            .platforms()
            .get_opt("acme")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    eventually("its objects to go", || async {
        world
            .objects(Kind::StatefulSet)
            .get_opt("acme-postgres")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    assert!(
        world
            .objects(Kind::Secret)
            .get_opt("acme-postgres")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn a_lost_status_and_a_killed_operator_change_nothing_else() {
    let mut world = World::new("restart").await;
    world.create("acme", json!({})).await;
    world.object(Kind::ConfigMap, "acme-api-config").await;
    world.calm().await;
    let before = world.object(Kind::StatefulSet, "acme-postgres").await;
    world.kill_operator();
    let empty = Patch::Merge(json!({"status": null}));
    world
        .platforms()
        .patch_status("acme", &PatchParams::default(), &empty)
        .await
        .unwrap();
    world.start_operator();
    world.condition("acme", "Ready", "Progressing").await;
    let after = world.object(Kind::StatefulSet, "acme-postgres").await;
    assert_eq!(after.metadata.generation, before.metadata.generation);
}
