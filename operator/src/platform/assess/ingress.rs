//! Whether clients can come in, and if not, what keeps them out.

use crds::conditions::Reason;
use crds::platform::ingress::GatewayRef;
use serde_json::Value;

use super::{Finding, rejected};
use crate::platform::build::ingress::certificate;
use crate::platform::object::{Key, Kind};
use crate::platform::observe::World;
use crate::platform::observe::apis::Availability;
use crate::platform::plan::edge::{class, ingress_key, rival, route_key};
use crate::platform::validate::Platform;

/// Assesses the way in.
pub fn ingress(platform: &Platform, world: &World) -> Finding {
    let spec = &platform.spec.ingress;
    if !spec.enabled {
        return Finding::good(Reason::Disabled, "switched off in the spec");
    }
    if let Some(finding) = rejected(world, |key| {
        key == &ingress_key(platform) || key == &route_key(platform)
    }) {
        return finding;
    }
    match &spec.gateway {
        Some(gateway) => through_gateway(platform, world, gateway),
        None => through_controller(platform, world),
    }
}

fn through_controller(platform: &Platform, world: &World) -> Finding {
    let host = &platform.spec.ingress.host;
    let key = ingress_key(platform);
    if let Some(rival) = rival(platform, world) {
        return Finding::bad(
            Reason::HostConflict,
            format!(
                "host {host} is routed by Ingress {} already: change ingress.host or remove the other",
                rival.name
            ),
        );
    }
    let Some(live) = world.objects.get(&key) else {
        return waiting(&key);
    };
    let addresses = live["status"]["loadBalancer"]["ingress"].as_array();
    if addresses.is_none_or(Vec::is_empty) {
        return no_address(platform, world, &key);
    }
    if let Some(finding) = uncertified(platform, world) {
        return finding;
    }
    Finding::good(Reason::Available, format!("{key} routes {host}"))
}

fn waiting(key: &Key) -> Finding {
    Finding::bad(
        Reason::WaitingForDependency,
        format!("{key} is made once the API may start"),
    )
}

/// Nobody has taken the Ingress up: because nobody can, or because nobody has yet.
fn no_address(platform: &Platform, world: &World, key: &Key) -> Finding {
    let visible = world.edge.classes.is_some();
    if visible && class(platform, world).is_none() {
        return Finding::bad(
            Reason::IngressClassMissing,
            match &platform.spec.ingress.class_name {
                Some(name) => format!(
                    "IngressClass {name:?} does not exist: install its controller or change ingress.className"
                ),
                None => {
                    "no IngressClass is the default of the cluster: name one in ingress.className".to_owned()
                }
            },
        );
    }
    if let Some(finding) = uncertified(platform, world) {
        return finding;
    }
    Finding::bad(
        Reason::AddressPending,
        format!("{key} has no address yet: its controller has not taken it up, or does not publish one"),
    )
}

fn uncertified(platform: &Platform, world: &World) -> Option<Finding> {
    let tls = platform.spec.ingress.tls.as_ref()?;
    let secret = certificate(platform)?;
    if world.edge.certificate != Some(false) {
        return None;
    }
    if tls.secret_name.is_some() {
        return Some(Finding::bad(
            Reason::SecretMissing,
            format!(
                "Secret {secret} with the certificate does not exist: create it, of type kubernetes.io/tls"
            ),
        ));
    }
    if *world.apis.of(Kind::Certificate) == Availability::Absent {
        return Some(Finding::bad(
            Reason::SecretMissing,
            format!(
                "Secret {secret} does not exist, and cert-manager, which would make it, is not installed"
            ),
        ));
    }
    let words = world
        .objects
        .get(&Key::new(Kind::Certificate, &secret))
        .and_then(|certificate| condition(&certificate["status"]["conditions"], "Ready")?["message"].as_str())
        .unwrap_or("it has not said anything yet");
    Some(Finding::bad(
        Reason::CertificatePending,
        format!("cert-manager has not issued Certificate {secret} yet: {words}"),
    ))
}

