//! ServiceAccount, Role and RoleBinding of PostgreSQL's pods: Patroni keeps its state in ConfigMaps of their namespace.

use crds::names::{self, Component};
use serde_json::json;

use super::metadata;
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// Names of the ConfigMaps in which Patroni keeps the state of the cluster. It makes them itself.
pub fn state(platform: &Platform) -> [String; 6] {
    let name = names::component(&platform.name, Component::Postgres);
    ["config", "leader", "failover", "sync", "failsafe", "history"].map(|suffix| format!("{name}-{suffix}"))
}

/// The three objects.
pub fn build(platform: &Platform) -> Vec<Object> {
    let name = names::component(&platform.name, Component::Postgres);
    let metadata = metadata::owned(platform, Component::Postgres, &name);
    let account = json!({"metadata": metadata, "automountServiceAccountToken": false});
    let role = json!({
        "metadata": metadata,
        "rules": [
            // Creating and listing cannot be narrowed to names.
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "list", "watch"]},
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": state(platform), "verbs": ["get", "patch", "update", "delete"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "patch", "update", "watch"]},
        ],
    });
    let binding = json!({
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": platform.namespace}],
    });
    vec![
        Object::new(Kind::ServiceAccount, &name, account),
        Object::new(Kind::Role, &name, role),
        Object::new(Kind::RoleBinding, &name, binding),
    ]
}
