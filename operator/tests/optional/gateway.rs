//! HTTPRoutes, with and without the Gateway API.

use kube::api::{Patch, PatchParams, PostParams};
use operator::platform::object::Kind;
use serde_json::json;

use crate::definitions::GATEWAY;
use crate::harness::{World, eventually, external};

#[tokio::test]
async fn a_route_is_made_once_it_can_be_and_its_gateway_is_heard() {
    let world = World::new("gateway").await;
    GATEWAY.remove(&world.client).await;
    let mut spec = external();
    spec["ingress"] = json!({"enabled": true, "host": "api.example.com", "gateway": {"name": "public"}});
    world.create("acme", spec).await;
    world.migrate("acme").await;
    let missing = world.condition("acme", "IngressReady", "GatewayApiMissing").await;
    assert!(missing.message.contains("not installed"), "{}", missing.message);

    GATEWAY.install(&world.client).await;
    let route = world.object(Kind::HTTPRoute, "acme-api").await;
    assert_eq!(route.data["spec"]["rules"][0]["timeouts"]["request"], "0s");
    let waiting = world.condition("acme", "IngressReady", "Progressing").await;
    assert!(
        waiting.message.contains("there is no such Gateway"),
        "{}",
        waiting.message
    );

    // The Gateway and its controller's verdict, as the controller would write it.
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "public"},
        "spec": {"gatewayClassName": "tests", "listeners": [{"name": "web", "protocol": "HTTP", "port": 80}]},
    });
    world
        .objects(Kind::Gateway)
        .create(&PostParams::default(), &serde_json::from_value(gateway).unwrap())
        .await
        .unwrap();
    verdict(&world, "False", "NotAllowedByListeners").await;
    let refused = world.condition("acme", "IngressReady", "RouteNotAccepted").await;
    assert!(
        refused.message.contains("NotAllowedByListeners"),
        "{}",
        refused.message
    );
    verdict(&world, "True", "Accepted").await;
    world.condition("acme", "IngressReady", "Available").await;
    let platforms = world.platforms();
    eventually("an address as the Gateway serves it", || async {
        let url = platforms.get("acme").await.unwrap().status?.url?;
        (url == "http://api.example.com").then_some(())
    })
    .await;
    let before = world.calm().await;
    assert_eq!(world.calm().await, before);

    GATEWAY.remove(&world.client).await;
    world.condition("acme", "IngressReady", "GatewayApiMissing").await;
}

async fn verdict(world: &World, accepted: &str, reason: &str) {
    let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "message": "so it is", "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"status": {"parents": [{
        "controllerName": "example.com/tests",
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public"},
        "conditions": [condition("Accepted", accepted, reason), condition("ResolvedRefs", "True", "ResolvedRefs")],
    }]}});
    world
        .objects(Kind::HTTPRoute)
        .patch_status("acme-api", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}
