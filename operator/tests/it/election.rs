//! Two operators, one leader, on a real API server.

use std::path::Path;

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use operator::platform::object::Kind;
use serde_json::json;
use tokio::time::{Duration, Instant};

use crate::harness::{World, eventually, eventually_within, kubeconfig};
use crate::identity::{Identity, LOGGED};
use crate::process::Operator;

/// A lease, and the time in which whoever waits takes it.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(25);

/// Whom the audit log can tell from others, with every right in the namespace.
async fn somebody(world: &World, name: &str) -> Identity {
    let identity = Identity::of(&world.client, Path::new(&kubeconfig()), &world.namespace, name).await;
    let roles: Api<Role> = Api::namespaced(world.client.clone(), &world.namespace);
    let all = json!({"metadata": {"name": "all"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    let _ = roles
        .create(&PostParams::default(), &serde_json::from_value(all).unwrap())
        .await;
    let bindings: Api<RoleBinding> = Api::namespaced(world.client.clone(), &world.namespace);
    let binding = json!({
        "metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "all"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": world.namespace}],
    });
    bindings
        .create(&PostParams::default(), &serde_json::from_value(binding).unwrap())
        .await
        .unwrap();
    identity
}

fn start(world: &World, who: &Identity, name: &str) -> Operator {
    let arguments = [
        "--watch-namespaces",
        &world.namespace,
        "--namespace",
        &world.namespace,
        "--identity",
        name,
        "--log-format",
        "text",
    ];
    Operator::start(&who.kubeconfig, &arguments, &[])
}

/// FC19: a leader that is stopped for longer than its lease, while another takes over, writes nothing when it wakes, and ends.
#[tokio::test]
async fn a_leader_that_slept_through_its_lease_ends_without_a_write() {
    let world = World::empty("election").await;
    let (first, second) = (somebody(&world, "first").await, somebody(&world, "second").await);
    let mut leader = start(&world, &first, "first");
    leader.leads().await;
    let follower = start(&world, &second, "second");
    world.create("acme", json!({})).await;
    world.object(Kind::ConfigMap, "acme-api-config").await;
    eventually("the follower to be ready", || async {
        follower.get("/ready").contains("200 OK").then_some(())
    })
    .await;
    assert!(
        !second
            .requests()
            .iter()
            .any(|request| request.writes() && !about_lease(request)),
        "the follower wrote something"
    );

    leader.signal("STOP");
    let stopped = Instant::now();
    // Work for whoever wakes: a deleted object, and a spec that has changed.
    world
        .objects(Kind::Service)
        .delete("acme-postgres-ro", &DeleteParams::default())
        .await
        .unwrap();
    let change = Patch::Merge(json!({"spec": {"postgres": {"managed": {"instances": 1}}}}));
    world
        .platforms()
        .patch("acme", &PatchParams::default(), &change)
        .await
        .unwrap();
    eventually_within(TAKEN_OVER_WITHIN, "the follower to lead", || async {
        follower
            .get("/metrics")
            .contains("tanka_operator_leader 1")
            .then_some(())
    })
    .await;
    println!(
        "taken over {:.1} s after the leader stopped",
        stopped.elapsed().as_secs_f64()
    );
    world.object(Kind::Service, "acme-postgres-ro").await;
    // More work, which the second leader does not get to before the first wakes.
    follower.signal("STOP");
    world
        .objects(Kind::Service)
        .delete("acme-postgres-rw", &DeleteParams::default())
        .await
        .unwrap();
    tokio::time::sleep(LOGGED).await;
    let before = first.requests().len();
    leader.signal("CONT");
    let status = leader.ended().await;
    assert!(!status.success(), "it says that all is well: {status}");
    tokio::time::sleep(LOGGED).await;
    let after: Vec<_> = first.requests().split_off(before);
    let writes: Vec<_> = after.iter().filter(|request| request.writes()).collect();
    assert!(writes.is_empty(), "the woken leader wrote: {writes:#?}");
    follower.signal("CONT");
    world.object(Kind::Service, "acme-postgres-rw").await;
}

fn about_lease(request: &crate::identity::Request) -> bool {
    request
        .object_ref
        .as_ref()
        .is_some_and(|object| object.resource == "leases")
}

/// Rule 6: whoever is asked to stop gives the lease back, so that the next need not wait for its end.
#[tokio::test]
async fn a_leader_that_is_asked_to_stop_hands_over_at_once() {
    let world = World::empty("handover").await;
    let (first, second) = (somebody(&world, "first").await, somebody(&world, "second").await);
    let mut leader = start(&world, &first, "first");
    leader.leads().await;
    leader.signal("TERM");
    assert!(leader.ended().await.success());
    let begun = Instant::now();
    start(&world, &second, "second").leads().await;
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "the lease was not given back: {:?}",
        begun.elapsed()
    );
}

/// Liveness is not tied to the API server, readiness is; and the operator waits for it instead of ending again and again.
#[tokio::test]
async fn an_operator_without_an_api_server_lives_and_is_not_ready() {
    let nowhere = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nowhere");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "c", "user": {"token": "none"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    });
    std::fs::write(&nowhere, config.to_string()).unwrap();
    let mut lonely = Operator::start(&nowhere, &["--identity", "lonely", "--log-format", "text"], &[]);
    eventually("it to live", || async {
        lonely.get("/health").contains("200 OK").then_some(())
    })
    .await;
    assert!(lonely.get("/ready").contains("503"));
    assert!(lonely.get("/metrics").contains("tanka_operator_leader 0"));
    lonely.signal("TERM");
    assert!(lonely.ended().await.success());
}
