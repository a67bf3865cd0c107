//! Volumes that grow: the claims of the members first, then the template from which later members get theirs. A template cannot
//! be changed, so its StatefulSet is deleted without its pods and made again.

use crds::conditions::Reason;
use serde_json::Value;

use super::actions::Action;
use crate::platform::diff::project;
use crate::platform::object::{Key, Kind};
use crate::platform::observe::World;

/// What to do about the claim templates of a StatefulSet.
#[derive(Debug, Clone, PartialEq)]
pub enum Templates {
    /// Send them as wanted: there is no StatefulSet yet, or they are what they should be.
    Wanted,
    /// Send them as they are: they cannot be changed now.
    Live(Value),
    /// Send nothing: the StatefulSet is about to be made again.
    Remake,
}

/// What to do about the volumes of a component.
#[derive(Debug, Clone, PartialEq)]
pub struct Volumes {
    /// Its claim templates.
    pub templates: Templates,
    /// Requests.
    pub actions: Vec<Action>,
    /// What is in the way, or under way.
    pub obstacle: Option<(Reason, String)>,
}

/// Decides for the StatefulSet `wanted` (a manifest).
pub fn decide(world: &World, set: &str, wanted: &Value) -> Volumes {
    let live = world.objects.get(&Key::new(Kind::StatefulSet, set));
    let Some(live) = live else {
        return Volumes {
            templates: Templates::Wanted,
            actions: Vec::new(),
            obstacle: None,
        };
    };
    let mut actions = Vec::new();
    let mut obstacle = None;
    let mut grown = true;
    if let Some(size) = size_of(&wanted["spec"]) {
        for (claim, object) in claims(world, set, live) {
            match look(world, claim, object, size) {
                Claim::Fits => {}
                Claim::Grows(message) => obstacle = obstacle.or(Some((Reason::VolumePending, message))),
                Claim::Cannot(message) => {
                    grown = false;
                    obstacle = Some((Reason::VolumeNotExpandable, message));
                }
                Claim::Ask(action) => {
                    grown = false;
                    let message = format!("volume {claim} is to grow to {size}");
                    obstacle = obstacle.or(Some((Reason::VolumePending, message)));
                    actions.push(action);
                }
                Claim::Asked(message) => {
                    grown = false;
                    obstacle = obstacle.or(Some((Reason::VolumePending, message)));
                }
            }
        }
    }
    let templates = if same_templates(&live["spec"], &wanted["spec"]) {
        Templates::Wanted
    } else if grown && live["metadata"].get("deletionTimestamp").is_none() && !shrinks(live, wanted) {
        Templates::Remake
    } else {
        Templates::Live(live["spec"]["volumeClaimTemplates"].clone())
    };
    if templates == Templates::Remake {
        let action = Action::OrphanStatefulSet {
            name: set.to_owned(),
            uid: text(&live["metadata"]["uid"]).to_owned(),
        };
        if world.commands.may(&action.name()) {
            actions.push(action);
        }
    }
    Volumes {
        templates,
        actions,
        obstacle,
    }
}

/// Whether members are on their way out: a set that is made again would take them all away at once.
fn shrinks(live: &Value, wanted: &Value) -> bool {
    let replicas = |set: &Value| set["spec"]["replicas"].as_i64().unwrap_or(1);
    replicas(live) > replicas(wanted)
}

enum Claim {
    Fits,
    Grows(String),
    Cannot(String),
    Ask(Action),
    Asked(String),
}

fn look(world: &World, name: &str, claim: &Value, size: &str) -> Claim {
    let (Some(asked), Some(wanted)) = (
        bytes(text(&claim["spec"]["resources"]["requests"]["storage"])),
        bytes(size),
    ) else {
        return Claim::Fits;
    };
    if asked >= wanted {
        return still_growing(name, claim, asked);
    }
    let action = Action::ResizeVolume {
        claim: name.to_owned(),
        uid: text(&claim["metadata"]["uid"]).to_owned(),
        size: size.to_owned(),
    };
    if let Some(words) = world.commands.failure(&action.name())
        && !world.commands.may(&action.name())
    {
        let class = text(&claim["spec"]["storageClassName"]);
        return Claim::Cannot(format!(
            "volume {name} of StorageClass {class} cannot grow to {size}: {words}. Set allowVolumeExpansion: true on the class if its driver can, or take storage.size back"
        ));
    }
    if world.commands.may(&action.name()) {
        Claim::Ask(action)
    } else {
        Claim::Asked(format!("volume {name} was asked to grow to {size}"))
    }
}

