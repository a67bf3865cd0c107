//! A3: the rights that the operator is given are the rights that it uses, both ways round. The shipped rules are applied as they are,
//! the operator runs as its own ServiceAccount, and the API server's audit log says what it asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use operator::platform::object::Kind;
use serde_json::{Value, json};

use crate::harness::{World, eventually, kubeconfig};
use crate::identity::{Identity, LOGGED, Request, triples};
use crate::process::Operator;

type Triple = (String, String, String);

/// Rights that are given and that this test does not see in use, with the reason why they are given.
const UNUSED: &[(&str, &str, &str, &str)] = &[
    (
        "networking.k8s.io",
        "ingressclasses",
        "list",
        "they belong to no namespace, and the operator of this test watches one namespace only",
    ),
    (
        "networking.k8s.io",
        "ingressclasses",
        "watch",
        "they belong to no namespace, and the operator of this test watches one namespace only",
    ),
    (
        "",
        "configmaps",
        "update",
        "Patroni's Role, which the operator makes, gives it: nobody may give more than he has",
    ),
    ("", "pods", "get", "Patroni's Role gives it"),
    (
        "",
        "pods",
        "delete",
        "replaces pods one at a time, for which members have to run: the end-to-end scenarios do that",
    ),
    ("", "pods", "patch", "Patroni's Role gives it"),
    ("", "pods", "update", "Patroni's Role gives it"),
    (
        "rbac.authorization.k8s.io",
        "clusterroles",
        "bind",
        "is used by creating a RoleBinding, not by a request of its own",
    ),
];

/// Groups whose rights are used only where somebody has installed them: operator/tests/optional.
const OPTIONAL: [&str; 3] = [
    "monitoring.coreos.com",
    "gateway.networking.k8s.io",
    "cert-manager.io",
];

fn shipped() -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/operator/rbac.yaml");
    serde_saphyr::from_multiple(&std::fs::read_to_string(file).unwrap()).unwrap()
}

async fn apply(client: &Client, object: &Value) {
    let kind = object["kind"].as_str().unwrap();
    let (group, version) = object["apiVersion"]
        .as_str()
        .unwrap()
        .split_once('/')
        .unwrap_or(("", "v1"));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = object["metadata"]["name"].as_str().unwrap();
    api.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(object))
        .await
        .unwrap();
}

async fn install(client: &Client) -> Vec<Value> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let system = serde_json::from_value(json!({"metadata": {"name": "tanka-system"}})).unwrap();
    let _ = namespaces.create(&PostParams::default(), &system).await;
    let objects = shipped();
    for object in &objects {
        apply(client, object).await;
    }
    objects
}

fn excused() -> BTreeSet<Triple> {
    let rights = UNUSED.iter();
    rights
        .map(|(group, resource, verb, _)| ((*group).to_owned(), (*resource).to_owned(), (*verb).to_owned()))
        .collect()
}

/// As the kubelet and the job controller would, had they a node.
async fn finish_migration(world: &World) {
    let jobs = world.objects(Kind::Job);
    let job = eventually("a migration", || async {
        let jobs = jobs.list(&ListParams::default()).await.unwrap();
        jobs.items.into_iter().find(|job| {
            job.metadata.deletion_timestamp.is_none() && job.data["status"]["completionTime"].is_null()
        })
    })
    .await;
    let job = eventually("the migration to begin", || async {
        let job = jobs.get(&job.name_any()).await.unwrap();
        job.data["status"]["startTime"].is_string().then_some(job)
    })
    .await;
    let now = job.data["status"]["startTime"].as_str().unwrap();
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": now, "lastTransitionTime": now});
    let done = json!({"status": {
        "startTime": now, "completionTime": now, "succeeded": 1, "active": 0, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {},
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
    }});
    jobs.patch_status(&job.name_any(), &PatchParams::default(), &Patch::Merge(&done))
        .await
        .unwrap();
}

async fn change(world: &World, name: &str, spec: Value) {
    world
        .platforms()
        .patch(
            name,
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": spec})),
        )
        .await
        .unwrap();
}