fn through_gateway(platform: &Platform, world: &World, gateway: &GatewayRef) -> Finding {
    let key = route_key(platform);
    let namespace = gateway.namespace.as_ref().unwrap_or(&platform.namespace);
    let parent = format!("Gateway {namespace}/{}", gateway.name);
    match world.apis.of(Kind::HTTPRoute) {
        Availability::Usable => {}
        Availability::Absent => {
            return Finding::bad(
                Reason::GatewayApiMissing,
                "the Gateway API (gateway.networking.k8s.io/v1) is not installed: install it, or remove ingress.gateway to have an Ingress",
            );
        }
        Availability::Unreadable(words) => {
            return Finding::bad(Reason::ApplyFailed, format!("HTTPRoutes cannot be read: {words}"));
        }
    }
    let Some(live) = world.objects.get(&key) else {
        return waiting(&key);
    };
    let generation = live["metadata"]["generation"].as_i64().unwrap_or_default();
    let parents = live["status"]["parents"].as_array().into_iter().flatten();
    let verdicts: Vec<_> = parents
        .map(|status| verdict(&status["conditions"], generation))
        .collect();
    if let Some(Some(refusal)) = verdicts.iter().find(|verdict| verdict.is_some()) {
        return Finding::bad(
            if refusal.pending {
                Reason::Progressing
            } else {
                Reason::RouteNotAccepted
            },
            format!("{parent} does not take {key}: {}", refusal.words),
        );
    }
    if verdicts.is_empty() {
        let seen = world.edge.gateway.is_some();
        let hint = if seen {
            "its controller has not looked at it"
        } else {
            "there is no such Gateway, or it cannot be seen"
        };
        return Finding::bad(
            Reason::Progressing,
            format!("{parent} has not taken {key} up yet: {hint}"),
        );
    }
    Finding::good(
        Reason::Available,
        format!(
            "{key} is accepted by {parent} and routes {}",
            platform.spec.ingress.host
        ),
    )
}

/// Why a Gateway does not take a route.
struct Refusal {
    words: String,
    /// It has not said so of the route as it is now.
    pending: bool,
}

/// The first of the two conditions that does not hold, if one does not.
fn verdict(conditions: &Value, generation: i64) -> Option<Refusal> {
    ["Accepted", "ResolvedRefs"].into_iter().find_map(|kind| {
        let Some(found) = condition(conditions, kind) else {
            return Some(Refusal {
                words: format!("it does not say {kind} yet"),
                pending: true,
            });
        };
        let current = found["observedGeneration"]
            .as_i64()
            .is_none_or(|seen| seen >= generation);
        if found["status"] == "True" && current {
            return None;
        }
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Some(Refusal {
            words: if current {
                format!(
                    "{kind} is {}, {}: {}",
                    text("status"),
                    text("reason"),
                    text("message")
                )
            } else {
                format!("it has not looked at generation {generation} yet")
            },
            pending: !current || found["status"] != "False",
        })
    })
}

