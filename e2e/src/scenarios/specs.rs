//! Specs of platforms that fit several times on a small cluster.

use serde_json::{Value, json};

/// One pod of each part: the quickest to start.
pub fn single() -> Value {
    sized(1, 1, 1)
}

/// Two API pods, three instances of PostgreSQL, three members of Redis.
pub fn full() -> Value {
    sized(2, 3, 3)
}

fn sized(api: u8, postgres: u8, redis: u8) -> Value {
    let requests = |memory: &str| json!({"requests": {"cpu": "10m", "memory": memory}});
    json!({
        "api": {
            "replicas": api,
            "autoscaling": {"enabled": false},
            "resources": requests("32Mi"),
            "drain": {"timeout": "3s"},
        },
        "postgres": {"managed": {
            "instances": postgres,
            "storage": {"size": "1Gi"},
            "resources": requests("64Mi"),
            "parameters": {"shared_buffers": "32MB"},
        }},
        "redis": {"managed": {"replicas": redis, "maxMemory": "32Mi", "resources": requests("16Mi")}},
    })
}

/// A spec with changes: a JSON merge patch.
#[must_use]
pub fn with(mut spec: Value, changes: &Value) -> Value {
    merge(&mut spec, changes);
    spec
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, field) in fields {
        if field.is_null() {
            target.as_object_mut().map(|object| object.remove(name));
        } else {
            merge(&mut target[name], field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_merged_into_a_spec() {
        let spec = with(
            json!({"a": {"b": 1, "c": 2}}),
            &json!({"a": {"b": 3, "c": null}, "d": {"e": 4}}),
        );
        assert_eq!(spec, json!({"a": {"b": 3}, "d": {"e": 4}}));
    }
}
