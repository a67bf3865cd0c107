use std::collections::BTreeMap;

use k8s_openapi::api;
use rstest::rstest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::platform::assess::assess;
use crate::platform::fixtures::{external, platform, running_pod};
use crate::platform::observe::apis::Apis;
use crate::platform::observe::patroni::{Cluster, Member};
use crate::platform::observe::secrets::Reference;

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
        ..Member::default()
    };
    World {
        patroni: Some(Cluster {
            members: vec![primary],
            writable: true,
            ..Cluster::default()
        }),
        pods: vec![running_pod(Component::Postgres, "acme-postgres-0")],
        ..World::default()
    }
}

/// The same with every Secret that the spec names.
fn supplied(platform: &Platform) -> World {
    let mut world = writable();
    for reference in held::named(platform) {
        let fingerprint = "0123456789abcdef".to_owned();
        world.references.insert(
            (reference.name.clone(), reference.key.clone()),
            Reference::Held { fingerprint },
        );
    }
    world
}

/// Everything that is made on the way to a platform that works, the migration included.
pub(super) fn everything(platform: &Platform) -> Vec<Object> {
    everything_with(platform, &Apis::default())
}

/// The same in a cluster that has some of the optional APIs.
pub(super) fn everything_with(platform: &Platform, apis: &Apis) -> Vec<Object> {
    let world = |mut world: World| {
        world.apis = apis.clone();
        world
    };
    let before = decide(platform, &world(supplied(platform))).objects;
    let migration = before.into_iter().filter(|object| object.key.kind == Kind::Job);
    migration
        .chain(decide(platform, &world(migrated(platform))).objects)
        .collect()
}

/// The same after the migration.
fn migrated(platform: &Platform) -> World {
    let done = json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}});
    let mut world = supplied(platform);
    let job = Key::new(Kind::Job, migration_job::name(platform, &world));
    world.objects.insert(job, done);
    world
}

