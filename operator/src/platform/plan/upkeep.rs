//! What it takes to keep a replicated component at its spec after its first day, in one value: how many members now, which claim
//! templates, which actions, and what to tell people about it.

use crds::conditions::Reason;
use crds::names::Component;
use serde_json::{Value, json};

use super::actions::Action;
use super::rollout::{Fleet, Member};
use super::volumes::Templates;
use crate::platform::object::{Key, Kind, Object};
use crate::platform::observe::World;
use crate::platform::observe::pods::Pod;

/// What it takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Upkeep {
    /// The StatefulSet to apply; `None` while it must not be touched.
    pub set: Option<Object>,
    /// Members that exist or are wanted: whoever lists members for clients lists this many.
    pub members: i32,
    /// What to do besides.
    pub actions: Vec<Action>,
    /// What is under way, or in the way.
    pub finding: Option<(Reason, String)>,
}

/// The live StatefulSet as decisions see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Whether it is there.
    pub exists: bool,
    /// Members that it has been asked for.
    pub replicas: Option<i32>,
    /// Revision that new pods get; `None` while it has not been worked out for the last change.
    pub revision: Option<String>,
}

impl Live {
    /// Reads it. Where the set is gone, as while it is made again, the pods tell how many members there are.
    pub fn of(world: &World, set: &str) -> Self {
        let Some(object) = world.objects.get(&Key::new(Kind::StatefulSet, set)) else {
            let prefix = format!("{set}-");
            let ordinals = world
                .pods
                .iter()
                .filter_map(|pod| pod.name.strip_prefix(&prefix)?.parse::<i32>().ok());
            return Self {
                exists: false,
                replicas: ordinals.max().map(|last| last + 1),
                revision: None,
            };
        };
        let number = |value: &Value| value.as_i64().unwrap_or(0);
        let settled =
            number(&object["status"]["observedGeneration"]) >= number(&object["metadata"]["generation"]);
        Self {
            exists: true,
            replicas: object["spec"]["replicas"]
                .as_i64()
                .and_then(|number| i32::try_from(number).ok()),
            revision: object["status"]["updateRevision"]
                .as_str()
                .filter(|_| settled)
                .map(str::to_owned),
        }
    }
}

/// The members of a component, from its pods. `well` says whether a pod that is ready is also in step.
pub fn fleet(
    world: &World,
    component: Component,
    live: &Live,
    primary: Option<String>,
    well: impl Fn(&Pod) -> bool,
) -> Fleet {
    let of_component = world
        .pods
        .iter()
        .filter(|pod| pod.component == component.as_str());
    let members = of_component.filter_map(|pod| {
        let ordinal = pod.name.rsplit('-').next()?.parse().ok()?;
        let outdated = live
            .revision
            .as_ref()
            .is_some_and(|revision| pod.revision.as_ref() != Some(revision));
        Some(Member {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            ordinal,
            outdated,
            well: pod.ready && !pod.deleting && well(pod),
            broken: !pod.ready && pod.problem.is_some(),
            leaving: pod.deleting,
        })
    });
    let mut members: Vec<_> = members.collect();
    members.sort_by_key(|member| member.ordinal);
    Fleet {
        members,
        primary,
        wanted: usize::try_from(live.replicas.unwrap_or(0)).unwrap_or(0),
    }
}

/// Deleting a member's pod. One that is well may go only while all others still are; one that is broken keeps nobody up.
pub fn delete(fleet: &Fleet, member: &Member) -> Action {
    let others = fleet.members.iter().filter(|other| other.name != member.name);
    let relying_on = if member.well {
        others
            .map(|other| (other.name.clone(), other.uid.clone()))
            .collect()
    } else {
        Vec::new()
    };
    Action::DeletePod {
        name: member.name.clone(),
        uid: member.uid.clone(),
        relying_on,
    }
}

/// The StatefulSet with the templates that can be sent now.
pub fn with_templates(mut set: Object, templates: &Templates) -> Option<Object> {
    match templates {
        Templates::Wanted => Some(set),
        Templates::Remake => None,
        Templates::Live(live) => {
            let live = if live.is_null() { json!([]) } else { live.clone() };
            set.manifest["spec"]["volumeClaimTemplates"] = owned_part(&live);
            Some(set)
        }
    }
}

/// What the API server added to the templates is not ours to send.
fn owned_part(templates: &Value) -> Value {
    let ours = |template: &Value| {
        let mut template = template.clone();
        if let Some(fields) = template.as_object_mut() {
            fields.remove("status");
        }
        if let Some(metadata) = template["metadata"].as_object_mut() {
            metadata.remove("creationTimestamp");
        }
        if let Some(spec) = template["spec"].as_object_mut() {
            spec.remove("volumeMode");
        }
        template
    };
    templates.as_array().into_iter().flatten().map(ours).collect()
}

/// What Kubernetes has yet to do about the StatefulSet: to work out what pods are to be like, to make those that are wanted, to take
/// the others away. Until then nothing is said to be done.
pub fn unsettled(set: &str, live: &Live, fleet: &Fleet) -> Option<(Reason, String)> {
    let leaving = fleet.members.iter().find(|member| member.leaving);
    let message = match (live.exists, &live.revision, leaving) {
        (false, ..) => None,
        (true, None, _) => Some(format!("Kubernetes has yet to take up the last change of {set}")),
        (true, _, Some(member)) => Some(format!("{} of {set} is on its way out", member.name)),
        _ if fleet.members.len() != fleet.wanted => Some(format!(
            "{} pods of {set} are there, {} are to be",
            fleet.members.len(),
            fleet.wanted
        )),
        _ => None,
    };
    message.map(|message| (Reason::RollingOut, message))
}

/// How a rollout stands, for people.
pub fn progress(set: &str, fleet: &Fleet) -> (Reason, String) {
    let next = fleet.members.iter().rev().find(|member| member.outdated);
    let waiting: Vec<_> = fleet
        .members
        .iter()
        .filter(|member| !member.well)
        .map(|member| member.name.as_str())
        .collect();
    let mut message = format!(
        "{} of {} pods of {set} are what the spec describes now",
        fleet.current(),
        fleet.members.len()
    );
    if !waiting.is_empty() {
        message = format!("{message}; waits for {} to be in step", waiting.join(", "));
    } else if let Some(next) = next {
        message = format!("{message}; {} is next", next.name);
    }
    (Reason::RollingOut, message)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// A status that says that all is done while a pod is still to come or to go would lie for a moment.
    #[rstest]
    #[case::done(Some("b"), 3, false, true)]
    #[case::template_not_worked_out(None, 3, false, false)]
    #[case::one_to_come(Some("b"), 2, false, false)]
    #[case::one_too_many(Some("b"), 4, false, false)]
    #[case::one_leaves(Some("b"), 3, true, false)]
    fn nothing_is_done_before_kubernetes_has_caught_up(
        #[case] revision: Option<&str>,
        #[case] pods: usize,
        #[case] leaving: bool,
        #[case] settled: bool,
    ) {
        let live = Live {
            exists: true,
            replicas: Some(3),
            revision: revision.map(str::to_owned),
        };
        let mut members = vec![Member::default(); pods];
        members[0].leaving = leaving;
        let fleet = Fleet {
            members,
            primary: None,
            wanted: 3,
        };
        assert_eq!(unsettled("acme-redis", &live, &fleet).is_none(), settled);
    }
}
