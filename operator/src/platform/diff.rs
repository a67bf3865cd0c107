//! Whether a live object already is what it should be, looking only at the fields that we own.

use serde_json::{Map, Value};

/// Fields that Kubernetes merges as a whole: what somebody adds inside changes what is selected, or who is granted something.
const WHOLE: [&str; 6] = [
    "selector",
    "podSelector",
    "namespaceSelector",
    "labelSelector",
    "nodeSelector",
    "subjects",
];

/// The part of `live` that `desired` speaks of. Lists are matched by `name` (or `type`) where their elements have one, else by
/// position, so that what others add (sidecars, defaults, annotations) does not count as a difference.
pub fn project(live: &Value, desired: &Value) -> Value {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            let fields = desired.iter().filter_map(|(name, wanted)| {
                let live = live.get(name)?;
                let part = if WHOLE.contains(&name.as_str()) {
                    whole(live, wanted)
                } else {
                    project(live, wanted)
                };
                Some((name.clone(), part))
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        (Value::Array(live), Value::Array(desired)) => project_list(live, desired),
        (live, _) => live.clone(),
    }
}

/// All of `live`, but for defaults of the elements of a list.
fn whole(live: &Value, desired: &Value) -> Value {
    match (live, desired) {
        (Value::Array(live), Value::Array(desired)) => by_position(live, desired),
        (live, _) => live.clone(),
    }
}

/// An element more or less is a difference.
fn by_position(live: &[Value], desired: &[Value]) -> Value {
    let items = live.iter().enumerate().map(|(i, item)| {
        desired
            .get(i)
            .map_or_else(|| item.clone(), |wanted| project(item, wanted))
    });
    Value::Array(items.collect())
}

fn project_list(live: &[Value], desired: &[Value]) -> Value {
    let Some(key) = list_key(desired) else {
        return by_position(live, desired);
    };
    let found = desired.iter().filter_map(|wanted| {
        let item = live.iter().find(|item| item[key] == wanted[key])?;
        Some(project(item, wanted))
    });
    Value::Array(found.collect())
}

/// The field that tells the elements of a list apart, where Kubernetes merges by one. Metrics of an autoscaler may be of one type.
fn list_key(items: &[Value]) -> Option<&'static str> {
    let tells_apart = |key: &str| {
        let mut values = items.iter().enumerate().map(|(i, item)| (i, item.get(key)));
        values.all(|(i, value)| value.is_some() && !items[..i].iter().any(|other| other.get(key) == value))
    };
    ["name", "mountPath", "type"]
        .into_iter()
        .find(|key| !items.is_empty() && tells_apart(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::defaults(json!({"a": 1, "b": 2}), json!({"a": 1}))]
    #[case::nested(json!({"spec": {"x": {"y": 1, "z": 2}}}), json!({"spec": {"x": {"y": 1}}}))]
    #[case::sidecar(json!({"c": [{"name": "proxy"}, {"name": "api", "image": "i", "tty": false}]}), json!({"c": [{"name": "api", "image": "i"}]}))]
    #[case::two_of_a_type(json!({"metrics": [{"type": "R", "r": {"name": "cpu", "x": 0}}, {"type": "R", "r": {"name": "memory"}}]}), json!({"metrics": [{"type": "R", "r": {"name": "cpu"}}, {"type": "R", "r": {"name": "memory"}}]}))]
    #[case::order(json!({"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}), json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}))]
    #[case::default_of_a_subject(json!({"subjects": [{"name": "ours", "apiGroup": ""}]}), json!({"subjects": [{"name": "ours"}]}))]
    fn what_others_add_is_no_difference(#[case] live: Value, #[case] desired: Value) {
        assert_eq!(project(&live, &desired), desired);
    }

    #[rstest]
    #[case::value(json!({"a": 1}), json!({"a": 2}))]
    #[case::missing(json!({}), json!({"a": 1}))]
    #[case::missing_element(json!({"c": []}), json!({"c": [{"name": "api"}]}))]
    #[case::extra_argument(json!({"args": ["serve", "--debug"]}), json!({"args": ["serve"]}))]
    #[case::label_in_a_selector(json!({"spec": {"selector": {"app": "api", "more": "x"}}}), json!({"spec": {"selector": {"app": "api"}}}))]
    #[case::subject(json!({"subjects": [{"name": "ours"}, {"name": "theirs"}]}), json!({"subjects": [{"name": "ours"}]}))]
    #[case::element(json!({"c": [{"name": "api", "image": "old"}]}), json!({"c": [{"name": "api", "image": "new"}]}))]
    fn a_drifted_field_is_a_difference(#[case] live: Value, #[case] desired: Value) {
        assert_ne!(project(&live, &desired), desired);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z]{0,4}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_object_equals_its_own_projection(value in any_json()) {
            prop_assert_eq!(project(&value, &value), value);
        }
    }
}
