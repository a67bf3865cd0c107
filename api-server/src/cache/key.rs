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
    use proptest::prelude::*;
    use serde::Serializer;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::cache::kind::{KINDS, Kind};

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

    /// Arguments whose names keep their order until they are written, as those of structures do.
    #[derive(Debug, Clone, PartialEq)]
    enum Arguments {
        Number(i64),
        Text(String),
        List(Vec<Self>),
        Named(Vec<(String, Self)>),
    }

    impl Serialize for Arguments {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::Number(number) => serializer.serialize_i64(*number),
                Self::Text(text) => serializer.serialize_str(text),
                Self::List(items) => serializer.collect_seq(items),
                Self::Named(fields) => {
                    serializer.collect_map(fields.iter().map(|field| (&field.0, &field.1)))
                }
            }
        }
    }

    impl Arguments {
        /// The same with its names in another order, at every depth.
        fn turned(self, by: usize) -> Self {
            match self {
                Self::List(items) => Self::List(items.into_iter().map(|item| item.turned(by)).collect()),
                Self::Named(mut fields) => {
                    fields.reverse();
                    let places = fields.len().max(1);
                    fields.rotate_left(by % places);
                    let turned = fields.into_iter().map(|(name, value)| (name, value.turned(by)));
                    Self::Named(turned.collect())
                }
                leaf => leaf,
            }
        }
    }

    fn arguments() -> impl Strategy<Value = Arguments> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Arguments::Number),
            "\\PC{0,8}".prop_map(Arguments::Text),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let named = proptest::collection::btree_map("[a-e]{1,2}", inner.clone(), 0..5);
            prop_oneof![
                proptest::collection::vec(inner, 0..4).prop_map(Arguments::List),
                named.prop_map(|fields| Arguments::Named(fields.into_iter().collect())),
            ]
        })
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        proptest::sample::select(&KINDS[..])
    }

    proptest! {
        /// F01, F29: two places that ask the same, in whatever order, share one entry.
        #[test]
        fn the_order_of_names_makes_no_other_key(
            kind in kinds(), tenant: u128, person: u128, asked in arguments(), by in 0_usize..5,
        ) {
            let entity = Entity::of_person(kind, Uuid::from_u128(tenant), Uuid::from_u128(person));
            let key = Key::new(entity, &asked).unwrap();
            prop_assert_eq!(Key::new(entity, &asked.turned(by)).unwrap(), key);
        }

        /// F21, F49: whatever differs in the question, its kind or its owner makes another entry.
        #[test]
        fn another_question_has_another_key(
            kind in kinds(), other_kind in kinds(), tenant: u128, person: u128, bit in 0_u32..128,
            asked in arguments(), other in arguments(),
        ) {
            let id = |bits| Some(Uuid::from_u128(bits));
            let entity = Entity { kind, tenant: id(tenant), id: id(person) };
            let entities = [
                Entity { kind: other_kind, ..entity },
                Entity { tenant: id(tenant ^ (1_u128 << bit)), ..entity },
                Entity { tenant: None, ..entity },
                Entity { id: id(person ^ (1_u128 << bit)), ..entity },
                Entity { id: None, ..entity },
                // Exchanged.
                Entity { tenant: entity.id, id: entity.tenant, ..entity },
            ];
            let key = Key::new(entity, &asked).unwrap();
            for other in entities.into_iter().filter(|other| *other != entity) {
                let other = Key::new(other, &asked).unwrap();
                prop_assert_ne!(other, key);
                prop_assert_ne!(other.name("p:"), key.name("p:"));
            }
            let wrapped = Arguments::List(vec![asked.clone()]);
            for other in [wrapped, other].into_iter().filter(|other| *other != asked) {
                let other = Key::new(entity, &other).unwrap();
                prop_assert_ne!(other, key);
                prop_assert_ne!(other.name("p:"), key.name("p:"));
            }
        }

        /// F21: nothing that people write is in a name, so none can be made to look like another one, or too long.
        #[test]
        fn a_name_is_short_and_of_six_parts_whatever_was_asked(
            kind in kinds(), tenant in proptest::option::of(any::<u128>()),
            person in proptest::option::of(any::<u128>()), asked in arguments(),
        ) {
            let entity = Entity { kind, tenant: tenant.map(Uuid::from_u128), id: person.map(Uuid::from_u128) };
            let name = Key::new(entity, &asked).unwrap().name("");
            let known = |sign: char| sign.is_ascii_lowercase() || sign.is_ascii_digit() || ":_-".contains(sign);
            prop_assert!(name.chars().all(known), "{name}");
            prop_assert!(name.len() <= 128, "{name}");
            prop_assert_eq!(name.split(':').count(), 6, "{}", name);
        }
    }
}
