//! Every rule of the definition, once kept and once broken, evaluated without a cluster.

use crds::platform::crd;
use crds::{TankaPlatform, TankaPlatformSpec};
use kube::core::cel::Validator;
use rstest::rstest;
use serde_json::{Value, json};

/// A platform with every default filled in, as the API server stores it, and `spec` laid over it.
fn platform(spec: &Value) -> Value {
    let mut object = serde_json::to_value(TankaPlatform::new("acme", TankaPlatformSpec::default())).unwrap();
    merge(&mut object["spec"], spec);
    object
}

/// JSON merge patch: objects are merged, `null` removes, all else replaces.
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(key);
                } else {
                    merge(target.entry(key).or_insert(json!({})), value);
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

fn violations(object: &Value, old: Option<&Value>) -> Vec<String> {
    let crd = serde_json::to_value(crd()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    Validator::new()
        .validate(schema, object, old)
        .err()
        .map(|errors| errors.iter().map(ToString::to_string).collect())
        .unwrap_or_default()
}

#[rstest]
#[case(json!({}))]
#[case(json!({"postgres": {"managed": {"instances": 1, "synchronous": "Async"}}}))]
#[case(json!({"postgres": {"managed": null, "external": {"primarySecretRef": {"name": "db", "key": "url"}}}}))]
#[case(json!({"redis": {"managed": {"replicas": 5}}}))]
#[case(json!({"api": {"embeddings": {"url": "http://embed", "model": "m", "dimensions": 384}}}))]
#[case(json!({"ingress": {"enabled": true, "host": "api.example.com", "tls": {"secretName": "cert"}}}))]
#[case(json!({"postgres": {"managed": {"failover": {"ttl": "1m", "loopWait": "10s", "retryTimeout": "10s"}}}}))]
fn a_sound_spec_is_accepted(#[case] spec: Value) {
    assert_eq!(violations(&platform(&spec), None), Vec::<String>::new());
}

#[rstest]
#[case(json!({"postgres": {"external": {"primarySecretRef": {"name": "db", "key": "url"}}}}), "exactly one of postgres.managed")]
#[case(json!({"postgres": {"managed": null}}), "exactly one of postgres.managed")]
#[case(json!({"redis": {"managed": null}}), "exactly one of redis.managed")]
#[case(json!({"postgres": {"managed": {"instances": 2}}}), "must be 1, 3 or 5")]
#[case(json!({"redis": {"managed": {"replicas": 4}}}), "must be 1, 3 or 5")]
#[case(json!({"postgres": {"managed": {"instances": 1, "synchronous": "QuorumStrict"}}}), "would never acknowledge")]
#[case(json!({"postgres": {"managed": {"failover": {"retryTimeout": "10s"}}}}), "must not exceed ttl")]
#[case(json!({"postgres": {"managed": {"failover": {"ttl": "10s"}}}}), "ttl of at least 20s")]
#[case(json!({"api": {"autoscaling": {"minReplicas": 11}}}), "minReplicas is greater than maxReplicas")]
#[case(json!({"api": {"embeddings": {"url": "http://embed"}}}), "set url, model and dimensions together")]
#[case(json!({"api": {"resources": {"limits": {"memory": "128Mi"}}}}), "limits.memory is less")]
#[case(json!({"api": {"resources": {"limits": {"cpu": "100m"}}}}), "limits.cpu is less")]
#[case(json!({"ingress": {"enabled": true}}), "ingress.host is missing")]
#[case(json!({"ingress": {"tls": {"secretName": "cert"}}}), "needs ingress.host")]
#[case(json!({"ingress": {"host": "a.b", "tls": {"secretName": "cert", "issuerRef": {"name": "x", "kind": "Issuer"}}}}), "exactly one of tls.secretName")]
fn a_contradiction_is_refused_with_a_sentence(#[case] spec: Value, #[case] sentence: &str) {
    let found = violations(&platform(&spec), None);
    assert!(
        found.iter().any(|text| text.contains(sentence)),
        "expected {sentence:?} among {found:?}"
    );
}

#[rstest]
#[case("Acme")]
#[case("1st")]
#[case("a.b")]
#[case("a-name-that-has-more-than-forty-characters")]
fn a_name_that_cannot_prefix_a_service_is_refused(#[case] name: &str) {
    let mut object = platform(&json!({}));
    object["metadata"]["name"] = json!(name);
    assert!(
        violations(&object, None)
            .iter()
            .any(|text| text.contains("metadata.name"))
    );
}

#[rstest]
#[case(json!({"postgres": {"managed": {"storage": {"size": "5Gi"}}}}), "cannot shrink")]
#[case(json!({"postgres": {"managed": {"storage": {"storageClassName": "fast"}}}}), "storageClassName cannot change")]
#[case(json!({"postgres": {"managed": null, "external": {"primarySecretRef": {"name": "db", "key": "url"}}}}), "cannot be exchanged")]
fn a_change_that_would_lose_data_is_refused(#[case] spec: Value, #[case] sentence: &str) {
    let found = violations(&platform(&spec), Some(&platform(&json!({}))));
    assert!(
        found.iter().any(|text| text.contains(sentence)),
        "expected {sentence:?} among {found:?}"
    );
}

#[test]
fn a_volume_may_grow() {
    let larger = platform(&json!({"postgres": {"managed": {"storage": {"size": "20Gi"}}}}));
    assert_eq!(
        violations(&larger, Some(&platform(&json!({})))),
        Vec::<String>::new()
    );
}
