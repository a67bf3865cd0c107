//! How the API's pods are made, changed and counted. PostgreSQL and Redis are external here, so that the tier can be reached without
//! nodes; the migration's pod is told that it succeeded, as a kubelet would.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use operator::platform::object::Kind;
use serde_json::{Value, json};

use crate::harness::{World, eventually};

fn external(api: &Value) -> Value {
    json!({
        "postgres": {"external": {"primarySecretRef": {"name": "db", "key": "primary"}}},
        "redis": {"external": {"secretRef": {"name": "cache", "key": "url"}}},
        "api": api,
    })
}

async fn secret(world: &World, name: &str, data: Value) {
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
    world
        .objects(Kind::Secret)
        .patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(&secret))
        .await
        .unwrap();
}

async fn supply(world: &World) {
    secret(world, "db", json!({"primary": "postgres://a:b@db:5432/c"})).await;
    secret(world, "cache", json!({"url": "redis://cache:6379/0"})).await;
}

/// Waits for a migration that is not among `known`, and lets its pod succeed; answers the Job's name.
async fn migrate(world: &World, known: &[String]) -> String {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), &world.namespace);
    let parameters = ListParams::default().labels("app.kubernetes.io/component=migrate");
    let (job, pod) = eventually("the pod of a migration", || async {
        let list = pods.list(&parameters).await.unwrap();
        list.items.into_iter().find_map(|pod| {
            let job = pod.labels().get("batch.kubernetes.io/job-name")?.clone();
            (!known.contains(&job) && pod.meta().deletion_timestamp.is_none()).then(|| (job, pod.name_any()))
        })
    })
    .await;
    let done = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    pods.patch_status(&pod, &PatchParams::default(), &done)
        .await
        .unwrap();
    job
}

async fn deployment(world: &World) -> Deployment {
    let api: Api<Deployment> = Api::namespaced(world.client.clone(), &world.namespace);
    eventually("the Deployment", || async {
        api.get_opt("acme-api").await.unwrap()
    })
    .await
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

fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().unwrap().replicas.unwrap()
}

