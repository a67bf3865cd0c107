//! What is around the way in: other routes of the same host, the controllers that there are, the Gateway.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

use crate::platform::cache::{DEFAULT_CLASS_ANNOTATION, LEGACY_CLASS_ANNOTATION, NamespaceCache};
use crate::platform::object::Kind;
use crate::platform::validate::Platform;

/// What is around the way in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    /// IngressClasses by name; `None` where the operator cannot see them.
    pub classes: Option<BTreeMap<String, Class>>,
    /// Ingresses of others that route the whole of the platform's host.
    pub rivals: Vec<Rival>,
    /// The Gateway that is asked for; `None` where it does not exist or cannot be seen.
    pub gateway: Option<Gateway>,
    /// Whether the Secret with the certificate exists; `None` while nobody asked.
    pub certificate: Option<bool>,
}

/// An IngressClass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Name of the controller that serves it.
    pub controller: String,
    /// Whether it is taken where none is named.
    pub default: bool,
}

/// Somebody else's Ingress for the same host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// `namespace/name`.
    pub name: String,
    /// Its class, if it names one.
    pub class: Option<String>,
    /// When it was created, in seconds since 1970.
    pub created: i64,
}

/// A Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Whether the listener that is asked for, or any where none is named, ends TLS.
    pub tls: bool,
}

/// Reads it off the caches.
pub fn look(platform: &Platform, cache: &NamespaceCache) -> Edge {
    let ingress = &platform.spec.ingress;
    if !ingress.enabled {
        return Edge::default();
    }
    let ingresses = cache.ingresses();
    let host = ingress.host.as_str();
    let rivals = ingresses
        .iter()
        // Few are about this host, and every platform looks through all.
        .filter(|object| object.mentions(host))
        .filter_map(|object| rival(platform, &object.object()?));
    let classes = cache.whole(Kind::IngressClass).map(|classes| {
        classes
            .iter()
            .filter_map(|object| Some((object.name().to_owned(), class(&object.object()?))))
            .collect()
    });
    let gateway = ingress.gateway.as_ref().and_then(|wanted| {
        let namespace = wanted.namespace.as_deref().unwrap_or(&platform.namespace);
        let gateways = cache.whole(Kind::Gateway)?;
        let found = gateways
            .iter()
            .find(|gateway| gateway.is(namespace, &wanted.name))?;
        Some(Gateway {
            tls: ends_tls(&found.value(), wanted.section_name.as_deref()),
        })
    });
    Edge {
        classes,
        rivals: rivals.collect(),
        gateway,
        certificate: None,
    }
}

fn class(object: &DynamicObject) -> Class {
    let controller = object.data["spec"]["controller"].as_str().unwrap_or_default();
    Class {
        controller: controller.to_owned(),
        default: object
            .annotations()
            .get(DEFAULT_CLASS_ANNOTATION)
            .is_some_and(|value| value == "true"),
    }
}

/// Only who routes the whole host is in the way; a path of its own, as that of a certificate's challenge, is not.
fn rival(platform: &Platform, object: &DynamicObject) -> Option<Rival> {
    let ours = object
        .owner_references()
        .iter()
        .any(|owner| owner.uid == platform.uid);
    let rules = object.data["spec"]["rules"].as_array()?;
    let takes = |rule: &&Value| rule["host"] == platform.spec.ingress.host.as_str();
    let whole = |rule: &Value| {
        let paths = rule["http"]["paths"].as_array();
        paths.is_none_or(|paths| {
            paths
                .iter()
                .any(|path| path["path"].as_str().is_none_or(|path| path == "/"))
        })
    };
    if ours || !rules.iter().filter(takes).any(whole) {
        return None;
    }
    let class = object.data["spec"]["ingressClassName"]
        .as_str()
        .map(str::to_owned);
    let created = object.creation_timestamp().map_or(0, |time| time.0.as_second());
    Some(Rival {
        name: format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any()),
        class: class.or_else(|| object.annotations().get(LEGACY_CLASS_ANNOTATION).cloned()),
        created,
    })
}

fn ends_tls(gateway: &Value, section: Option<&str>) -> bool {
    let listeners = gateway["spec"]["listeners"].as_array().into_iter().flatten();
    listeners
        .filter(|listener| section.is_none_or(|section| listener["name"] == section))
        .any(|listener| listener["protocol"] == "HTTPS" || listener["protocol"] == "TLS")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::platform::fixtures::platform;

    #[rstest]
    #[case::whole_host(json!([{"host": "a.b", "http": {"paths": [{"path": "/"}]}}]), true)]
    #[case::no_path(json!([{"host": "a.b"}]), true)]
    #[case::a_path_of_its_own(json!([{"host": "a.b", "http": {"paths": [{"path": "/.well-known/acme-challenge/x"}]}}]), false)]
    #[case::another_host(json!([{"host": "c.d"}]), false)]
    #[case::no_host(json!([{"http": {"paths": [{"path": "/"}]}}]), false)]
    fn who_routes_the_whole_host_is_a_rival(#[case] rules: Value, #[case] is_rival: bool) {
        let platform = platform(json!({"ingress": {"enabled": true, "host": "a.b"}}));
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "web", "namespace": "shop"}, "spec": {"rules": rules},
        }))
        .unwrap();
        assert_eq!(rival(&platform, &object).is_some(), is_rival);
    }

    #[rstest]
    #[case(None, true)]
    #[case(Some("web"), false)]
    #[case(Some("secure"), true)]
    fn a_listener_ends_tls_or_not(#[case] section: Option<&str>, #[case] tls: bool) {
        let gateway = json!({"spec": {"listeners": [
            {"name": "web", "protocol": "HTTP"}, {"name": "secure", "protocol": "HTTPS"},
        ]}});
        assert_eq!(ends_tls(&gateway, section), tls);
    }
}
