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
#[case(json!({"api": {"auth": {"accessTokenTtl": "24h", "refreshTokenTtl": "1d"}}}))]
#[case(json!({"api": {"auth": {"accessTokenTtl": "1m", "refreshTokenTtl": "2h"}}}))]
#[case(json!({"postgres": {"managed": {"parameters": {"work_mem": "64MB", "max_connections": "300", "auto_explain.log_min_duration": "1s", "shared_preload_libraries": "pg_stat_statements, auto_explain"}}}}))]
#[case(json!({"api": {"embeddings": {"url": "http://embed", "model": "m", "dimensions": 384}}}))]
#[case(json!({"api": {"outbound": {"allowedNetworks": ["10.20.0.0/16", "fd00::/8"]}}}))]
#[case(json!({"ingress": {"enabled": true, "host": "api.example.com", "tls": {"secretName": "cert"}}}))]
#[case(json!({"postgres": {"managed": {"failover": {"ttl": "1m", "loopWait": "10s", "retryTimeout": "10s"}}}}))]
#[case(json!({"version": "1.20.3-rc.1"}))]
#[case(json!({"api": {"autoscaling": {"maxReplicas": 72}}}))]
#[case(json!({"api": {"autoscaling": {"maxReplicas": 100}}, "postgres": {"managed": {"parameters": {"max_connections": "269"}}}}))]
#[case(json!({"api": {"autoscaling": {"maxReplicas": 100, "enabled": false}}}))]
#[case(json!({"api": {"drain": {"timeout": "1h"}, "cache": {"l1Capacity": "511Mi"}}}))]
#[case(json!({"redis": {"managed": {"maxMemory": "1Gi", "resources": {"limits": {"memory": "2Gi"}}}}}))]
#[case(json!({"ingress": {"enabled": true, "host": "api.example.com", "gateway": {"name": "public", "namespace": "infra"}}}))]
#[case(json!({"api": {"autoscaling": {"podMetrics": [{"type": "Pods", "pods": {"metric": {"name": "tanka_http_requests_in_flight"}}}]}}}))]
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
#[case(json!({"postgres": {"managed": {"parameters": {"wal_level": "minimal"}}}}), "replication, recovery and archiving are Patroni's")]
#[case(json!({"postgres": {"managed": {"parameters": {"synchronous_commit": "off"}}}}), "write synchronous: Quorum")]
#[case(json!({"postgres": {"managed": {"parameters": {"listen_addresses": "*"}}}}), "belong to the operator")]
#[case(json!({"postgres": {"managed": {"parameters": {"fsync": "off"}}}}), "put data at risk")]
#[case(json!({"postgres": {"managed": {"parameters": {"logging_collector": "on"}}}}), "logs go to standard error")]
#[case(json!({"postgres": {"managed": {"parameters": {"max_connections": "20"}}}}), "max_connections of at least 25")]
#[case(json!({"postgres": {"managed": {"parameters": {"max_connections": "many"}}}}), "max_connections of at least 25")]
#[case(json!({"postgres": {"managed": {"parameters": {"Work_Mem": "4MB"}}}}), "in lower case")]
#[case(json!({"postgres": {"managed": {"parameters": {"work_mem": "4MB\nfsync = off"}}}}), "one line of printable ASCII")]
#[case(json!({"postgres": {"managed": {"parameters": {"shared_preload_libraries": "pg_stat_statements,evil"}}}}), "shared_preload_libraries must start with")]
#[case(json!({"api": {"autoscaling": {"minReplicas": 11}}}), "minReplicas is greater than maxReplicas")]
#[case(json!({"api": {"embeddings": {"url": "http://embed"}}}), "set url, model and dimensions together")]
#[case(json!({"api": {"resources": {"limits": {"memory": "128Mi"}}}}), "limits.memory is less")]
#[case(json!({"api": {"resources": {"limits": {"cpu": "100m"}}}}), "limits.cpu is less")]
#[case(json!({"ingress": {"enabled": true}}), "ingress.host is missing")]
#[case(json!({"ingress": {"tls": {"secretName": "cert"}}}), "needs ingress.host")]
#[case(json!({"ingress": {"host": "a.b", "tls": {"secretName": "cert", "issuerRef": {"name": "x", "kind": "Issuer"}}}}), "exactly one of tls.secretName")]
#[case(json!({"api": {"cache": {"l1Capacity": "512Mi"}}}), "l1Capacity does not fit")]
#[case(json!({"api": {"autoscaling": {"maxReplicas": 73}}}), "need more connections")]
#[case(json!({"api": {"replicas": 73, "autoscaling": {"enabled": false}}}), "need more connections")]
#[case(json!({"api": {"autoscaling": {"maxReplicas": 100}}, "postgres": {"managed": {"parameters": {"max_connections": "268"}}}}), "need more connections")]
#[case(json!({"api": {"drain": {"timeout": "2h"}}}), "from 1s to 1h")]
#[case(json!({"api": {"database": {"acquireTimeout": "1m"}}}), "from 10ms to 15s")]
#[case(json!({"api": {"database": {"maxReplicaLag": "0s"}}}), "from 100ms to 1h")]
#[case(json!({"api": {"database": {"readYourWritesTimeout": "6s"}}}), "at most 5s")]
#[case(json!({"api": {"websocket": {"sendBuffer": "1Ki"}}}), "from 4Ki to 16Mi")]
#[case(json!({"api": {"embeddings": {"apiKeySecretRef": {"name": "a", "key": "b"}}}}), "no endpoint")]
#[case(json!({"redis": {"managed": {"maxMemory": "1Gi", "resources": {"limits": {"memory": "1Gi"}}}}}), "must exceed maxMemory")]
#[case(json!({"redis": {"managed": {"maxMemory": "1Mi"}}}), "16Mi or more")]
#[case(json!({"ingress": {"host": "a.b", "gateway": {"name": "g"}, "tls": {"secretName": "cert"}}}), "the Gateway ends TLS")]
#[case(json!({"ingress": {"host": "a.b", "gateway": {"name": "g"}, "className": "nginx"}}), "the Gateway names its own class")]
#[case(json!({"api": {"auth": {"accessTokenTtl": "10s"}}}), "from 1m to 24h")]
#[case(json!({"api": {"auth": {"accessTokenTtl": "48h"}}}), "from 1m to 24h")]
#[case(json!({"api": {"auth": {"accessTokenTtl": "2h", "refreshTokenTtl": "1h"}}}), "nobody could renew a session")]
// F45: percentiles do not average.
#[case(json!({"api": {"autoscaling": {"podMetrics": [{"type": "Pods", "pods": {"metric": {"name": "cascade_query_duration_seconds_p95"}}}]}}}), "percentiles of pods cannot be averaged")]
fn a_contradiction_is_refused_with_a_sentence(#[case] spec: Value, #[case] sentence: &str) {
    let found = violations(&platform(&spec), None);
    assert!(
        found.iter().any(|text| text.contains(sentence)),
        "expected {sentence:?} among {found:?}"
    );
}

