//! What rights the installed manifests give: A1, A2 and A10 of the security checklist.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Group, resource and verb.
pub type Triple = (String, String, String);

/// So many rights over the whole cluster are the most.
pub const MOST_CLUSTER_WIDE: usize = 20;
/// Nobody gets a right on these over the whole cluster.
const NEVER_CLUSTER_WIDE: &[&str] = &[
    "secrets",
    "configmaps",
    "pods",
    "nodes",
    "namespaces",
    "persistentvolumes",
    "customresourcedefinitions",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
];
/// Nobody gets these at all: they run code in others' pods, or act as somebody else.
const NEVER_RESOURCES: &[&str] = &[
    "pods/exec",
    "pods/attach",
    "pods/portforward",
    "nodes/proxy",
    "serviceaccounts/token",
];
/// Nor these.
const NEVER_VERBS: &[&str] = &["escalate", "impersonate", "deletecollection", "*"];

/// Rights that bindings give over the whole cluster.
pub fn cluster_wide(objects: &[Value]) -> Result<BTreeSet<Triple>> {
    let mut rights = BTreeSet::new();
    for binding in objects
        .iter()
        .filter(|object| object["kind"] == "ClusterRoleBinding")
    {
        let name = &binding["roleRef"]["name"];
        let role = objects
            .iter()
            .find(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == *name)
            .with_context(|| format!("{name} is bound and not defined"))?;
        rights.extend(triples(role));
    }
    Ok(rights)
}

/// Rights of a role.
pub fn triples(role: &Value) -> BTreeSet<Triple> {
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    };
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    rights.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    rights
}

/// Fails where a role gives what none may give.
pub fn least(objects: &[Value]) -> Result<()> {
    for (_, resource, verb) in cluster_wide(objects)? {
        ensure!(
            !NEVER_CLUSTER_WIDE.contains(&resource.as_str()),
            "{verb} {resource} over the whole cluster"
        );
    }
    let roles = objects
        .iter()
        .filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Role")));
    for role in roles {
        let name = &role["metadata"]["name"];
        for (group, resource, verb) in triples(role) {
            ensure!(
                group != "*" && resource != "*" && !NEVER_VERBS.contains(&verb.as_str()),
                "{name} gives {verb} on {group}/{resource}"
            );
            ensure!(
                !NEVER_RESOURCES.contains(&resource.as_str()),
                "{name} gives {resource}"
            );
        }
        for rule in role["rules"].as_array().into_iter().flatten() {
            let binds = rule["verbs"]
                .as_array()
                .is_some_and(|verbs| verbs.iter().any(|verb| verb == "bind"));
            ensure!(
                !binds || rule["resourceNames"].is_array(),
                "{name} may bind any role"
            );
            ensure!(
                rule["nonResourceURLs"].is_null(),
                "{name} gives addresses that are no resources"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn bound(rule: &Value) -> Vec<Value> {
        vec![
            json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [rule]}),
            json!({"kind": "ClusterRoleBinding", "roleRef": {"name": "r"}}),
        ]
    }

    #[test]
    fn a_small_role_passes() {
        let rule =
            json!({"apiGroups": ["tanka.dev"], "resources": ["tankaplatforms"], "verbs": ["list", "watch"]});
        least(&bound(&rule)).unwrap();
    }

    #[rstest]
    #[case::secrets(json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}))]
    #[case::exec(json!({"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]}))]
    #[case::wildcard(json!({"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["*"]}))]
    #[case::all(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"]}))]
    #[case::escalate(json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["escalate"]}))]
    #[case::bind(json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["bind"]}))]
    fn too_much_is_refused(#[case] rule: Value) {
        least(&bound(&rule)).unwrap_err();
    }

    #[test]
    fn secrets_are_allowed_where_the_role_is_bound_in_one_namespace() {
        let role = json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]});
        least(&[role]).unwrap();
    }
}
