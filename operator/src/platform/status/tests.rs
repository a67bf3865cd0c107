use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::platform::assess::assess;
use crate::platform::build::{migration_job, monitoring};
use crate::platform::fixtures::{platform, running_pod};
use crate::platform::observe::apis::Apis;
use crate::platform::observe::deep::{Check, Deep};
use crate::platform::observe::patroni::{Cluster, Member};
use crate::platform::observe::pods::{self, Pod, Problem};
use crate::platform::observe::sentinel::Sentinel;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn member(ordinal: u8, role: &str, state: &str) -> Member {
    Member {
        name: format!("acme-postgres-{ordinal}"),
        role: role.to_owned(),
        state: state.to_owned(),
        timeline: Some(1),
        lag: Some(0),
        ..Member::default()
    }
}

fn works() -> Check {
    Check {
        ok: true,
        error: None,
    }
}

/// A world in which everything is as it should be.
fn healthy(platform: &Platform) -> World {
    let members = vec![
        member(0, "leader", "running"),
        member(1, "quorum_standby", "streaming"),
        member(2, "quorum_standby", "streaming"),
    ];
    let deployment = json!({
        "metadata": {"generation": 1}, "spec": {"replicas": 3},
        "status": {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3},
    });
    let done = json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}});
    let watching = monitoring::build(platform, &Apis::default());
    let mut objects: BTreeMap<Key, Value> = watching
        .into_iter()
        .map(|object| (object.key, object.manifest))
        .collect();
    objects.extend([
        (Key::new(Kind::Deployment, "acme-api"), deployment),
        (
            Key::new(Kind::Job, migration_job::name(platform, &World::default())),
            done,
        ),
    ]);
    World {
        objects,
        patroni: Some(Cluster {
            members,
            writable: true,
            ..Cluster::default()
        }),
        pods: [Component::Postgres, Component::Redis]
            .into_iter()
            .flat_map(|component| {
                (0..3).map(move |ordinal| {
                    running_pod(component, &format!("acme-{}-{ordinal}", component.as_str()))
                })
            })
            .collect(),
        sentinel: Some(Sentinel {
            primary: "acme-redis-0".to_owned(),
            quorum_problem: None,
            primary_up: true,
            linked: ["acme-redis-1", "acme-redis-2"].map(str::to_owned).into(),
            ..Sentinel::default()
        }),
        deep: Some(Ok(Deep {
            write: works(),
            read: works(),
            redis: works(),
            instances: Vec::new(),
        })),
        ..World::default()
    }
}

fn look(
    platform: &Platform,
    world: &World,
    before: &TankaPlatformStatus,
    second: i64,
) -> TankaPlatformStatus {
    let assessment = assess(platform, world);
    status(
        &Inputs {
            platform,
            world,
            assessment: &assessment,
            failover: None,
            now: at(second),
        },
        before,
    )
}

fn find<'a>(status: &'a TankaPlatformStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

#[test]
fn the_status_of_a_healthy_platform() {
    let platform = platform(json!({}));
    insta::assert_yaml_snapshot!(look(
        &platform,
        &healthy(&platform),
        &TankaPlatformStatus::default(),
        0
    ));
}

/// An autoscaler that was switched off has to go before the number of the spec is sent: until then not all is done.
#[test]
fn a_number_of_pods_that_is_not_the_one_asked_for_is_told() {
    let api = |number| json!({"api": {"replicas": number, "autoscaling": {"enabled": false}}});
    let reason = |number| {
        let platform = platform(api(number));
        let status = look(&platform, &healthy(&platform), &TankaPlatformStatus::default(), 0);
        find(&status, "ApiReady").unwrap().reason.clone()
    };
    assert_eq!(
        (reason(3), reason(2)),
        ("Available".to_owned(), "RollingOut".to_owned())
    );
}

#[test]
fn the_same_observation_causes_no_write() {
    let platform = platform(json!({}));
    let first = look(&platform, &healthy(&platform), &TankaPlatformStatus::default(), 0);
    assert_eq!(look(&platform, &healthy(&platform), &first, 100), first);
}

#[test]
fn times_move_only_when_a_status_flips() {
    let platform = platform(json!({}));
    let first = look(&platform, &healthy(&platform), &TankaPlatformStatus::default(), 0);
    let mut broken = healthy(&platform);
    broken.deep = Some(Err("refused".to_owned()));
    let second = look(&platform, &broken, &first, 50);
    let time = |status: &TankaPlatformStatus, kind| find(status, kind).unwrap().last_transition_time.0;
    assert_eq!(time(&second, "Ready"), at(50));
    assert_eq!(time(&second, "DatabaseReady"), at(0));
}

