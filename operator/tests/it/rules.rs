//! The definition on a real API server: what it fills in and what it refuses.

use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::World;

async fn create(world: &World, name: &str, spec: Value) -> Result<DynamicObject, String> {
    let kind = GroupVersionKind::gvk("tanka.dev", "v1alpha1", "TankaPlatform");
    let api: Api<DynamicObject> = Api::namespaced_with(
        world.client.clone(),
        &world.namespace,
        &ApiResource::from_gvk_with_plural(&kind, "tankaplatforms"),
    );
    let object = json!({"apiVersion": "tanka.dev/v1alpha1", "kind": "TankaPlatform", "metadata": {"name": name}, "spec": spec});
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
        .await
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn an_empty_spec_is_filled_in_by_the_schema() {
    let world = World::empty("defaults").await;
    let stored = create(&world, "acme", json!({})).await.unwrap();
    let expected = serde_json::to_value(crds::TankaPlatformSpec::default()).unwrap();
    assert_eq!(stored.data["spec"], expected);
}

#[rstest]
#[case(json!({"postgres": {"managed": {}, "external": {"primarySecretRef": {"name": "db", "key": "url"}}}}), "exactly one of postgres.managed")]
#[case(json!({"postgres": {}}), "exactly one of postgres.managed")]
#[case(json!({"redis": {}}), "exactly one of redis.managed")]
#[case(json!({"postgres": {"managed": {"instances": 2}}}), "must be 1, 3 or 5")]
#[case(json!({"redis": {"managed": {"replicas": 4}}}), "must be 1, 3 or 5")]
#[case(json!({"postgres": {"managed": {"instances": 1, "synchronous": "QuorumStrict"}}}), "would never acknowledge")]
#[case(json!({"postgres": {"managed": {"failover": {"retryTimeout": "10s"}}}}), "must not exceed ttl")]
#[case(json!({"postgres": {"managed": {"failover": {"ttl": "10s"}}}}), "ttl of at least 20s")]
#[case(json!({"postgres": {"managed": {"parameters": {"wal_level": "minimal"}}}}), "replication, recovery and archiving are Patroni's")]
#[case(json!({"postgres": {"managed": {"parameters": {"max_connections": "20"}}}}), "max_connections of at least 25")]
#[case(json!({"postgres": {"managed": {"parameters": {"shared_preload_libraries": "evil"}}}}), "shared_preload_libraries must start with")]
#[case(json!({"api": {"autoscaling": {"minReplicas": 11}}}), "minReplicas is greater than maxReplicas")]
#[case(json!({"api": {"embeddings": {"url": "http://embed"}}}), "set url, model and dimensions together")]
#[case(json!({"api": {"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "128Mi"}}}}), "limits.memory is less")]
#[case(json!({"ingress": {"enabled": true}}), "ingress.host is missing")]
#[case(json!({"ingress": {"tls": {"secretName": "cert"}}}), "needs ingress.host")]
#[case(json!({"api": {"drain": {"timeout": "soon"}}}), "should match")]
#[case(json!({"api": {"replicas": 201}}), "less than or equal to 200")]
#[case(json!({"api": {"cache": {"l1Capacity": "512Mi"}}}), "l1Capacity does not fit")]
#[case(json!({"api": {"autoscaling": {"maxReplicas": 73}}}), "need more connections")]
#[case(json!({"api": {"drain": {"timeout": "2h"}}}), "from 1s to 1h")]
#[case(json!({"api": {"auth": {"accessTokenTtl": "48h"}}}), "from 1m to 24h")]
#[case(json!({"api": {"auth": {"accessTokenTtl": "2h", "refreshTokenTtl": "1h"}}}), "nobody could renew a session")]
#[case(json!({"api": {"drain": {"timeout": "1d"}}}), "should match")]
#[case(json!({"api": {"database": {"acquireTimeout": "1m"}}}), "from 10ms to 15s")]
#[case(json!({"api": {"database": {"maxReplicaLag": "0s"}}}), "from 100ms to 1h")]
#[case(json!({"api": {"database": {"readYourWritesTimeout": "6s"}}}), "at most 5s")]
#[case(json!({"api": {"websocket": {"sendBuffer": "1Ki"}}}), "from 4Ki to 16Mi")]
#[case(json!({"api": {"embeddings": {"apiKeySecretRef": {"name": "a", "key": "b"}}}}), "no endpoint")]
#[case(json!({"redis": {"managed": {"maxMemory": "1Gi", "resources": {"limits": {"memory": "1Gi"}}}}}), "must exceed maxMemory")]
#[case(json!({"redis": {"managed": {"maxMemory": "1Mi"}}}), "16Mi or more")]
#[case(json!({"version": "1.2"}), "should match")]
#[case(json!({"images": {"postgres": "two words"}}), "should match")]
#[tokio::test]
async fn a_contradiction_is_refused_with_a_sentence(#[case] spec: Value, #[case] sentence: &str) {
    let world = World::empty("refused").await;
    let refusal = create(&world, "acme", spec).await.unwrap_err();
    assert!(refusal.contains(sentence), "expected {sentence:?} in {refusal:?}");
}

#[rstest]
#[case(json!({"postgres": {"managed": {"storage": {"size": "5Gi"}}}}), "cannot shrink")]
#[case(json!({"postgres": {"managed": {"storage": {"storageClassName": "fast"}}}}), "storageClassName cannot change")]
#[case(json!({"postgres": {"managed": null, "external": {"primarySecretRef": {"name": "db", "key": "url"}}}}), "cannot be exchanged")]
#[case(json!({"redis": {"managed": {"storage": {"size": "1Gi"}}}}), "cannot be added to a live platform")]
#[tokio::test]
async fn a_change_that_would_lose_data_is_refused(#[case] spec: Value, #[case] sentence: &str) {
    use kube::api::{Patch, PatchParams};
    let world = World::empty("changed").await;
    create(&world, "acme", json!({})).await.unwrap();
    let patch = Patch::Merge(json!({"spec": spec}));
    let refusal = world
        .platforms()
        .patch("acme", &PatchParams::default(), &patch)
        .await
        .unwrap_err()
        .to_string();
    assert!(refusal.contains(sentence), "expected {sentence:?} in {refusal:?}");
}

#[tokio::test]
async fn a_name_that_cannot_prefix_a_service_is_refused() {
    let world = World::empty("names").await;
    let refusal = create(&world, "1st.platform", json!({})).await.unwrap_err();
    assert!(refusal.contains("metadata.name prefixes"), "{refusal}");
}

#[tokio::test]
async fn a_release_never_goes_below_the_one_that_runs() {
    use kube::api::{Patch, PatchParams};
    let world = World::empty("downgrade").await;
    create(&world, "acme", json!({"version": "0.2.0"})).await.unwrap();
    let api = world.platforms();
    let version = |version: &str| Patch::Merge(json!({"spec": {"version": version}}));
    let parameters = PatchParams::default();
    api.patch("acme", &parameters, &version("9.9.9")).await.unwrap();
    // It never came to run, so going back is allowed, but not below what does run.
    let runs = Patch::Merge(json!({"status": {"version": "0.2.0"}}));
    api.patch_status("acme", &parameters, &runs).await.unwrap();
    let refusal = api
        .patch("acme", &parameters, &version("0.1.9"))
        .await
        .unwrap_err();
    assert!(
        refusal.to_string().contains("older than the release that runs"),
        "{refusal}"
    );
    api.patch("acme", &parameters, &version("0.2.0")).await.unwrap();
}
