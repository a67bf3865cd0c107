//! The way in: who has the host, who serves it, and with which certificate.

use kube::ResourceExt;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use operator::platform::object::Kind;
use serde_json::{Value, json};

use crate::harness::{World, eventually, external};

async fn platform(name: &str, extra: Value) -> (World, String) {
    let world = World::new(name).await;
    // Hosts are the whole cluster's; tests run side by side.
    let host = format!("{}.example.com", world.namespace);
    let mut spec = external();
    spec["ingress"] = json!({"enabled": true, "host": host, "className": "nginx"});
    spec["ingress"]
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    world.create("acme", spec).await;
    (world, host)
}

async fn give_address(world: &World) {
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    world
        .objects(Kind::Ingress)
        .patch_status("acme-api", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_ingress_is_ready_when_its_controller_has_taken_it_up() {
    let (world, host) = platform("edge", json!({})).await;
    world.migrate("acme").await;
    let ingress = world.object(Kind::Ingress, "acme-api").await;
    assert_eq!(ingress.data["spec"]["rules"][0]["host"], host);
    assert_eq!(
        ingress.annotations()["nginx.ingress.kubernetes.io/proxy-read-timeout"],
        "3600"
    );
    let pending = world.condition("acme", "IngressReady", "AddressPending").await;
    assert_eq!(pending.status, "False");
    give_address(&world).await;
    world.condition("acme", "IngressReady", "Available").await;
}

#[tokio::test]
async fn a_host_that_another_ingress_routes_is_not_taken_from_it() {
    let (world, host) = platform("rival", json!({})).await;
    let rival: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "site"},
        "spec": {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "site", "port": {"number": 80}}}},
        ]}}]},
    }))
    .unwrap();
    let ingresses = world.objects(Kind::Ingress);
    ingresses.create(&PostParams::default(), &rival).await.unwrap();
    let conflict = world.condition("acme", "IngressReady", "HostConflict").await;
    let name = format!("{}/site", world.namespace);
    assert!(conflict.message.contains(&name), "{}", conflict.message);
    world.migrate("acme").await;
    world.object(Kind::Deployment, "acme-api").await;
    world.condition("acme", "IngressReady", "HostConflict").await;
    assert!(ingresses.get_opt("acme-api").await.unwrap().is_none());
    ingresses.delete("site", &DeleteParams::default()).await.unwrap();
    world.object(Kind::Ingress, "acme-api").await;
}

#[tokio::test]
async fn a_missing_certificate_is_told_until_it_is_there() {
    let (world, _) = platform("certificate", json!({"tls": {"secretName": "cert"}})).await;
    world.migrate("acme").await;
    world.object(Kind::Ingress, "acme-api").await;
    give_address(&world).await;
    let missing = world.condition("acme", "IngressReady", "SecretMissing").await;
    assert!(missing.message.contains("Secret cert"), "{}", missing.message);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}});
    world
        .objects(Kind::Secret)
        .create(&PostParams::default(), &serde_json::from_value(secret).unwrap())
        .await
        .unwrap();
    world.condition("acme", "IngressReady", "Available").await;
    let platforms = world.platforms();
    eventually("an encrypted address", || async {
        let url = platforms.get("acme").await.unwrap().status?.url?;
        url.starts_with("https://").then_some(())
    })
    .await;
}