#[test]
fn a_volume_that_waits_is_named_with_its_storage_class() {
    let platform = platform(json!({}));
    let mut world = healthy(&platform);
    let pod = pods::reduce(
        &json!({
            "metadata": {"name": "acme-postgres-0", "labels": {"app.kubernetes.io/component": "postgres"}},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "pod has unbound immediate PersistentVolumeClaims"}]},
        }),
        at(0),
    );
    world.pods.insert(0, pod);
    world.objects.insert(
        Key::new(Kind::PersistentVolumeClaim, "data-acme-postgres-0"),
        json!({"spec": {"storageClassName": "no-such"}, "status": {"phase": "Pending"}}),
    );
    let status = look(&platform, &world, &TankaPlatformStatus::default(), 0);
    let database = find(&status, "DatabaseReady").unwrap();
    assert_eq!(database.reason, "VolumePending");
    for words in [
        "data-acme-postgres-0",
        "\"no-such\"",
        "acme-postgres-0 cannot be scheduled",
    ] {
        assert!(database.message.contains(words), "{}", database.message);
    }
}

#[test]
fn a_platform_without_one_replica_still_works_and_says_what_is_missing() {
    let platform = platform(json!({}));
    let mut world = healthy(&platform);
    world.patroni.as_mut().unwrap().members.remove(2);
    let status = look(&platform, &world, &TankaPlatformStatus::default(), 0);
    let ready = find(&status, "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("True", "ReplicaNotStreaming")
    );
    assert!(ready.message.contains("acme-postgres-2"), "{}", ready.message);
    assert_eq!(find(&status, "DatabaseReady").unwrap().status, "False");
    assert!(find(&status, "Reconciling").is_some());
}

#[test]
fn an_image_that_cannot_be_pulled_stalls_by_name() {
    let platform = platform(json!({}));
    let mut world = healthy(&platform);
    world.deep = None;
    world.pods.push(Pod {
        name: "acme-api-x".to_owned(),
        component: "api".to_owned(),
        ip: None,
        ready: false,
        deleting: false,
        ended: false,
        problem: Some(Problem {
            reason: Reason::ImagePullFailed,
            message: "image tanka/api:9.9 cannot be pulled".to_owned(),
        }),
        last_words: None,
        ..Pod::default()
    });
    let status = look(&platform, &world, &TankaPlatformStatus::default(), 0);
    let ready = find(&status, "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "ImagePullFailed")
    );
    assert!(
        find(&status, "Stalled")
            .unwrap()
            .message
            .contains("tanka/api:9.9")
    );
    assert!(find(&status, "Reconciling").is_none());
}

#[test]
fn a_lost_primary_is_the_first_thing_that_is_said() {
    let platform = platform(json!({}));
    let mut world = healthy(&platform);
    world.patroni.as_mut().unwrap().members[0].state = "stopped".to_owned();
    world.deep = Some(Ok(Deep {
        write: Check {
            ok: false,
            error: Some("no primary".to_owned()),
        },
        read: works(),
        redis: works(),
        instances: Vec::new(),
    }));
    let status = look(&platform, &world, &TankaPlatformStatus::default(), 0);
    let ready = find(&status, "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "NoPrimary")
    );
    assert_eq!(status.postgres.unwrap().primary, None);
}

#[test]
fn a_primary_whose_pod_is_being_deleted_takes_no_writes() {
    let platform = platform(json!({}));
    let mut world = healthy(&platform);
    world.pods[0].deleting = true;
    assert_eq!(world.primary(), None);
    assert_eq!(
        look(&platform, &world, &TankaPlatformStatus::default(), 0)
            .postgres
            .unwrap()
            .primary,
        None
    );
}

#[test]
fn a_lost_status_is_built_again() {
    let platform = platform(json!({}));
    let kept = look(&platform, &healthy(&platform), &TankaPlatformStatus::default(), 7);
    let rebuilt = look(&platform, &healthy(&platform), &TankaPlatformStatus::default(), 7);
    assert_eq!(kept, rebuilt);
}

#[test]
fn a_contradiction_stalls_and_keeps_what_was_known() {
    let platform = platform(json!({}));
    let before = look(&platform, &healthy(&platform), &TankaPlatformStatus::default(), 0);
    let after = halted(Reason::InvalidSpec, "set exactly one", 2, &before, at(9));
    assert_eq!(find(&after, "Ready").unwrap().reason, "InvalidSpec");
    assert!(find(&after, "Stalled").is_some());
    assert_eq!(after.version, before.version);
    assert_eq!(find(&after, "DatabaseReady"), find(&before, "DatabaseReady"));
    assert_eq!(
        halted(Reason::InvalidSpec, "set exactly one", 2, &after, at(99)),
        after
    );
}

/// Patroni remembers a member whose pod is gone until its lease has ended.
#[test]
fn a_member_without_a_pod_does_not_count() {
    let platform = platform(json!({}));
    let mut world = healthy(&platform);
    world.pods.retain(|pod| pod.name != "acme-postgres-2");
    let status = look(&platform, &world, &TankaPlatformStatus::default(), 0);
    let database = find(&status, "DatabaseReady").unwrap();
    assert_eq!(database.reason, "ReplicaNotStreaming");
    assert!(
        database.message.ends_with("missing: acme-postgres-2"),
        "{}",
        database.message
    );
    assert_eq!(status.postgres.unwrap().ready, "2/3");
}
