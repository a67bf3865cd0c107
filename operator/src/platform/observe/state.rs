//! The `ConfigMaps` in which Patroni keeps its state.

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateMap {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
}
