//! How clients come in: through an Ingress or an HTTPRoute, and what stands in the way of either.

use std::collections::BTreeMap;

use crds::names::{self, Component};
use serde_json::Value;

use crate::platform::build::{http_route, ingress};
use crate::platform::object::{Key, Kind, Object};
use crate::platform::observe::World;
use crate::platform::observe::edge::{Class, Rival};
use crate::platform::validate::Platform;

/// Controllers whose settings are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// ingress-nginx of the Kubernetes project.
    IngressNginx,
    /// NGINX's own.
    NginxInc,
    /// Traefik.
    Traefik,
    /// HAProxy's own.
    HaproxyTech,
    /// The community's HAProxy Ingress.
    HaproxyIngress,
    /// AWS Load Balancer Controller.
    Alb,
    /// Contour.
    Contour,
}

/// Controllers by what their IngressClass names, or begins to name.
const BY_CONTROLLER: [(&str, Controller); 7] = [
    ("nginx.org/", Controller::NginxInc),
    ("traefik.io/", Controller::Traefik),
    ("haproxy.org/", Controller::HaproxyTech),
    ("haproxy-ingress.github.io/", Controller::HaproxyIngress),
    ("ingress.k8s.aws/", Controller::Alb),
    ("projectcontour.io/", Controller::Contour),
    ("k8s.io/", Controller::IngressNginx),
];
/// Controllers by words that classes are usually called by.
const BY_NAME: [(&str, Controller); 4] = [
    ("traefik", Controller::Traefik),
    ("haproxy", Controller::HaproxyTech),
    ("alb", Controller::Alb),
    ("contour", Controller::Contour),
];

/// Who serves the Ingress: as its class says, or as the class's name suggests where classes cannot be seen. The settings of
/// ingress-nginx mean nothing to others, so they do no harm where nobody is known.
pub fn controller(platform: &Platform, world: &World) -> Controller {
    let named = platform.spec.ingress.class_name.as_deref();
    if let Some(class) = class(platform, world) {
        let known = BY_CONTROLLER
            .iter()
            .find(|(start, _)| class.controller.starts_with(start));
        return known.map_or(Controller::IngressNginx, |(_, controller)| *controller);
    }
    let guessed = BY_NAME
        .iter()
        .find(|(word, _)| named.is_some_and(|name| name.contains(word)));
    guessed.map_or(Controller::IngressNginx, |(_, controller)| *controller)
}

/// The class that counts for the platform: the named one, or the default.
pub fn class<'a>(platform: &Platform, world: &'a World) -> Option<&'a Class> {
    let classes = world.edge.classes.as_ref()?;
    match &platform.spec.ingress.class_name {
        Some(name) => classes.get(name),
        None => classes.values().find(|class| class.default),
    }
}

/// An older Ingress of the same class that routes the host already. Among controllers it decides who answers, and some mix both.
pub fn rival<'a>(platform: &Platform, world: &'a World) -> Option<&'a Rival> {
    let own = world.objects.get(&ingress_key(platform));
    let stamp = |live: &Value| {
        let text = live["metadata"]["creationTimestamp"].as_str()?;
        Some(text.parse::<jiff::Timestamp>().ok()?.as_second())
    };
    let since = own.and_then(stamp).unwrap_or(i64::MAX);
    let name = format!("{}/{}", platform.namespace, ingress_key(platform).name);
    let older = |rival: &&Rival| (rival.created, rival.name.as_str()) < (since, name.as_str());
    let default = default_class(world.edge.classes.as_ref());
    let ours = platform.spec.ingress.class_name.as_deref().or(default);
    let mut rivals = world.edge.rivals.iter().filter(older);
    rivals.find(|rival| rival.class.as_deref().or(default) == ours)
}

fn default_class(classes: Option<&BTreeMap<String, Class>>) -> Option<&str> {
    let default = classes?.iter().find(|(_, class)| class.default)?;
    Some(default.0.as_str())
}

/// The Ingress' identity.
pub fn ingress_key(platform: &Platform) -> Key {
    Key::new(Kind::Ingress, names::component(&platform.name, Component::Api))
}

/// The HTTPRoute's identity.
pub fn route_key(platform: &Platform) -> Key {
    Key::new(Kind::HTTPRoute, names::component(&platform.name, Component::Api))
}

/// The way in, as it should be; nothing while it is not possible or would take another's host.
pub fn objects(platform: &Platform, world: &World) -> Vec<Object> {
    let spec = &platform.spec.ingress;
    match &spec.gateway {
        _ if !spec.enabled => Vec::new(),
        Some(gateway) if world.apis.usable(Kind::HTTPRoute) => vec![http_route::build(platform, gateway)],
        None if rival(platform, world).is_none() || world.objects.contains_key(&ingress_key(platform)) => {
            vec![ingress::build(platform, controller(platform, world))]
        }
        _ => Vec::new(),
    }
}

