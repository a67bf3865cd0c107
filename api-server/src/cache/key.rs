//! Keys: the entity, and a digest of the arguments that is the same in every process of every release (F01, F29).

use std::fmt::Write;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::kind::Entity;

/// Names one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// What it belongs to.
    pub entity: Entity,
    arguments: [u8; 16],
}

impl Key {
    /// The key of what `entity` answers to `arguments`. They are put into canonical form first: JSON with sorted names.
    pub fn new(entity: Entity, arguments: &impl Serialize) -> Result<Self, serde_json::Error> {
        // The map of `serde_json::Value` is sorted by name.
        let canonical = serde_json::to_vec(&serde_json::to_value(arguments)?)?;
        let digest = Sha256::digest(&canonical);
        let mut arguments = [0; 16];
        arguments.copy_from_slice(&digest[..16]);
        Ok(Self { entity, arguments })
    }

    /// The key in Redis, below a prefix.
    pub fn name(&self, prefix: &str) -> String {
        let mut name = format!("{prefix}d:{}:", self.entity);
        for byte in self.arguments {
            let _ = write!(name, "{byte:02x}");
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::cache::kind::Kind;

    fn key(tenant: u128, arguments: &serde_json::Value) -> Key {
        let entity = Entity::of_person(Kind::Memories, Uuid::from_u128(tenant), Uuid::from_u128(7));
        Key::new(entity, arguments).unwrap()
    }

    /// F01: the digest is a constant of the arguments, not of the process.
    #[test]
    fn a_key_is_the_same_everywhere_and_whatever_the_order_of_names() {
        let name = key(1, &json!({"a": 1, "b": [true, "x"]})).name("");
        assert_eq!(
            name,
            "d:memories:v1:00000000000000000000000000000001:00000000000000000000000000000007:\
             63e8063d9dc6f0fd5a24b4706818a165"
        );
        assert_eq!(name, key(1, &json!({"b": [true, "x"], "a": 1})).name(""));
    }

    /// F21, F49: the same question in two tenants has two keys.
    #[test]
    fn tenants_and_arguments_have_keys_of_their_own() {
        let one = key(1, &json!({"limit": 20}));
        assert_ne!(one, key(2, &json!({"limit": 20})));
        assert_ne!(one, key(1, &json!({"limit": 21})));
    }
}
