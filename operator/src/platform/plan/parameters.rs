//! Bringing what Patroni keeps in its store to the spec, and restarting what waits for it, in the order that PostgreSQL allows.

use serde_json::{Map, Value, json};

use super::actions::Action;
use super::switchover;
use crate::platform::observe::patroni::{Cluster, Member};

/// The merge patch that makes `stored` what `wanted` says; `None` when nothing differs. What `wanted` does not speak of is left
/// alone, except for parameters of PostgreSQL: there, what is not wanted goes back to its default.
pub fn patch(stored: &Value, wanted: &Value) -> Option<Value> {
    let mut patch = difference(stored, wanted);
    let wanted_parameters = &wanted["postgresql"]["parameters"];
    let surplus = stored["postgresql"]["parameters"]
        .as_object()
        .into_iter()
        .flatten();
    for (name, _) in surplus.filter(|(name, _)| wanted_parameters.get(name.as_str()).is_none()) {
        patch["postgresql"]["parameters"][name.as_str()] = Value::Null;
    }
    (patch != json!({})).then_some(patch)
}

fn difference(stored: &Value, wanted: &Value) -> Value {
    let mut patch = Map::new();
    for (key, value) in wanted.as_object().into_iter().flatten() {
        if value.is_object() {
            let inner = difference(&stored[key], value);
            if inner != json!({}) {
                patch.insert(key.clone(), inner);
            }
        } else if !same(&stored[key], value) {
            patch.insert(key.clone(), value.clone());
        }
    }
    Value::Object(patch)
}

/// Whether two settings say the same: numbers and words may have been stored as text, or the other way round.
fn same(stored: &Value, wanted: &Value) -> bool {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    stored == wanted || (text(stored).is_some() && text(stored) == text(wanted))
}