/// What is not taken away yet: whatever still lets clients in, until what takes its place does.
pub fn kept(platform: &Platform, ready: bool) -> Vec<Key> {
    let spec = &platform.spec.ingress;
    match &spec.gateway {
        _ if !spec.enabled => Vec::new(),
        _ if !ready => vec![ingress_key(platform), route_key(platform)],
        Some(_) => vec![route_key(platform)],
        None => vec![ingress_key(platform)],
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::platform::fixtures::platform;
    use crate::platform::observe::apis::{Apis, Availability};
    use crate::platform::observe::edge::Edge;

    fn at_edge(class: Option<&str>) -> Platform {
        platform(json!({"ingress": {"enabled": true, "host": "a.b", "className": class}}))
    }

    fn classes(all: &[(&str, &str, bool)]) -> World {
        let classes = all.iter().map(|(name, controller, default)| {
            let class = Class {
                controller: (*controller).to_owned(),
                default: *default,
            };
            ((*name).to_owned(), class)
        });
        World {
            edge: Edge {
                classes: Some(classes.collect()),
                ..Edge::default()
            },
            ..World::default()
        }
    }

    fn with_rival(name: &str, class: Option<&str>, created: i64) -> World {
        let mut world = classes(&[("nginx", "k8s.io/ingress-nginx", true)]);
        world.edge.rivals = vec![Rival {
            name: name.to_owned(),
            class: class.map(str::to_owned),
            created,
        }];
        world
    }

    #[rstest]
    #[case(Some("edge"), "k8s.io/ingress-nginx", Controller::IngressNginx)]
    #[case(Some("edge"), "nginx.org/ingress-controller", Controller::NginxInc)]
    #[case(Some("edge"), "traefik.io/ingress-controller", Controller::Traefik)]
    #[case(
        Some("edge"),
        "haproxy.org/ingress-controller/public",
        Controller::HaproxyTech
    )]
    #[case(Some("edge"), "ingress.k8s.aws/alb", Controller::Alb)]
    #[case(None, "traefik.io/ingress-controller", Controller::Traefik)]
    #[case(Some("edge"), "example.com/unheard-of", Controller::IngressNginx)]
    fn the_class_tells_the_controller(
        #[case] named: Option<&str>,
        #[case] found: &str,
        #[case] expected: Controller,
    ) {
        assert_eq!(
            controller(&at_edge(named), &classes(&[("edge", found, true)])),
            expected
        );
    }

    #[rstest]
    #[case(Some("traefik-internal"), Controller::Traefik)]
    #[case(Some("nginx"), Controller::IngressNginx)]
    #[case(None, Controller::IngressNginx)]
    fn where_classes_cannot_be_seen_the_name_suggests_it(
        #[case] named: Option<&str>,
        #[case] expected: Controller,
    ) {
        assert_eq!(controller(&at_edge(named), &World::default()), expected);
    }

    #[rstest]
    #[case::older("web/site", Some("nginx"), 100, true)]
    #[case::younger("web/site", Some("nginx"), 300, false)]
    #[case::by_default("web/site", None, 100, true)]
    #[case::other_class("web/site", Some("internal"), 100, false)]
    #[case::same_second("aaa/site", Some("nginx"), 200, true)]
    fn the_older_ingress_of_a_class_has_the_host(
        #[case] name: &str,
        #[case] class: Option<&str>,
        #[case] created: i64,
        #[case] in_the_way: bool,
    ) {
        let platform = at_edge(Some("nginx"));
        let mut world = with_rival(name, class, created);
        let own = json!({"metadata": {"creationTimestamp": "1970-01-01T00:03:20Z"}});
        world.objects.insert(ingress_key(&platform), own);
        assert_eq!(rival(&platform, &world).is_some(), in_the_way);
    }

    #[test]
    fn a_host_that_is_taken_is_not_contended_for() {
        let platform = at_edge(Some("nginx"));
        let mut world = with_rival("web/site", Some("nginx"), 100);
        assert_eq!(objects(&platform, &world), Vec::new());
        world.objects.insert(ingress_key(&platform), json!({}));
        assert_eq!(
            objects(&platform, &world).len(),
            1,
            "what serves already is kept as it should be"
        );
    }

    #[test]
    fn a_route_is_made_once_the_gateway_api_is_there() {
        let platform = platform(
            json!({"ingress": {"enabled": true, "host": "a.b", "gateway": {"name": "public", "namespace": "infra"}}}),
        );
        let mut world = World::default();
        assert_eq!(objects(&platform, &world), Vec::new());
        world.apis = Apis::new([(Kind::HTTPRoute, Availability::Usable)]);
        let route = objects(&platform, &world);
        insta::assert_yaml_snapshot!(route[0].manifest);
    }

    #[test]
    fn the_old_way_in_stays_until_the_new_one_is_open() {
        let platform =
            platform(json!({"ingress": {"enabled": true, "host": "a.b", "gateway": {"name": "public"}}}));
        assert!(kept(&platform, false).contains(&ingress_key(&platform)));
        assert!(!kept(&platform, true).contains(&ingress_key(&platform)));
    }
}
