//! Which of the APIs that a cluster may have or not can be used.

use std::collections::BTreeMap;

use crate::platform::object::Kind;

/// Whether an optional kind can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Availability {
    /// The cluster does not have it.
    #[default]
    Absent,
    /// It is there and its objects are known.
    Usable,
    /// It is there, but its objects are not known, for this reason: nothing may be concluded from not seeing one.
    Unreadable(String),
}

/// Availability of every optional kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Apis(BTreeMap<Kind, Availability>);

impl Apis {
    /// Puts them together; a kind that is not named is absent.
    pub fn new(kinds: impl IntoIterator<Item = (Kind, Availability)>) -> Self {
        Self(kinds.into_iter().collect())
    }

    /// Availability of one kind.
    pub fn of(&self, kind: Kind) -> &Availability {
        self.0.get(&kind).unwrap_or(&Availability::Absent)
    }

    /// Whether objects of the kind can be made and seen.
    pub fn usable(&self, kind: Kind) -> bool {
        *self.of(kind) == Availability::Usable
    }
}