/// A claim that asks for enough may not have it yet: drivers grow the file system when a pod mounts it, or fail.
fn still_growing(name: &str, claim: &Value, asked: u128) -> Claim {
    let conditions = claim["status"]["conditions"].as_array();
    let troubled = conditions.into_iter().flatten().find(|condition| {
        matches!(
            text(&condition["type"]),
            "FileSystemResizePending" | "Resizing" | "ControllerResizeError" | "NodeResizeError"
        ) && condition["status"] == "True"
    });
    let has = bytes(text(&claim["status"]["capacity"]["storage"]));
    match (troubled, has) {
        (Some(condition), _) => Claim::Grows(format!(
            "volume {name} is growing ({}{}{})",
            text(&condition["type"]),
            if condition["message"].is_string() {
                ": "
            } else {
                ""
            },
            text(&condition["message"]),
        )),
        (None, Some(has)) if has < asked => Claim::Grows(format!(
            "volume {name} has {} of the {} that it asks for",
            text(&claim["status"]["capacity"]["storage"]),
            text(&claim["spec"]["resources"]["requests"]["storage"]),
        )),
        _ => Claim::Fits,
    }
}

/// Claims of the members that there are, by name.
fn claims<'a>(
    world: &'a World,
    set: &'a str,
    live: &Value,
) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
    let replicas = live["spec"]["replicas"].as_i64().unwrap_or(1);
    (0..replicas).filter_map(move |ordinal| {
        let key = Key::new(Kind::PersistentVolumeClaim, format!("data-{set}-{ordinal}"));
        world
            .objects
            .get_key_value(&key)
            .map(|(key, object)| (key.name.as_str(), object))
    })
}

fn size_of(spec: &Value) -> Option<&str> {
    spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"].as_str()
}

