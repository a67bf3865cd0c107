use std::collections::BTreeMap;

use k8s_openapi::api;
use rstest::rstest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::platform::assess::assess;
use crate::platform::fixtures::{external, platform, running_pod};
use crate::platform::observe::patroni::{Cluster, Member};

fn decide(platform: &Platform, world: &World) -> Plan {
    plan(platform, world, &assess(platform, world))
}

fn keys(plan: &Plan) -> Vec<String> {
    plan.objects.iter().map(|object| object.key.to_string()).collect()
}

/// A world in which PostgreSQL takes writes.
fn writable() -> World {
    let primary = Member {
        name: "acme-postgres-0".to_owned(),
        role: "leader".to_owned(),
        state: "running".to_owned(),
        timeline: Some(1),
        lag: None,
    };
    World {
        patroni: Some(Cluster {
            members: vec![primary],
            writable: true,
        }),
        pods: vec![running_pod(Component::Postgres, "acme-postgres-0")],
        ..World::default()
    }
}

/// The same after the migration.
fn migrated(platform: &Platform) -> World {
    let done = json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}});
    let mut world = writable();
    world
        .objects
        .insert(Key::new(Kind::Job, migration_job::name(platform)), done);
    world
}

#[rstest]
#[case::defaults("defaults", json!({}))]
#[case::external("external", external())]
fn the_objects_of_a_platform(#[case] name: &str, #[case] spec: Value) {
    let platform = platform(spec);
    let plan = decide(&platform, &migrated(&platform));
    let manifests: BTreeMap<String, &Value> = plan
        .objects
        .iter()
        .map(|object| (object.key.to_string(), &object.manifest))
        .collect();
    insta::assert_yaml_snapshot!(name, manifests);
}

#[rstest]
#[case(json!({}))]
#[case(external())]
fn every_object_says_only_what_kubernetes_understands(#[case] spec: Value) {
    let platform = platform(spec);
    for object in decide(&platform, &migrated(&platform)).objects {
        let understood = match object.key.kind {
            Kind::ConfigMap => read::<api::core::v1::ConfigMap>(&object.manifest),
            Kind::Service => read::<api::core::v1::Service>(&object.manifest),
            Kind::ServiceAccount => read::<api::core::v1::ServiceAccount>(&object.manifest),
            Kind::Role => read::<api::rbac::v1::Role>(&object.manifest),
            Kind::RoleBinding => read::<api::rbac::v1::RoleBinding>(&object.manifest),
            Kind::StatefulSet => read::<api::apps::v1::StatefulSet>(&object.manifest),
            Kind::Deployment => read::<api::apps::v1::Deployment>(&object.manifest),
            Kind::Job => read::<api::batch::v1::Job>(&object.manifest),
            Kind::HorizontalPodAutoscaler => {
                read::<api::autoscaling::v2::HorizontalPodAutoscaler>(&object.manifest)
            }
            Kind::PodDisruptionBudget => read::<api::policy::v1::PodDisruptionBudget>(&object.manifest),
            Kind::NetworkPolicy => read::<api::networking::v1::NetworkPolicy>(&object.manifest),
            Kind::Ingress => read::<api::networking::v1::Ingress>(&object.manifest),
            Kind::Secret | Kind::Pod | Kind::PersistentVolumeClaim => {
                panic!("{} is never planned", object.key)
            }
        };
        assert_eq!(understood, object.manifest, "{}", object.key);
    }
}

/// What is left of a manifest after it has gone through Kubernetes' own type: a misspelt field is gone.
fn read<T: DeserializeOwned + Serialize>(manifest: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(manifest.clone()).unwrap()).unwrap()
}

#[test]
fn nothing_behind_the_database_is_made_before_it_takes_writes() {
    let plan = decide(&platform(json!({})), &World::default());
    assert!(keys(&plan).contains(&"StatefulSet \"acme-postgres\"".to_owned()));
    assert!(
        !keys(&plan)
            .iter()
            .any(|key| key.starts_with("Job") || key.starts_with("Deployment"))
    );
    assert_eq!(plan.seed_replicas, None);
}

#[test]
fn the_migration_runs_before_the_api() {
    let plan = decide(&platform(json!({})), &writable());
    assert!(
        keys(&plan)
            .iter()
            .any(|key| key.starts_with("Job \"acme-migrate-"))
    );
    assert!(!keys(&plan).iter().any(|key| key.starts_with("Deployment")));
}

#[test]
fn the_api_follows_the_migration() {
    let platform = platform(json!({}));
    let plan = decide(&platform, &migrated(&platform));
    assert!(keys(&plan).contains(&"Deployment \"acme-api\"".to_owned()));
    assert_eq!(plan.seed_replicas, Some(3));
}

#[test]
fn serving_pods_outlive_a_closed_gate() {
    let platform = platform(json!({}));
    let mut world = World::default();
    let owned = json!({"metadata": {"uid": "d", "ownerReferences": [{"uid": platform.uid}]}});
    world
        .objects
        .insert(Key::new(Kind::Deployment, "acme-api"), owned);
    assert_eq!(decide(&platform, &world).deletions, Vec::new());
}

#[test]
fn an_older_migration_goes_when_another_release_is_asked_for() {
    let platform = platform(json!({}));
    let mut world = writable();
    let owned = json!({"metadata": {"uid": "j", "ownerReferences": [{"uid": platform.uid}]}});
    world
        .objects
        .insert(Key::new(Kind::Job, "acme-migrate-00000000"), owned);
    assert_eq!(decide(&platform, &world).deletions.len(), 1);
}

#[test]
fn a_paused_platform_is_left_as_it_is() {
    let platform = platform(json!({"paused": true}));
    let plan = decide(&platform, &migrated(&platform));
    assert!(plan.objects.is_empty() && plan.secrets.is_empty() && plan.deletions.is_empty());
}

#[test]
fn secrets_that_exist_are_never_asked_for_again() {
    let platform = platform(json!({}));
    let mut world = World::default();
    assert_eq!(decide(&platform, &world).secrets.len(), 3);
    for request in secrets::requests(&platform) {
        world.secrets.insert(
            request.name,
            request.keys.iter().map(|key| (*key).to_owned()).collect(),
        );
    }
    assert_eq!(decide(&platform, &world).secrets, Vec::new());
}

#[test]
fn the_same_world_gives_the_same_plan() {
    let platform = platform(json!({}));
    let world = migrated(&platform);
    assert_eq!(decide(&platform, &world), decide(&platform, &world));
}
