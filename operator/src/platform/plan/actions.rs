//! What is done apart from applying and deleting objects: requests to Patroni, to pods and to volumes, each with all that it needs.

use serde_json::Value;

/// Something to do once. Carrying it out may be refused or come too late; the next look decides anew.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Bring what Patroni keeps in its store to the spec: a JSON merge patch of its `/config`.
    SetParameters {
        /// Only what differs; `null` takes a parameter back to its default.
        patch: Value,
    },
    /// Have Patroni restart PostgreSQL in one pod, because parameters wait for it.
    Restart {
        /// The pod.
        member: String,
    },
    /// Have Patroni hand the primary's role over.
    Switchover {
        /// Who has it.
        from: String,
        /// Who shall have it; `None` leaves it to Patroni, which is quicker, where every replica is as good.
        to: Option<String>,
    },
    /// Have Patroni copy a replica anew from the primary.
    Reinitialize {
        /// The pod.
        member: String,
    },
    /// Delete one pod, so that it comes back as its StatefulSet now describes it.
    DeletePod {
        /// Its name.
        name: String,
        /// The identity that it must still have.
        uid: String,
        /// Pods of the same component that must still be ready then, by name with their identity.
        relying_on: Vec<(String, String)>,
    },
    /// Ask for a larger volume.
    ResizeVolume {
        /// The claim.
        claim: String,
        /// The identity that it must still have.
        uid: String,
        /// The size to ask for, as Kubernetes writes it.
        size: String,
    },
    /// Delete a StatefulSet and leave its pods and volumes alone, so that it can be made again with other claim templates.
    OrphanStatefulSet {
        /// Its name.
        name: String,
        /// The identity that it must still have.
        uid: String,
    },
    /// Delete a `ConfigMap` of Patroni that tells of data that no longer exists.
    DiscardState {
        /// Its name.
        name: String,
        /// The identity that it must still have.
        uid: String,
    },
}

impl Action {
    /// The name under which tries of it are counted.
    pub fn name(&self) -> String {
        match self {
            Self::SetParameters { .. } => "parameters".to_owned(),
            Self::Restart { member } => format!("restart/{member}"),
            Self::Switchover { .. } => "switchover".to_owned(),
            Self::Reinitialize { member } => format!("reinitialize/{member}"),
            Self::DeletePod { name, uid, .. } => format!("delete/{name}/{uid}"),
            Self::ResizeVolume { claim, size, .. } => format!("resize/{claim}/{size}"),
            Self::OrphanStatefulSet { name, uid } => format!("orphan/{name}/{uid}"),
            Self::DiscardState { name, .. } => format!("discard/{name}"),
        }
    }
}