fn condition<'a>(conditions: &'a Value, kind: &str) -> Option<&'a Value> {
    conditions
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::platform::fixtures::platform;
    use crate::platform::observe::apis::Apis;
    use crate::platform::observe::edge::{Class, Edge, Gateway, Rival};

    fn at_edge(extra: &Value) -> Platform {
        let mut spec = json!({"enabled": true, "host": "api.example.com", "className": "nginx"});
        spec.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        platform(json!({"ingress": spec}))
    }

    /// A world in which the Ingress has an address, and there is a class.
    fn open(platform: &Platform) -> World {
        let live = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
        let class = Class {
            controller: "k8s.io/ingress-nginx".to_owned(),
            default: false,
        };
        World {
            objects: BTreeMap::from([(ingress_key(platform), live)]),
            edge: Edge {
                classes: Some(BTreeMap::from([("nginx".to_owned(), class)])),
                ..Edge::default()
            },
            ..World::default()
        }
    }

    fn says(finding: &Finding, reason: Reason, words: &str) {
        assert_eq!(finding.reason, reason, "{finding:?}");
        assert!(finding.message.contains(words), "{finding:?}");
    }

    #[test]
    fn an_ingress_with_an_address_is_open() {
        let platform = at_edge(&json!({}));
        assert!(ingress(&platform, &open(&platform)).ok);
    }

    #[test]
    fn an_ingress_without_an_address_is_not() {
        let platform = at_edge(&json!({}));
        let mut world = open(&platform);
        world.objects.insert(ingress_key(&platform), json!({}));
        says(&ingress(&platform, &world), Reason::AddressPending, "acme-api");
        world.edge.classes = Some(BTreeMap::new());
        says(
            &ingress(&platform, &world),
            Reason::IngressClassMissing,
            "\"nginx\" does not exist",
        );
    }

    #[test]
    fn who_has_the_host_is_named() {
        let platform = at_edge(&json!({}));
        let mut world = open(&platform);
        world.objects.clear();
        world.edge.rivals = vec![Rival {
            name: "web/site".to_owned(),
            class: Some("nginx".to_owned()),
            created: 1,
        }];
        says(
            &ingress(&platform, &world),
            Reason::HostConflict,
            "Ingress web/site",
        );
    }

    #[rstest]
    #[case(json!({"secretName": "cert"}), Availability::Absent, Reason::SecretMissing, "Secret cert with the certificate does not exist")]
    #[case(json!({"issuerRef": {"name": "le"}}), Availability::Absent, Reason::SecretMissing, "cert-manager, which would make it, is not installed")]
    #[case(json!({"issuerRef": {"name": "le"}}), Availability::Usable, Reason::CertificatePending, "issuer le not found")]
    fn a_missing_certificate_is_told(
        #[case] tls: Value,
        #[case] manager: Availability,
        #[case] reason: Reason,
        #[case] words: &str,
    ) {
        let platform = at_edge(&json!({"tls": tls}));
        let mut world = open(&platform);
        world.edge.certificate = Some(false);
        world.apis = Apis::new([(Kind::Certificate, manager)]);
        let certificate = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "message": "issuer le not found"}]}});
        world
            .objects
            .insert(Key::new(Kind::Certificate, "acme-api-tls"), certificate);
        says(&ingress(&platform, &world), reason, words);
        world.edge.certificate = Some(true);
        assert!(ingress(&platform, &world).ok);
    }

    fn gateway(conditions: &Value) -> (Platform, World) {
        let platform = platform(
            json!({"ingress": {"enabled": true, "host": "api.example.com", "gateway": {"name": "public", "namespace": "infra"}}}),
        );
        let route =
            json!({"metadata": {"generation": 2}, "status": {"parents": [{"conditions": conditions}]}});
        let world = World {
            objects: BTreeMap::from([(route_key(&platform), route)]),
            apis: Apis::new([(Kind::HTTPRoute, Availability::Usable)]),
            edge: Edge {
                gateway: Some(Gateway { tls: true }),
                ..Edge::default()
            },
            ..World::default()
        };
        (platform, world)
    }

    #[rstest]
    #[case(json!([{"type": "Accepted", "status": "True", "observedGeneration": 2}, {"type": "ResolvedRefs", "status": "True"}]), Reason::Available, "accepted by Gateway infra/public")]
    #[case(json!([{"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners", "message": "no"}]), Reason::RouteNotAccepted, "NotAllowedByListeners")]
    #[case(json!([{"type": "Accepted", "status": "True"}, {"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "message": "no service"}]), Reason::RouteNotAccepted, "BackendNotFound: no service")]
    #[case(json!([{"type": "Accepted", "status": "True", "observedGeneration": 1}]), Reason::Progressing, "generation 2")]
    #[case(json!([{"type": "Accepted", "status": "True"}]), Reason::Progressing, "does not say ResolvedRefs")]
    fn what_the_gateway_says_of_the_route_is_shown(
        #[case] conditions: Value,
        #[case] reason: Reason,
        #[case] words: &str,
    ) {
        let (platform, world) = gateway(&conditions);
        says(&ingress(&platform, &world), reason, words);
    }

    #[test]
    fn a_cluster_without_the_gateway_api_is_told_so() {
        let (platform, mut world) = gateway(&json!([]));
        world.apis = Apis::default();
        says(
            &ingress(&platform, &world),
            Reason::GatewayApiMissing,
            "not installed",
        );
    }

    #[test]
    fn a_route_that_nobody_takes_up_waits() {
        let (platform, mut world) = gateway(&json!([]));
        world.objects.insert(route_key(&platform), json!({}));
        world.edge.gateway = None;
        says(
            &ingress(&platform, &world),
            Reason::Progressing,
            "no such Gateway",
        );
    }
}
