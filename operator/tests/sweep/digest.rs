//! What a namespace comes to, without what differs from run to run although nothing is wrong.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::view::Objects;

/// Objects by `resource/name`, in a canonical form.
pub type Digest = BTreeMap<String, Value>;

/// Fields that say when and as which object, not what.
const VOLATILE: [&str; 16] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "lastTransitionTime",
    "lastProbeTime",
    "lastUpdateTime",
    "startTime",
    "completionTime",
    "clusterIP",
    "clusterIPs",
    "podIP",
    "podIPs",
    "lastFailover",
    "observedGeneration",
];

/// The digest of a namespace.
pub fn digest(namespace: &str, objects: &Objects) -> Digest {
    let names: BTreeMap<String, String> = objects
        .iter()
        .filter_map(|((plural, name), object)| {
            Some((
                object["metadata"]["uid"].as_str()?.to_owned(),
                format!("<{plural}/{name}>"),
            ))
        })
        .collect();
    let plain = |((plural, name), object): (&(&'static str, String), &std::sync::Arc<Value>)| {
        let mut object = canonical(object, namespace, &names);
        if *plural == "secrets" {
            // Values are drawn anew in each run; that they never change is seen elsewhere.
            for (_, value) in object["data"].as_object_mut().into_iter().flatten() {
                *value = json!(value.as_str().map(str::len));
            }
        }
        if *plural == "configmaps" && name.ends_with("-dashboards") {
            // Each text holds an identity that is worked out from the namespace.
            for (_, text) in object["data"].as_object_mut().into_iter().flatten() {
                let dashboard: Value = text
                    .as_str()
                    .and_then(|text| serde_json::from_str(text).ok())
                    .unwrap_or_default();
                *text = canonical(&dashboard, namespace, &names);
            }
        }
        (format!("{plural}/{name}"), object)
    };
    objects
        .iter()
        .map(|entry @ (_, object)| {
            let (key, mut plain) = plain(entry);
            let owners = object["metadata"]["ownerReferences"].as_array();
            for (index, owner) in owners.into_iter().flatten().enumerate() {
                let alive = owner["uid"].as_str().is_some_and(|uid| names.contains_key(uid));
                plain["metadata"]["ownerReferences"][index]["alive"] = json!(alive);
            }
            if entry.0.0 == "tankaplatforms" {
                let seen = &object["status"]["observedGeneration"];
                plain["status"]["isCurrent"] = json!(*seen == object["metadata"]["generation"]);
            }
            (key, plain)
        })
        .collect()
}

fn canonical(value: &Value, namespace: &str, names: &BTreeMap<String, String>) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields
                .iter()
                .filter(|(field, _)| !VOLATILE.contains(&field.as_str()))
                .map(|(field, value)| {
                    (
                        field.replace(namespace, "NAMESPACE"),
                        canonical(value, namespace, names),
                    )
                });
            Value::Object(kept.collect::<Map<_, _>>())
        }
        Value::Array(items) => items
            .iter()
            .map(|item| canonical(item, namespace, names))
            .collect(),
        Value::String(text) => {
            let text = names.get(text).unwrap_or(text);
            Value::String(text.replace(namespace, "NAMESPACE"))
        }
        other => other.clone(),
    }
}

/// Where two digests differ, by path, without the paths that are masked.
pub fn differences(expected: &Digest, found: &Digest, mask: &[String]) -> Vec<String> {
    let mut all = compared(expected, found);
    all.retain(|(path, _)| !mask.contains(path));
    all.into_iter()
        .map(|(path, text)| format!("{path}: {text}"))
        .collect()
}

/// Paths at which two runs without any fault differ.
pub fn mask(one: &Digest, other: &Digest) -> Vec<String> {
    compared(one, other).into_iter().map(|(path, _)| path).collect()
}

fn compared(expected: &Digest, found: &Digest) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for key in expected
        .keys()
        .chain(found.keys().filter(|key| !expected.contains_key(*key)))
    {
        match (expected.get(key), found.get(key)) {
            (Some(a), Some(b)) => compare(key, a, b, &mut all),
            (Some(_), None) => all.push((key.clone(), "missing".to_owned())),
            (None, _) => all.push((key.clone(), "unexpected".to_owned())),
        }
    }
    all
}

fn compare(path: &str, expected: &Value, found: &Value, all: &mut Vec<(String, String)>) {
    match (expected, found) {
        (Value::Object(a), Value::Object(b)) => {
            for field in a.keys().chain(b.keys().filter(|field| !a.contains_key(*field))) {
                let at = format!("{path} > {field}");
                match (a.get(field), b.get(field)) {
                    (Some(a), Some(b)) => compare(&at, a, b, all),
                    (Some(a), None) => all.push((at, format!("missing, expected {}", short(a)))),
                    (None, Some(b)) => all.push((at, format!("unexpected {}", short(b)))),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path} > {index}"), a, b, all);
            }
        }
        (a, b) if a != b => all.push((
            path.to_owned(),
            format!("expected {}, found {}", short(a), short(b)),
        )),
        _ => {}
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