/// An object of every kind that an older release might have made and this one does not: it has to go.
async fn plant_orphans(world: &World, uid: &str) -> Vec<Kind> {
    let specs: BTreeMap<Kind, Value> = [
        (Kind::ConfigMap, json!({})),
        (Kind::Service, json!({"spec": {"ports": [{"port": 1}]}})),
        (Kind::ServiceAccount, json!({})),
        (Kind::Role, json!({"rules": []})),
        (Kind::RoleBinding, json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "left-over"}})),
        (Kind::StatefulSet, json!({"spec": {"replicas": 0, "serviceName": "x", "selector": {"matchLabels": {"a": "b"}}, "template": template()}})),
        (Kind::Deployment, json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template()}})),
        (Kind::Job, json!({"spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})),
        (Kind::HorizontalPodAutoscaler, json!({"spec": {"maxReplicas": 1, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}})),
        (Kind::PodDisruptionBudget, json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}})),
        (Kind::NetworkPolicy, json!({"spec": {"podSelector": {}}})),
        (Kind::Ingress, json!({"spec": {"defaultBackend": {"service": {"name": "x", "port": {"number": 1}}}}})),
    ]
    .into();
    for (kind, spec) in &specs {
        let resource = kind.api_resource();
        let mut object = spec.clone();
        object["apiVersion"] = json!(resource.api_version);
        object["kind"] = json!(resource.kind);
        object["metadata"] = json!({
            "name": "left-over", "namespace": world.namespace,
            "labels": {"app.kubernetes.io/managed-by": "tanka-operator", "tanka.dev/platform": "acme"},
            "ownerReferences": [{"apiVersion": "tanka.dev/v1alpha1", "kind": "TankaPlatform", "name": "acme", "uid": uid, "controller": true}],
        });
        apply(&world.client, &object).await;
    }
    specs.into_keys().collect()
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

/// The life of a platform, as far as an API server without nodes can show it.
async fn live(world: &World) {
    // Why pods are not made stands in events: a quota that is full, and then is not.
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-room", "namespace": world.namespace}, "spec": {"hard": {"pods": "0"}}});
    apply(&world.client, &quota).await;
    let managed = world.create("acme", json!({})).await;
    world.condition("acme", "Ready", "PodsRefused").await;
    let quotas: Api<ResourceQuota> = Api::namespaced(world.client.clone(), &world.namespace);
    quotas.delete("no-room", &DeleteParams::default()).await.unwrap();
    world.object(Kind::ConfigMap, "acme-api-config").await;
    for (kind, name) in [
        (Kind::Service, "acme-postgres-ro"),
        (Kind::StatefulSet, "acme-redis"),
        (Kind::RoleBinding, "acme-postgres"),
    ] {
        let before = world.object(kind, name).await;
        world
            .objects(kind)
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
        eventually("it to be back", || async {
            let again = world.objects(kind).get_opt(name).await.unwrap()?;
            (again.uid() != before.uid()).then_some(())
        })
        .await;
    }
    for kind in plant_orphans(world, &managed.uid().unwrap()).await {
        eventually(&format!("the left-over {} to go", kind.as_str()), || async {
            world
                .objects(kind)
                .get_opt("left-over")
                .await
                .unwrap()
                .is_none()
                .then_some(())
        })
        .await;
    }
    change(world, "acme", json!({"deletionPolicy": "Delete"})).await;
    eventually("the volume to be owned", || async {
        let volume = world
            .object(Kind::PersistentVolumeClaim, "data-acme-postgres-0")
            .await;
        let owners = volume.owner_references();
        owners
            .iter()
            .any(|owner| owner.kind == "TankaPlatform")
            .then_some(())
    })
    .await;
    change(world, "acme", json!({"paused": true})).await;
}

/// The life of one whose database needs no node: with everything behind it.
async fn live_with_external_services(world: &World) {
    let spec = json!({
        "postgres": {"managed": null, "external": {"primarySecretRef": {"name": "db", "key": "url"}}},
        "redis": {"managed": null, "external": {"secretRef": {"name": "cache", "key": "url"}}},
        "ingress": {"enabled": true, "host": "shop.example.com"},
    });
    for name in ["db", "cache"] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": world.namespace}, "stringData": {"url": "redis://somewhere"}});
        apply(&world.client, &secret).await;
    }
    world.create("shop", spec).await;
    finish_migration(world).await;
    world.object(Kind::Deployment, "shop-api").await;
    world.object(Kind::HorizontalPodAutoscaler, "shop-api").await;
    world.object(Kind::Ingress, "shop-api").await;
    // Scale, upgrade, pause, switch off.
    change(
        world,
        "shop",
        json!({"api": {"autoscaling": {"enabled": false}, "replicas": 2}}),
    )
    .await;
    eventually("fixed replicas", || async {
        let deployment = world.object(Kind::Deployment, "shop-api").await;
        (deployment.data["spec"]["replicas"] == 2).then_some(())
    })
    .await;
    change(world, "shop", json!({"version": "0.2.0"})).await;
    finish_migration(world).await;
    eventually("the new release", || async {
        let deployment = world.object(Kind::Deployment, "shop-api").await;
        let image = &deployment.data["spec"]["template"]["spec"]["containers"][0]["image"];
        image.as_str()?.ends_with(":0.2.0").then_some(())
    })
    .await;
    change(
        world,
        "shop",
        json!({"networkPolicy": {"enabled": false}, "ingress": {"enabled": false}}),
    )
    .await;
    world
        .platforms()
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    world.calm().await;
}

