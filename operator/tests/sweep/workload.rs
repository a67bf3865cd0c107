//! What people do with a platform. Each workload is run once without a fault and then once for each fault.

use serde_json::{Value, json};

/// One thing that somebody does, or waits for.
#[derive(Debug, Clone)]
pub enum Deed {
    /// Makes the platform.
    Create(Value),
    /// Changes its spec.
    Change(Value),
    /// Deletes it.
    Delete,
    /// Waits until the object is gone.
    Gone,
    /// Waits for a reason of a condition at the current generation.
    Await(&'static str, &'static str),
    /// Changes an object of the platform by hand.
    Drift(&'static str, &'static str, Value),
    /// Deletes an object of the platform by hand.
    Lose(&'static str, &'static str),
    /// Makes an object that belongs to nobody.
    Foreign(&'static str, Value),
    /// Decides as an autoscaler would.
    Scale(i32),
}

/// A workload.
pub struct Workload {
    /// Its name in tables.
    pub name: &'static str,
    /// What is done before, without faults; ends with a platform that is ready.
    pub before: Vec<Deed>,
    /// What is done under faults.
    pub change: Vec<Deed>,
    /// Whether the autoscaler owns the number of pods from beginning to end.
    pub autoscaled: bool,
    /// Whether it needs what the operator remembers, so that no operator could do it that dies meanwhile.
    pub needs_memory: bool,
}

/// A small platform.
fn small() -> Value {
    json!({
        "api": {"autoscaling": {"minReplicas": 1, "maxReplicas": 4}},
        "postgres": {"managed": {"instances": 3}},
        "redis": {"managed": {"replicas": 1}},
    })
}

/// The same with something laid over it.
fn small_with(patch: &Value) -> Value {
    let mut spec = small();
    lay(&mut spec, patch);
    spec
}

fn lay(target: &mut Value, patch: &Value) {
    if let (Value::Object(target), Value::Object(patch)) = (&mut *target, patch) {
        for (field, value) in patch {
            lay(target.entry(field.clone()).or_insert(json!({})), value);
        }
    } else {
        *target = patch.clone();
    }
}

/// All workloads.
#[expect(clippy::too_many_lines, reason = "a table")]
pub fn all() -> Vec<Workload> {
    let workload = |name, before: Vec<Deed>, change: Vec<Deed>| Workload {
        name,
        before,
        change,
        autoscaled: true,
        needs_memory: false,
    };
    let made = || vec![Deed::Create(small())];
    let fixed = json!({"api": {"replicas": 2, "autoscaling": {"enabled": false}}});
    vec![
        workload("create", vec![], made()),
        Workload {
            autoscaled: false,
            ..workload(
                "scale",
                vec![Deed::Create(small_with(
                    &json!({"api": {"replicas": 1, "autoscaling": {"enabled": false}}, "postgres": {"managed": {"instances": 1}}}),
                ))],
                vec![Deed::Change(
                    json!({"api": {"replicas": 3}, "postgres": {"managed": {"instances": 3}}, "redis": {"managed": {"replicas": 3}}}),
                )],
            )
        },
        workload(
            "parameters",
            vec![Deed::Create(small_with(
                &json!({"api": {"podTemplate": {"annotations": {"team": "ada"}, "nodeSelector": {"disk": "ssd"}}}}),
            ))],
            vec![Deed::Change(json!({
                "api": {"logLevel": "debug", "podTemplate": {"annotations": {"team": null, "cost": "7"}, "nodeSelector": {"disk": null}}, "autoscaling": {"maxReplicas": 6}},
                "postgres": {"managed": {"parameters": {"work_mem": "8MB"}}},
                "networkPolicy": {"enabled": false},
            }))],
        ),
        workload(
            "parameters that take a restart",
            made(),
            vec![Deed::Change(
                json!({"postgres": {"managed": {"parameters": {"max_connections": "300"}}}}),
            )],
        ),
        workload(
            "shrink",
            vec![Deed::Create(small_with(
                &json!({"redis": {"managed": {"replicas": 3}}}),
            ))],
            vec![Deed::Change(
                json!({"postgres": {"managed": {"instances": 1}}, "redis": {"managed": {"replicas": 1}}}),
            )],
        ),
        workload("upgrade", made(), vec![Deed::Change(json!({"version": "0.2.0"}))]),
        workload(
            "failed upgrade and its correction",
            made(),
            vec![
                Deed::Change(json!({"images": {"apiServer": "tanka/api-server:failing"}})),
                Deed::Await("MigrationsApplied", "MigrationFailed"),
                Deed::Change(json!({"images": {"apiServer": "tanka/api-server:0.2.0"}})),
            ],
        ),
        workload(
            "pause",
            made(),
            vec![
                Deed::Change(
                    json!({"paused": true, "redis": {"managed": {"replicas": 3}}, "networkPolicy": {"enabled": false}}),
                ),
                Deed::Await("Ready", "ReplicaNotStreaming"),
                Deed::Change(json!({"paused": false})),
            ],
        ),
        workload("delete and retain", made(), vec![Deed::Delete, Deed::Gone]),
        workload(
            "delete with data",
            vec![Deed::Create(small_with(&json!({"deletionPolicy": "Delete"})))],
            vec![Deed::Delete, Deed::Gone],
        ),
        workload(
            "drift",
            made(),
            vec![
                Deed::Drift(
                    "services",
                    "acme-postgres-ro",
                    json!({"spec": {"ports": [{"name": "postgres", "port": 5555, "protocol": "TCP"}]}}),
                ),
                Deed::Drift(
                    "configmaps",
                    "acme-api-config",
                    json!({"data": {concat!("tanka-", env!("CARGO_PKG_VERSION"), ".yaml"): "{}"}, "metadata": {"labels": {"tanka.dev/platform": "other"}}}),
                ),
                Deed::Drift(
                    "statefulsets",
                    "acme-redis",
                    json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}),
                ),
                Deed::Lose("networkpolicies", "acme-redis"),
                Deed::Lose("poddisruptionbudgets", "acme-api"),
                Deed::Lose("deployments", "acme-api"),
            ],
        ),
        Workload {
            needs_memory: true,
            ..workload(
                "lost credentials",
                made(),
                vec![
                    Deed::Lose("secrets", "acme-redis"),
                    Deed::Lose("secrets", "acme-postgres"),
                ],
            )
        },
        Workload {
            autoscaled: false,
            ..workload(
                "autoscaling off and on",
                made(),
                vec![
                    Deed::Change(fixed),
                    Deed::Await("Ready", "AllReady"),
                    Deed::Change(json!({"api": {"autoscaling": {"enabled": true}}})),
                ],
            )
        },
        workload(
            "change under the autoscaler",
            vec![Deed::Create(small()), Deed::Scale(3)],
            vec![Deed::Change(
                json!({"api": {"autoscaling": {"targetCpuUtilization": 60}, "podTemplate": {"labels": {"tier": "gold"}}}}),
            )],
        ),
        workload(
            "deletion policy",
            made(),
            vec![Deed::Change(json!({"deletionPolicy": "Delete"}))],
        ),
        workload(
            "delete and create again",
            made(),
            vec![
                Deed::Delete,
                Deed::Gone,
                Deed::Create(small_with(&json!({"redis": {"managed": {"replicas": 3}}}))),
            ],
        ),
        workload(
            "foreign object",
            vec![],
            vec![
                Deed::Foreign(
                    "configmaps",
                    json!({"metadata": {"name": "acme-api-config"}, "data": {"mine": "yes"}}),
                ),
                Deed::Create(small()),
                Deed::Await("Stalled", "NameConflict"),
                Deed::Lose("configmaps", "acme-api-config"),
            ],
        ),
    ]
}