async fn until_replicas(world: &World, wanted: i32) {
    eventually(&format!("{wanted} replicas"), || async {
        let now = replicas(&deployment(world).await);
        assert_ne!(now, 1, "a dip to one");
        (now == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_secret_of_an_external_service_is_named_until_it_is_there() {
    let world = World::new("supply").await;
    world.create("acme", external(&json!({}))).await;
    let missing = world.condition("acme", "DatabaseReady", "SecretMissing").await;
    assert!(missing.message.contains("Secret db"), "{}", missing.message);
    world.condition("acme", "CacheReady", "SecretMissing").await;
    secret(&world, "db", json!({"wrong": "x"})).await;
    eventually("the key to be named", || async {
        let missing = world.condition("acme", "DatabaseReady", "SecretMissing").await;
        missing
            .message
            .contains("no value under the key primary")
            .then_some(())
    })
    .await;
    assert!(
        world
            .objects(Kind::Deployment)
            .get_opt("acme-api")
            .await
            .unwrap()
            .is_none()
    );
    supply(&world).await;
    world.condition("acme", "DatabaseReady", "Progressing").await;
    let first = migrate(&world, &[]).await;
    world.condition("acme", "MigrationsApplied", "Available").await;
    let before = deployment(&world).await;
    // Another address: it is checked and migrated before any pod is told of it.
    secret(&world, "db", json!({"primary": "postgres://a:b@other:5432/c"})).await;
    let second = migrate(&world, std::slice::from_ref(&first)).await;
    assert_ne!(first, second);
    eventually("the pods to be told", || async {
        let after = deployment(&world).await;
        (after.metadata.generation > before.metadata.generation).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_number_of_pods_is_handed_over_without_a_dip() {
    let world = World::new("handover").await;
    supply(&world).await;
    world.create("acme", external(&json!({"replicas": 4}))).await;
    migrate(&world, &[]).await;
    until_replicas(&world, 3).await;
    world.object(Kind::HorizontalPodAutoscaler, "acme-api").await;
    // As the autoscaler does it.
    let api: Api<Deployment> = Api::namespaced(world.client.clone(), &world.namespace);
    let scale = Patch::Merge(json!({"spec": {"replicas": 6}}));
    api.patch_scale("acme-api", &PatchParams::default(), &scale)
        .await
        .unwrap();
    change(&world, json!({"api": {"drain": {"timeout": "20s"}}})).await;
    eventually("the change to be applied", || async {
        let spec = deployment(&world).await.spec.unwrap().template.spec.unwrap();
        (spec.termination_grace_period_seconds == Some(35)).then_some(())
    })
    .await;
    assert_eq!(
        replicas(&deployment(&world).await),
        6,
        "the number is the autoscaler's"
    );
    change(&world, json!({"api": {"autoscaling": {"enabled": false}}})).await;
    until_replicas(&world, 4).await;
    let gone = world
        .objects(Kind::HorizontalPodAutoscaler)
        .get_opt("acme-api")
        .await
        .unwrap();
    assert!(gone.is_none(), "the number was sent beside an autoscaler");
    change(
        &world,
        json!({"api": {"autoscaling": {"enabled": true, "minReplicas": 2}}}),
    )
    .await;
    world.object(Kind::HorizontalPodAutoscaler, "acme-api").await;
    world.calm().await;
    assert_eq!(replicas(&deployment(&world).await), 4, "what ran goes on running");
}

#[tokio::test]
async fn settings_that_are_reloaded_restart_nothing_and_others_roll() {
    let world = World::new("reload").await;
    supply(&world).await;
    world.create("acme", external(&json!({}))).await;
    migrate(&world, &[]).await;
    let before = deployment(&world).await;
    let config = world.object(Kind::ConfigMap, "acme-api-config").await;
    change(
        &world,
        json!({"api": {"logLevel": "debug", "rateLimit": {"burst": 7}, "cache": {"l1Capacity": "32Mi"}, "database": {"poolSize": 5}}}),
    )
    .await;
    eventually("the configuration to change", || async {
        let now = world.object(Kind::ConfigMap, "acme-api-config").await;
        (now.resource_version() != config.resource_version()).then_some(())
    })
    .await;
    world.calm().await;
    assert_eq!(
        deployment(&world).await.metadata.generation,
        before.metadata.generation
    );
    change(
        &world,
        json!({"api": {"podTemplate": {"labels": {"team": "ada"}}}}),
    )
    .await;
    eventually("the pods to roll", || async {
        let now = deployment(&world).await;
        (now.metadata.generation > before.metadata.generation).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_release_waits_for_its_migration_and_what_serves_is_kept() {
    let world = World::new("gates").await;
    supply(&world).await;
    world.create("acme", external(&json!({}))).await;
    let first = migrate(&world, &[]).await;
    world.condition("acme", "MigrationsApplied", "Available").await;
    let before = deployment(&world).await;
    change(&world, json!({"version": "9.9.9"})).await;
    let migrating = world.condition("acme", "MigrationsApplied", "Migrating").await;
    let second = migrating.message.split(' ').nth(1).unwrap().to_owned();
    assert_ne!(second, first);
    // Around the pods all is kept, they themselves stay.
    let services = world.objects(Kind::Service);
    world.object(Kind::Service, "acme-api").await;
    services
        .delete("acme-api", &DeleteParams::default())
        .await
        .unwrap();
    world.object(Kind::Service, "acme-api").await;
    assert_eq!(
        deployment(&world).await.metadata.generation,
        before.metadata.generation
    );
    // A mistyped version is undone by the right one, and everything goes on.
    change(&world, json!({"version": ""})).await;
    let again = migrate(&world, &[second]).await;
    assert_eq!(again, first);
    world.condition("acme", "MigrationsApplied", "Available").await;
    assert_eq!(
        deployment(&world).await.metadata.generation,
        before.metadata.generation
    );
}

#[tokio::test]
async fn two_writers_of_one_secret_are_no_reason_to_roll() {
    let world = World::new("label").await;
    supply(&world).await;
    world.create("acme", external(&json!({}))).await;
    migrate(&world, &[]).await;
    let before = deployment(&world).await;
    let label = Patch::Merge(json!({"metadata": {"labels": {"team": "ada"}}}));
    world
        .objects(Kind::Secret)
        .patch("db", &PatchParams::default(), &label)
        .await
        .unwrap();
    world.calm().await;
    assert_eq!(
        deployment(&world).await.metadata.generation,
        before.metadata.generation
    );
}