/// What the API server refuses now, the operator refuses in an object that was stored before.
#[rstest]
#[case("wal_level", "minimal", false)]
#[case("max_connections", "20", false)]
#[case("max_connections", "25", true)]
#[case("Work_Mem", "4MB", false)]
#[case("a.b.c", "1", false)]
#[case("work_mem", "4MB\nfsync = off", false)]
#[case("work_mem", "4MB", true)]
#[case("auto_explain.log_min_duration", "1s", true)]
#[case("shared_preload_libraries", "pg_stat_statements, pg_prewarm", true)]
#[case("shared_preload_libraries", "pg_prewarm", false)]
fn both_sides_agree_on_parameters(#[case] name: &str, #[case] value: &str, #[case] accepted: bool) {
    // One pod, so that few connections are enough for its pools.
    let api = json!({"replicas": 1, "autoscaling": {"enabled": false}});
    let spec = json!({"api": api, "postgres": {"managed": {"parameters": {name: value}}}});
    assert_eq!(violations(&platform(&spec), None).is_empty(), accepted);
    let parameters = [(name.to_owned(), value.to_owned())].into();
    assert_eq!(
        crds::platform::postgres::parameters::refusal(&parameters).is_none(),
        accepted
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
#[case(json!({"redis": {"managed": {"storage": {"size": "1Gi"}}}}), "cannot be added to a live platform")]
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

#[rstest]
#[case::lower("0.9.9", false)]
#[case::much_lower("0.1.10", false)]
#[case::same("0.10.2", true)]
#[case::higher("0.10.3", true)]
#[case::candidate("0.11.0-rc.1", true)]
#[case::of_the_operator("", true)]
fn a_release_never_goes_below_the_one_that_runs(#[case] wanted: &str, #[case] allowed: bool) {
    let mut old = platform(&json!({"version": "9.9.9"}));
    // What was asked for last never came to run: going back from it is no downgrade.
    old["status"] = json!({"version": "0.10.2"});
    let mut new = platform(&json!({"version": wanted}));
    new["status"] = old["status"].clone();
    let found = violations(&new, Some(&old));
    assert_eq!(found.is_empty(), allowed, "{found:?}");
    assert!(
        allowed || found[0].contains("older than the release that runs"),
        "{found:?}"
    );
}