/// What has to be restarted next so that all instances run with their parameters; `None` when none waits, or none may be touched
/// now. The caller has made sure that every instance is well.
///
/// A replica must never have less of some parameters than its primary. Raised ones therefore reach the replicas first, lowered
/// ones the primary first. A replica that is restarted too early for a lowered one is kept at the old value by Patroni, and waits
/// again: so a restart is of use only when something else waits for it too, or the primary has been restarted already.
pub fn restart(cluster: &Cluster, synchronous: bool) -> Option<Action> {
    let primary = cluster.primary()?;
    let held: Vec<&str> = primary.lowered().collect();
    let worthwhile = |member: &Member| {
        let waits_for_primary = |name: &str| held.contains(&name) && member.lowered().any(|own| own == name);
        member.pending_restart
            && (member.pending.is_empty() || member.pending.keys().any(|name| !waits_for_primary(name)))
    };
    let replica = cluster
        .members
        .iter()
        .filter(|member| member.name != primary.name)
        .find(|member| worthwhile(member));
    if let Some(replica) = replica {
        return Some(Action::Restart {
            member: replica.name.clone(),
        });
    }
    if !primary.pending_restart {
        return None;
    }
    let settled = |name: &str| {
        cluster
            .members
            .iter()
            .any(|m| m.name == name && !m.pending_restart)
    };
    // Lowered parameters have to be written into the log by a primary that runs with them; a replica cannot bring them.
    if held.is_empty() && switchover::candidate(cluster, synchronous, settled).is_some() {
        return Some(Action::Switchover {
            from: primary.name.clone(),
            to: None,
        });
    }
    Some(Action::Restart {
        member: primary.name.clone(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::platform::observe::patroni::Change;

    #[test]
    fn only_what_differs_is_sent() {
        let stored = json!({"ttl": 20, "pause": true, "postgresql": {"use_slots": true, "parameters": {"work_mem": "4MB", "max_connections": 200, "jit": "off"}}});
        let wanted = json!({"ttl": 30, "postgresql": {"use_slots": true, "parameters": {"work_mem": "64MB", "max_connections": "200"}}});
        let expected = json!({"ttl": 30, "postgresql": {"parameters": {"work_mem": "64MB", "jit": null}}});
        assert_eq!(patch(&stored, &wanted), Some(expected));
    }

    /// RFC 7396, which Patroni follows.
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

    fn config() -> impl Strategy<Value = Value> {
        let parameters = prop::collection::btree_map("[a-e]", "[0-9a-z]{1,3}", 0..5);
        (20_i64..23, any::<bool>(), parameters).prop_map(|(ttl, slots, parameters)| {
            json!({"ttl": ttl, "postgresql": {"use_slots": slots, "parameters": parameters}})
        })
    }

    proptest! {
        #[test]
        fn one_patch_makes_it_equal_and_a_second_is_never_sent(stored in config(), wanted in config()) {
            let mut stored = stored;
            if let Some(patch) = patch(&stored, &wanted) {
                merge(&mut stored, &patch);
            }
            prop_assert_eq!(patch(&stored, &wanted), None);
            prop_assert_eq!(&stored["postgresql"]["parameters"], &wanted["postgresql"]["parameters"]);
        }

        #[test]
        fn what_equals_is_never_sent(wanted in config()) {
            prop_assert_eq!(patch(&wanted, &wanted), None);
        }
    }

    fn member(name: &str, role: &str, pending: &[(&str, i64, i64)]) -> Member {
        Member {
            name: name.to_owned(),
            role: role.to_owned(),
            state: if role == "leader" { "running" } else { "streaming" }.to_owned(),
            timeline: Some(1),
            lag: Some(0),
            pending_restart: !pending.is_empty(),
            pending: pending
                .iter()
                .map(|(name, old, new)| {
                    let change = Change {
                        old_value: json!(old.to_string()),
                        new_value: json!(new.to_string()),
                    };
                    ((*name).to_owned(), change)
                })
                .collect(),
            scheduled_restart: None,
        }
    }

    fn cluster(pending: [&[(&str, i64, i64)]; 3]) -> Cluster {
        Cluster {
            members: vec![
                member("p-0", "leader", pending[0]),
                member("p-1", "quorum_standby", pending[1]),
                member("p-2", "quorum_standby", pending[2]),
            ],
            writable: true,
            ..Cluster::default()
        }
    }

    fn restarted(action: Option<Action>) -> String {
        match action {
            Some(Action::Restart { member }) => member,
            Some(Action::Switchover { .. }) => "switchover".to_owned(),
            other => format!("{other:?}"),
        }
    }

    const RAISED: &[(&str, i64, i64)] = &[("max_connections", 200, 300)];
    const LOWERED: &[(&str, i64, i64)] = &[("max_connections", 300, 200)];
    const MIXED: &[(&str, i64, i64)] = &[("max_connections", 300, 200), ("max_worker_processes", 8, 16)];

    #[test]
    fn raised_parameters_reach_the_replicas_first_and_the_role_moves_last() {
        assert_eq!(
            restarted(restart(&cluster([RAISED, RAISED, RAISED]), true)),
            "p-1"
        );
        assert_eq!(restarted(restart(&cluster([RAISED, &[], RAISED]), true)), "p-2");
        assert_eq!(
            restarted(restart(&cluster([RAISED, &[], &[]]), true)),
            "switchover"
        );
        assert_eq!(restart(&cluster([&[], &[], &[]]), true), None);
    }

    #[test]
    fn lowered_parameters_reach_the_primary_first() {
        assert_eq!(
            restarted(restart(&cluster([LOWERED, LOWERED, LOWERED]), true)),
            "p-0"
        );
        assert_eq!(restarted(restart(&cluster([&[], LOWERED, LOWERED]), true)), "p-1");
    }

    #[test]
    fn raised_and_lowered_ones_together_take_two_rounds() {
        assert_eq!(restarted(restart(&cluster([MIXED, MIXED, MIXED]), true)), "p-1");
        assert_eq!(
            restarted(restart(&cluster([MIXED, LOWERED, LOWERED]), true)),
            "p-0"
        );
        assert_eq!(restarted(restart(&cluster([&[], LOWERED, LOWERED]), true)), "p-1");
    }

    #[test]
    fn a_single_instance_is_restarted_in_place() {
        let mut alone = cluster([RAISED, &[], &[]]);
        alone.members.truncate(1);
        assert_eq!(restarted(restart(&alone, true)), "p-0");
    }
}
