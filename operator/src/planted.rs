//! Bugs that are planted on purpose, to show that tests find them. They are compiled in with the feature `planted` alone, and even
//! then sleep until a test wakes one.

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("the feature `planted` is for tests: a release is built without it");

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The API is rolled out although the migration has not succeeded.
    GateSkipped,
    /// What carries the platform's label is deleted without a look at its owner.
    OwnerUnchecked,
    /// `spec.replicas` is sent although an autoscaler owns it.
    ReplicasTaken,
    /// A pod is replaced although another one is not in step.
    TwoAtOnce,
    /// `Ready` is said although the end-to-end check fails.
    ReadyLie,
    /// A write is let through after the lease has run out.
    FenceOpen,
    /// A Secret whose creation is answered with an error is written over.
    SecretsRedrawn,
    /// A status counts as written before the answer to it.
    StatusBelieved,
    /// A deletion does not say which object it means.
    DeletionUntied,
}

#[cfg(feature = "planted")]
mod awake {
    use std::cell::Cell;
    use std::sync::{Mutex, PoisonError};

    use super::Bug;

    thread_local! {
        static HERE: Cell<Option<Bug>> = const { Cell::new(None) };
    }
    static EVERYWHERE: Mutex<Option<Bug>> = Mutex::new(None);

    /// Whether a bug is awake.
    pub fn is(bug: Bug) -> bool {
        HERE.get() == Some(bug) || *EVERYWHERE.lock().unwrap_or_else(PoisonError::into_inner) == Some(bug)
    }

    /// Wakes a bug, or none, on this thread.
    pub fn plant_here(bug: Option<Bug>) {
        HERE.set(bug);
    }

    /// Wakes a bug, or none, in the whole process.
    pub fn plant(bug: Option<Bug>) {
        *EVERYWHERE.lock().unwrap_or_else(PoisonError::into_inner) = bug;
    }
}

#[cfg(feature = "planted")]
pub use awake::{is, plant, plant_here};

/// Whether a bug is awake: never.
#[cfg(not(feature = "planted"))]
pub const fn is(_: Bug) -> bool {
    false
}