#[tokio::test]
async fn what_is_granted_is_what_is_used() {
    let mut world = World::empty("rights").await;
    let objects = install(&world.client).await;
    let operator = Identity::of(
        &world.client,
        Path::new(&kubeconfig()),
        "tanka-system",
        "tanka-operator",
    )
    .await;
    // One namespace, since other tests run beside this one; the rights are those for all namespaces, and so is the way to them.
    let arguments = [
        "--watch-namespaces",
        &world.namespace,
        "--namespace",
        "tanka-system",
        "--identity",
        "rights",
        "--platform-role",
        "tanka-operator-platform",
        "--log-format",
        "text",
    ];
    world.adopt(Operator::start(&operator.kubeconfig, &arguments, &[]));
    live(&world).await;
    live_with_external_services(&world).await;
    tokio::time::sleep(LOGGED).await;

    let mut requests = operator.requests();
    // The account serves another test at the same time.
    requests.retain(|request| {
        let object = request.object_ref.as_ref();
        object.is_none_or(|object| {
            [world.namespace.as_str(), "tanka-system", ""].contains(&object.namespace.as_str())
        })
    });
    let (refused, answered): (Vec<_>, Vec<_>) = requests
        .iter()
        // A role that was just bound is not known to the authorizer yet; the operator asks until it is, and before anything else.
        .filter(|request| !(request.forbidden() && waits_for_its_role(request)))
        .partition(|request| request.forbidden());
    let rights = |requests: Vec<&Request>| {
        requests
            .into_iter()
            .flat_map(Request::rights)
            .collect::<BTreeSet<Triple>>()
    };
    let (refused, used) = (rights(refused), rights(answered));
    assert_eq!(refused, BTreeSet::new(), "used and not granted");

    let granted: BTreeSet<Triple> = objects
        .iter()
        .filter(|object| object["rules"].is_array())
        .flat_map(|role| triples(&role["rules"]))
        .filter(|(group, ..)| !OPTIONAL.contains(&group.as_str()))
        .collect();
    let excused = excused();
    let unused: BTreeSet<_> = granted.difference(&used).cloned().collect();
    assert_eq!(
        unused, excused,
        "granted and not used, against the list of what is allowed to be"
    );
}

fn waits_for_its_role(request: &Request) -> bool {
    let object = request.object_ref.as_ref();
    request.verb == "list" && object.is_some_and(|object| object.resource == "rolebindings")
}

/// A5: of all roles of the cluster it can give itself only its own, whatever it tries.
#[tokio::test]
async fn no_other_role_can_be_bound() {
    let world = World::empty("bind").await;
    install(&world.client).await;
    let operator = Identity::of(
        &world.client,
        Path::new(&kubeconfig()),
        "tanka-system",
        "tanka-operator",
    )
    .await;
    let client = operator.client().await;
    let bindings: Api<DynamicObject> = Api::namespaced_with(
        client.clone(),
        &world.namespace,
        &Kind::RoleBinding.api_resource(),
    );
    let binding = |role: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "tanka-operator", "namespace": "tanka-system"}],
        })
    };
    let try_it = async |role: &str| {
        bindings
            .patch(
                role,
                &PatchParams::apply("tests").force(),
                &Patch::Apply(binding(role)),
            )
            .await
    };
    for role in ["cluster-admin", "admin", "edit", "view"] {
        let refusal = try_it(role).await.unwrap_err();
        assert!(
            matches!(&refusal, kube::Error::Api(status) if status.code == 403),
            "{role}: {refusal}"
        );
    }
    // And where it has no platform it sees nothing.
    for kind in [Kind::Secret, Kind::ConfigMap, Kind::Pod, Kind::Deployment] {
        let api: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), &world.namespace, &kind.api_resource());
        let refusal = api.list(&ListParams::default()).await.unwrap_err();
        assert!(
            matches!(&refusal, kube::Error::Api(status) if status.code == 403),
            "{}: {refusal}",
            kind.as_str()
        );
    }
    try_it("tanka-operator-platform").await.unwrap();
}
