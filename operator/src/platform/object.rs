//! The objects that a platform consists of: their kinds, their identity, and whether one of them is ours.

use std::fmt;

use crds::names;
use kube::core::ApiResource;
use kube::core::gvk::GroupVersionKind;
use serde_json::Value;

/// Declares the kinds with their API group, version and plural.
macro_rules! kinds {
    ($($kind:ident = ($group:literal, $version:literal, $plural:literal)),+ $(,)?) => {
        /// Kind of an object that the operator makes or watches.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "the names are Kubernetes' own")]
        pub enum Kind { $($kind,)+ }

        impl Kind {
            /// The name of the kind.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)+ }
            }

            /// How the API server is asked for it.
            pub fn api_resource(self) -> ApiResource {
                let (group, version, plural) = match self { $(Self::$kind => ($group, $version, $plural),)+ };
                ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, self.as_str()), plural)
            }
        }
    };
}

kinds! {
    Secret = ("", "v1", "secrets"),
    ConfigMap = ("", "v1", "configmaps"),
    Service = ("", "v1", "services"),
    ServiceAccount = ("", "v1", "serviceaccounts"),
    Pod = ("", "v1", "pods"),
    PersistentVolumeClaim = ("", "v1", "persistentvolumeclaims"),
    Role = ("rbac.authorization.k8s.io", "v1", "roles"),
    RoleBinding = ("rbac.authorization.k8s.io", "v1", "rolebindings"),
    StatefulSet = ("apps", "v1", "statefulsets"),
    Deployment = ("apps", "v1", "deployments"),
    Job = ("batch", "v1", "jobs"),
    HorizontalPodAutoscaler = ("autoscaling", "v2", "horizontalpodautoscalers"),
    PodDisruptionBudget = ("policy", "v1", "poddisruptionbudgets"),
    NetworkPolicy = ("networking.k8s.io", "v1", "networkpolicies"),
    Ingress = ("networking.k8s.io", "v1", "ingresses"),
    IngressClass = ("networking.k8s.io", "v1", "ingressclasses"),
    HTTPRoute = ("gateway.networking.k8s.io", "v1", "httproutes"),
    Gateway = ("gateway.networking.k8s.io", "v1", "gateways"),
    Certificate = ("cert-manager.io", "v1", "certificates"),
    PrometheusRule = ("monitoring.coreos.com", "v1", "prometheusrules"),
    PodMonitor = ("monitoring.coreos.com", "v1", "podmonitors"),
}

impl Kind {
    /// Kinds that are watched, by the label `managed-by`. Secrets are not among them: they are read by name, so that
    /// no permission on the secrets of the whole cluster is needed.
    pub const WATCHED: [Self; 14] = [
        Self::ConfigMap,
        Self::Service,
        Self::ServiceAccount,
        Self::Pod,
        Self::PersistentVolumeClaim,
        Self::Role,
        Self::RoleBinding,
        Self::StatefulSet,
        Self::Deployment,
        Self::Job,
        Self::HorizontalPodAutoscaler,
        Self::PodDisruptionBudget,
        Self::NetworkPolicy,
        Self::Ingress,
    ];

    /// Kinds that a cluster may have or not, or that the operator may not be allowed to see: watched only while they can be.
    pub const OPTIONAL: [Self; 6] = [
        Self::IngressClass,
        Self::HTTPRoute,
        Self::Gateway,
        Self::Certificate,
        Self::PrometheusRule,
        Self::PodMonitor,
    ];

    /// Whether objects of the kind belong to no namespace: an operator that is bound to one cannot see them.
    pub const fn is_cluster_scoped(self) -> bool {
        matches!(self, Self::IngressClass)
    }

    /// Whether all objects of the kind are watched, others' too: who else routes a host, and through what.
    pub const fn is_watched_whole(self) -> bool {
        matches!(self, Self::Ingress | Self::IngressClass | Self::Gateway)
    }
}

/// Identity of an object inside a platform's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Kind of the object.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl Key {
    /// Puts the two together.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\"", self.kind.as_str(), self.name)
    }
}

/// An object as it should be, complete with `apiVersion`, `kind` and `metadata`.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Identity.
    pub key: Key,
    /// The manifest: only fields that the operator owns.
    pub manifest: Value,
}

impl Object {
    /// Completes `manifest` with its kind, and leaves out fields that are null.
    pub fn new(kind: Kind, name: impl Into<String>, mut manifest: Value) -> Self {
        let resource = kind.api_resource();
        manifest["apiVersion"] = Value::String(resource.api_version);
        manifest["kind"] = Value::String(resource.kind);
        drop_nulls(&mut manifest);
        Self {
            key: Key::new(kind, name),
            manifest,
        }
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Whether a live object belongs to the platform with this name and uid: it names the platform as its controller, or, if it
/// outlives the platform and so has no owner, it carries the platform's label and our mark.
pub fn is_ours(live: &Value, platform: &str, uid: &str) -> bool {
    let owners = live["metadata"]["ownerReferences"].as_array();
    let label = |name: &str| live["metadata"]["labels"][name].as_str();
    match owners {
        Some(owners) if !owners.is_empty() => owners.iter().any(|owner| owner["uid"] == uid),
        _ => {
            label(names::PLATFORM_LABEL) == Some(platform)
                && label(names::MANAGED_BY_LABEL) == Some(names::MANAGED_BY)
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({"ownerReferences": [{"uid": "u1"}]}), true)]
    #[case(json!({"ownerReferences": [{"uid": "u2"}]}), false)]
    #[case(json!({"labels": {"tanka.dev/platform": "acme", "app.kubernetes.io/managed-by": "tanka-operator"}}), true)]
    #[case(json!({"labels": {"tanka.dev/platform": "other", "app.kubernetes.io/managed-by": "tanka-operator"}}), false)]
    #[case(json!({"labels": {"tanka.dev/platform": "acme"}}), false)]
    #[case(json!({}), false)]
    fn only_owned_or_marked_objects_are_ours(#[case] metadata: Value, #[case] ours: bool) {
        assert_eq!(is_ours(&json!({"metadata": metadata}), "acme", "u1"), ours);
    }
}
