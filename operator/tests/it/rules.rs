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
#[case(json!({"api": {"autoscaling": {"minReplicas": 11}}}), "minReplicas is greater than maxReplicas")]
#[case(json!({"api": {"embeddings": {"url": "http://embed"}}}), "set url, model and dimensions together")]
#[case(json!({"api": {"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "128Mi"}}}}), "limits.memory is less")]
#[case(json!({"ingress": {"enabled": true}}), "ingress.host is missing")]
#[case(json!({"ingress": {"tls": {"secretName": "cert"}}}), "needs ingress.host")]
#[case(json!({"api": {"drain": {"timeout": "soon"}}}), "should match")]
#[case(json!({"api": {"replicas": 201}}), "less than or equal to 200")]
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
