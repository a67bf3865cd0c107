//! Rules and monitors, with and without prometheus-operator.

use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use operator::platform::object::Kind;
use serde_json::json;

use crate::definitions::PROMETHEUS;
use crate::harness::{World, eventually};

/// Time within which the operator uses an API that was installed while it runs.
const PICKED_UP: Duration = Duration::from_secs(10);

async fn gone(world: &World, kind: Kind, name: &str) {
    eventually(&format!("{} {name} to go", kind.as_str()), || async {
        world
            .objects(kind)
            .get_opt(name)
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
}

fn first_expression(rule: &DynamicObject) -> String {
    rule.data["spec"]["groups"][0]["rules"][0]["expr"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// T14, F13: the rules are where the cluster's Prometheus looks for them, from the moment that it can.
#[expect(clippy::too_many_lines, reason = "a story in its order")]
#[tokio::test]
async fn rules_go_where_the_cluster_understands_them() {
    let world = World::new("monitoring").await;
    PROMETHEUS.remove(&world.client).await;
    world
        .create(
            "acme",
            json!({"monitoring": {"alerts": {"labels": {"release": "prometheus"}}}}),
        )
        .await;

    // Without prometheus-operator: no error, and the same rules in a ConfigMap.
    let map = world.object(Kind::ConfigMap, "acme-alerts").await;
    assert!(
        map.data["data"]["rules.yaml"]
            .as_str()
            .unwrap()
            .contains("HighLatency")
    );
    let dashboards = world.object(Kind::ConfigMap, "acme-dashboards").await;
    assert_eq!(dashboards.labels()["grafana_dashboard"], "1");
    let condition = world.condition("acme", "MonitoringReady", "ConfigMapsUsed").await;
    assert_eq!(condition.status, "True");

    // It is installed: found without a restart.
    PROMETHEUS.install(&world.client).await;
    let installed = Instant::now();
    let rule = world.object(Kind::PrometheusRule, "acme-alerts").await;
    assert!(installed.elapsed() < PICKED_UP, "{:?}", installed.elapsed());
    println!(
        "the rule was there {:.1} s after the definition",
        installed.elapsed().as_secs_f64()
    );
    assert_eq!(rule.labels()["release"], "prometheus");
    world.object(Kind::PodMonitor, "acme-api").await;
    world.object(Kind::PodMonitor, "acme-postgres").await;
    gone(&world, Kind::ConfigMap, "acme-alerts").await;
    world.condition("acme", "MonitoringReady", "Available").await;

    // What the real definitions fill in is no difference.
    let before = world.calm().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.writes().await, before);

    let wanted = first_expression(&rule);
    let drift = Patch::Json::<()>(
        serde_json::from_value(
            json!([{"op": "replace", "path": "/spec/groups/0/rules/0/expr", "value": "vector(0)"}]),
        )
        .unwrap(),
    );
    let rules = world.objects(Kind::PrometheusRule);
    rules
        .patch("acme-alerts", &PatchParams::default(), &drift)
        .await
        .unwrap();
    eventually("the rule to be mended", || async {
        let rule = rules.get("acme-alerts").await.unwrap();
        (first_expression(&rule) == wanted).then_some(())
    })
    .await;
    rules
        .delete("acme-alerts", &DeleteParams::default())
        .await
        .unwrap();
    eventually("another rule of that name", || async {
        let again = rules.get_opt("acme-alerts").await.unwrap()?;
        (again.uid() != rule.uid()).then_some(())
    })
    .await;

    // It is removed: the ConfigMap again, and nothing that is tried for ever.
    PROMETHEUS.remove(&world.client).await;
    world.object(Kind::ConfigMap, "acme-alerts").await;
    world.condition("acme", "MonitoringReady", "ConfigMapsUsed").await;
    world.calm().await;
}