/// Whether the live templates say what the wanted ones say. The API server may write a size differently.
fn same_templates(live: &Value, wanted: &Value) -> bool {
    let (live, wanted) = (&live["volumeClaimTemplates"], &wanted["volumeClaimTemplates"]);
    let none = |templates: &Value| templates.as_array().is_none_or(Vec::is_empty);
    if none(live) || none(wanted) {
        return none(live) && none(wanted);
    }
    let mut live = live.clone();
    let path = "/0/spec/resources/requests/storage";
    if let (Some(has), Some(size)) = (live.pointer_mut(path), wanted.pointer(path))
        && bytes(text(has)).is_some_and(|has| Some(has) == bytes(text(size)))
    {
        *has = size.clone();
    }
    project(&live, wanted) == *wanted
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Bytes of a quantity as Kubernetes writes it (`10Gi`, `1500M`, `1.5Ti`), rounded down; `None` when it is none.
fn bytes(quantity: &str) -> Option<u128> {
    const UNITS: [(&str, u128); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let split = quantity
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(split);
    let scale = match unit {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 {
        return None;
    }
    let part = match fraction {
        "" => 0,
        digits => {
            digits.parse::<u128>().ok()?.checked_mul(scale)? / 10_u128.pow(u32::try_from(digits.len()).ok()?)
        }
    };
    whole.parse::<u128>().ok()?.checked_mul(scale)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::platform::observe::commands::Tried;

    #[rstest]
    #[case("10Gi", Some(10 << 30))]
    #[case("10737418240", Some(10 << 30))]
    #[case("1.5Gi", Some(3 << 29))]
    #[case("2G", Some(2_000_000_000))]
    #[case("ten", None)]
    #[case("", None)]
    fn quantities_are_read(#[case] text: &str, #[case] expected: Option<u128>) {
        assert_eq!(bytes(text), expected);
    }

    fn manifest(size: Option<&str>) -> Value {
        let templates = size.map(|size| {
            json!([{"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": size}}}}])
        });
        json!({"metadata": {"uid": "s"}, "spec": {"replicas": 2, "volumeClaimTemplates": templates}})
    }

    fn world(template: Option<&str>, sizes: [&str; 2]) -> World {
        let mut world = World::default();
        world
            .objects
            .insert(Key::new(Kind::StatefulSet, "acme-postgres"), manifest(template));
        for (ordinal, size) in sizes.into_iter().enumerate() {
            let claim = json!({
                "metadata": {"uid": format!("c{ordinal}")},
                "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": size}}},
                "status": {"capacity": {"storage": size}},
            });
            let name = format!("data-acme-postgres-{ordinal}");
            world
                .objects
                .insert(Key::new(Kind::PersistentVolumeClaim, name), claim);
        }
        world
    }

    fn decided(world: &World, size: Option<&str>) -> Volumes {
        decide(world, "acme-postgres", &manifest(size))
    }

    fn names(volumes: &Volumes) -> Vec<String> {
        volumes.actions.iter().map(Action::name).collect()
    }

    #[test]
    fn claims_grow_before_the_template() {
        let volumes = decided(&world(Some("10Gi"), ["10Gi", "20Gi"]), Some("20Gi"));
        assert_eq!(names(&volumes), ["resize/data-acme-postgres-0/20Gi"]);
        assert!(matches!(volumes.templates, Templates::Live(_)));
        let volumes = decided(&world(Some("10Gi"), ["20Gi", "20Gi"]), Some("20Gi"));
        assert_eq!(names(&volumes), ["orphan/acme-postgres/s"]);
        assert_eq!(volumes.templates, Templates::Remake);
    }

    #[test]
    fn equal_sizes_cause_nothing_however_they_are_written() {
        for size in ["20Gi", "20480Mi", "21474836480"] {
            let volumes = decided(&world(Some("20Gi"), [size, "20Gi"]), Some("20Gi"));
            assert_eq!(
                (volumes.templates, volumes.actions, volumes.obstacle),
                (Templates::Wanted, vec![], None)
            );
        }
    }

    #[test]
    fn a_set_that_shrinks_is_not_made_again_yet() {
        let mut world = world(Some("10Gi"), ["20Gi", "20Gi"]);
        let key = Key::new(Kind::StatefulSet, "acme-postgres");
        world.objects.get_mut(&key).unwrap()["spec"]["replicas"] = json!(3);
        let volumes = decided(&world, Some("20Gi"));
        assert!(matches!(volumes.templates, Templates::Live(_)) && volumes.actions.is_empty());
    }

    #[test]
    fn what_the_api_server_refused_is_told_and_tried_again_later() {
        let mut world = world(Some("10Gi"), ["10Gi", "20Gi"]);
        let tried = |seconds| Tried {
            times: 1,
            ago: Duration::from_secs(seconds),
            failure: Some("only dynamically provisioned pvc can be resized".to_owned()),
        };
        let name = "resize/data-acme-postgres-0/20Gi".to_owned();
        world.commands.tried.insert(name.clone(), tried(1));
        let volumes = decided(&world, Some("20Gi"));
        let (reason, message) = volumes.obstacle.unwrap();
        assert_eq!((volumes.actions, reason), (vec![], Reason::VolumeNotExpandable));
        for part in [
            "data-acme-postgres-0",
            "StorageClass fast",
            "only dynamically provisioned",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert!(matches!(volumes.templates, Templates::Live(_)));
        world.commands.tried.insert(name.clone(), tried(9));
        assert_eq!(names(&decided(&world, Some("20Gi"))), [name]);
    }

    #[test]
    fn a_volume_that_is_still_growing_is_named() {
        let mut world = world(Some("20Gi"), ["20Gi", "20Gi"]);
        let key = Key::new(Kind::PersistentVolumeClaim, "data-acme-postgres-1");
        world.objects.get_mut(&key).unwrap()["status"] = json!({
            "capacity": {"storage": "10Gi"},
            "conditions": [{"type": "FileSystemResizePending", "status": "True", "message": "waiting for a pod"}],
        });
        let volumes = decided(&world, Some("20Gi"));
        let (reason, message) = volumes.obstacle.unwrap();
        assert_eq!(reason, Reason::VolumePending);
        assert!(message.contains("data-acme-postgres-1") && message.contains("waiting for a pod"));
    }

    #[test]
    fn storage_that_is_added_or_taken_away_makes_the_set_again() {
        assert_eq!(
            decided(&world(None, ["1Gi", "1Gi"]), Some("1Gi")).templates,
            Templates::Remake
        );
        assert_eq!(
            decided(&world(Some("1Gi"), ["1Gi", "1Gi"]), None).templates,
            Templates::Remake
        );
    }
}