/// Every object, whole. So it is seen here that liveness asks `/health` and readiness `/ready` (F11), that the API is scaled by CPU and
/// memory (F45), that PostgreSQL has no made-up setting of replication, bounded slots, and no password in its configuration (F32, F33).
#[rstest]
#[case::defaults("defaults", json!({}))]
#[case::external("external", external())]
fn the_objects_of_a_platform(#[case] name: &str, #[case] spec: Value) {
    let platform = platform(spec);
    let objects = everything(&platform);
    let manifests: BTreeMap<String, &Value> = objects
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
    for object in everything(&platform) {
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
            // Not Kubernetes' own: the contract tests show what their definitions make of them.
            Kind::HTTPRoute | Kind::PrometheusRule | Kind::PodMonitor => continue,
            Kind::Secret
            | Kind::Pod
            | Kind::PersistentVolumeClaim
            | Kind::IngressClass
            | Kind::Gateway
            | Kind::Certificate => {
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

/// What is kept while a gate is closed and pods serve.
#[test]
fn around_serving_pods_all_is_kept_while_a_migration_runs() {
    let platform = platform(json!({"api": {"autoscaling": {"enabled": false}}}));
    let mut world = writable();
    let owned = json!({"metadata": {"uid": "d", "ownerReferences": [{"uid": platform.uid}]}});
    world
        .objects
        .insert(Key::new(Kind::Deployment, "acme-api"), owned);
    let kept = keys(&decide(&platform, &world));
    assert!(kept.contains(&"Service \"acme-api\"".to_owned()));
    assert!(!kept.iter().any(|key| key.starts_with("Deployment")), "{kept:?}");
}

#[test]
fn a_failed_migration_is_made_again_after_a_rest() {
    let platform = platform(json!({}));
    let mut world = writable();
    let failed = json!({"metadata": {"uid": "j"}, "status": {"conditions": [
        {"type": "Failed", "status": "True", "message": "deadline", "lastTransitionTime": "1970-01-01T00:00:00Z"}]}});
    let job = Key::new(Kind::Job, migration_job::name(&platform, &world));
    world.objects.insert(job.clone(), failed);
    assert_eq!(decide(&platform, &world).deletions, Vec::new());
    world.now = "1970-01-01T00:05:00Z".parse().unwrap();
    let deletions = decide(&platform, &world).deletions;
    assert_eq!((deletions[0].key.clone(), deletions[0].uid.as_str()), (job, "j"));
}

#[test]
fn a_changed_secret_of_an_external_service_is_checked_before_it_is_used() {
    let platform = platform(external());
    let world = migrated(&platform);
    assert!(keys(&decide(&platform, &world)).contains(&"Deployment \"acme-api\"".to_owned()));
    let mut changed = world;
    let fingerprint = "fedcba9876543210".to_owned();
    changed.references.insert(
        ("db".to_owned(), "primary".to_owned()),
        Reference::Held { fingerprint },
    );
    let plan = keys(&decide(&platform, &changed));
    assert!(plan.iter().any(|key| key.starts_with("Job")), "{plan:?}");
    assert!(!plan.iter().any(|key| key.starts_with("Deployment")), "{plan:?}");
}

#[test]
fn without_a_secret_that_the_spec_names_no_pod_is_made_or_changed() {
    let platform = platform(external());
    let mut world = migrated(&platform);
    for state in world.references.values_mut() {
        *state = Reference::NoSecret;
    }
    let assessment = assess(&platform, &world);
    assert!(
        assessment.database.message.contains("Secret db"),
        "{}",
        assessment.database.message
    );
    let plan = keys(&plan(&platform, &world, &assessment));
    assert!(
        !plan
            .iter()
            .any(|key| key.starts_with("Deployment") || key.starts_with("Job")),
        "{plan:?}"
    );
}

#[test]
fn nothing_starts_with_a_secret_of_somebody_else() {
    let platform = platform(json!({}));
    let mut world = migrated(&platform);
    let theirs = json!({"metadata": {"name": "acme-postgres", "uid": "s", "labels": {}}});
    world
        .objects
        .insert(Key::new(Kind::Secret, "acme-postgres"), theirs);
    let plan = keys(&decide(&platform, &world));
    for held_back in ["StatefulSet \"acme-postgres\"", "Deployment \"acme-api\""] {
        assert!(!plan.contains(&held_back.to_owned()), "{plan:?}");
    }
    assert!(plan.contains(&"StatefulSet \"acme-redis\"".to_owned()));
}

/// A pod of the release before may start again while the new one rolls out, and must find a file that it understands.
#[test]
fn each_release_keeps_its_own_file_until_the_last_pod_of_it_is_gone() {
    let platform = platform(json!({"version": "0.2.0"}));
    let mut world = writable();
    let live = json!({"metadata": {"uid": "c"}, "data": {"tanka-0.1.0.yaml": "old"}});
    world
        .objects
        .insert(Key::new(Kind::ConfigMap, "acme-api-config"), live);
    let files = |world: &World| {
        let plan = decide(&platform, world);
        let config = plan
            .objects
            .iter()
            .find(|object| object.key.name == "acme-api-config")
            .unwrap();
        config.manifest["data"].clone()
    };
    let during = files(&world);
    assert_eq!(during["tanka-0.1.0.yaml"], "old");
    assert!(during["tanka-0.2.0.yaml"].as_str().unwrap().contains("poolSize"));
    let done = json!({"metadata": {"generation": 1}, "spec": {"replicas": 1},
        "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}});
    world.objects.insert(Key::new(Kind::Deployment, "acme-api"), done);
    assert_eq!(files(&world).as_object().unwrap().len(), 1);
}

/// Credentials and authorities are files of pods, from the Secrets that the spec names; the configuration holds their paths alone.
#[test]
fn what_the_api_is_given_of_others_is_in_files() {
    let mut spec = external();
    spec["postgres"]["external"]["caSecretRef"] = json!({"name": "db-authority", "key": "ca.crt"});
    spec["redis"]["external"]["caSecretRef"] = json!({"name": "cache-authority", "key": "ca.crt"});
    spec["api"]["objectStore"] = json!({
        "endpoint": "https://s3.example.com", "bucket": "files", "prefix": "acme/",
        "accessKeySecretRef": {"name": "store", "key": "id"}, "secretKeySecretRef": {"name": "store", "key": "secret"},
    });
    let platform = platform(spec);
    let all = everything(&platform);
    let manifest = |kind: Kind, name: &str| {
        let found = all
            .iter()
            .find(|object| object.key.kind == kind && object.key.name.starts_with(name));
        found.unwrap().manifest.clone()
    };
    let text = manifest(Kind::ConfigMap, "acme-api-config")["data"]["tanka-0.1.0.yaml"].clone();
    let config = crds::config::parse(text.as_str().unwrap()).unwrap();
    let store = config.resources.object_store.unwrap();
    assert_eq!(
        (store.endpoint.as_str(), store.prefix.as_str()),
        ("https://s3.example.com", "acme/")
    );
    let files = [
        store.access_key_file,
        store.secret_key_file,
        config.database.ca_file.unwrap(),
        config.redis.ca_file.unwrap(),
    ];
    let api = manifest(Kind::Deployment, "acme-api")["spec"]["template"]["spec"].clone();
    let job = manifest(Kind::Job, "acme-migrate")["spec"]["template"]["spec"].clone();
    let mut expected = vec![
        "store/id",
        "store/secret",
        "db-authority/ca.crt",
        "cache-authority/ca.crt",
    ]
    .into_iter();
    for file in &files {
        assert_eq!(
            Some(source_of(&api, file).as_str()),
            expected.next(),
            "{}",
            file.display()
        );
    }
    for (variable, secret) in [
        ("TANKA_MIGRATE_CA_FILE", "db-authority"),
        ("TANKA_CHECK_REDIS_CA_FILE", "cache-authority"),
    ] {
        let environment = job["containers"][0]["env"].as_array().unwrap();
        let found = environment
            .iter()
            .find(|entry| entry["name"] == variable)
            .unwrap();
        let path = std::path::Path::new(found["value"].as_str().unwrap());
        assert_eq!(source_of(&job, path), format!("{secret}/ca.crt"));
    }
}

/// The Secret and the key that a file of a pod comes from.
fn source_of(pod: &Value, file: &std::path::Path) -> String {
    let folder = file.parent().unwrap().to_str().unwrap();
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["mountPath"] == folder).unwrap();
    let volumes = pod["volumes"].as_array().unwrap();
    let volume = volumes
        .iter()
        .find(|volume| volume["name"] == mount["name"])
        .unwrap();
    let sources = volume["projected"]["sources"].as_array().unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let source = sources
        .iter()
        .find(|source| source["secret"]["items"][0]["path"] == name)
        .unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    format!(
        "{}/{}",
        text(&source["secret"]["name"]),
        text(&source["secret"]["items"][0]["key"])
    )
}
