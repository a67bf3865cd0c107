//! What is known of Secrets without their values: those that the operator made, and the keys that the spec names.

use std::collections::BTreeMap;

use crds::conditions::Reason;
use crds::platform::SecretKeyRef;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::platform::build::{pod, secrets};
use crate::platform::object::{Key, Kind};
use crate::platform::validate::{Cache, Database, Platform};

/// Values of Secrets, by name and key. Never part of the world: what decisions see can be printed.
pub type Credentials = BTreeMap<String, BTreeMap<String, String>>;

/// State of a key that the spec names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// There is no Secret of that name.
    NoSecret,
    /// It has no such key, or the key holds nothing.
    NoKey,
    /// It holds a value. The fingerprint is keyed with a secret of the platform: it tells a change and nothing else.
    Held {
        /// Sixteen hexadecimal digits.
        fingerprint: String,
    },
}

/// All keys of Secrets that the spec names.
pub fn named(platform: &Platform) -> Vec<&SecretKeyRef> {
    let mut named = of_database(platform);
    named.extend(of_cache(platform));
    named.extend(of_api(platform));
    named
}

/// Those of an external PostgreSQL.
pub fn of_database(platform: &Platform) -> Vec<&SecretKeyRef> {
    let mut named = Vec::new();
    if let Database::External(external) = &platform.database {
        named.push(&external.primary_secret_ref);
        named.extend(&external.replica_secret_refs);
        named.extend(&external.ca_secret_ref);
    }
    named
}

/// That of an external Redis.
pub fn of_cache(platform: &Platform) -> Vec<&SecretKeyRef> {
    match &platform.cache {
        Cache::External(external) => std::iter::once(&external.secret_ref)
            .chain(&external.ca_secret_ref)
            .collect(),
        Cache::Managed(_) => Vec::new(),
    }
}

/// Those of services that only the API asks.
pub fn of_api(platform: &Platform) -> Vec<&SecretKeyRef> {
    let api = &platform.spec.api;
    let mut named: Vec<_> = api.embeddings.api_key_secret_ref.iter().collect();
    if let Some(store) = &api.object_store {
        named.extend([&store.access_key_secret_ref, &store.secret_key_secret_ref]);
    }
    named
}

/// The state of some keys as text, for digests: it changes when one of the values does.
pub fn digest(known: &BTreeMap<(String, String), Reference>, keys: &[&SecretKeyRef]) -> String {
    let state = |reference: &&SecretKeyRef| match known.get(&(reference.name.clone(), reference.key.clone()))
    {
        Some(Reference::Held { fingerprint }) => fingerprint.clone(),
        _ => "-".to_owned(),
    };
    keys.iter().map(state).collect::<Vec<_>>().join(",")
}

/// What is wrong with the first key that cannot be used.
pub fn missing(
    known: &BTreeMap<(String, String), Reference>,
    keys: &[&SecretKeyRef],
) -> Option<(Reason, String)> {
    keys.iter().find_map(|reference| {
        let SecretKeyRef { name, key } = reference;
        match known.get(&(name.clone(), key.clone())) {
            Some(Reference::Held { .. }) => None,
            None => Some((Reason::Progressing, format!("Secret {name} is read next"))),
            Some(Reference::NoKey) => Some((
                Reason::SecretMissing,
                format!("Secret {name} has no value under the key {key}: add it, or name another key in the spec"),
            )),
            Some(Reference::NoSecret) => Some((
                Reason::SecretMissing,
                format!("Secret {name}, which is to hold {key}, does not exist: create it, or name another in the spec"),
            )),
        }
    })
}

/// Names of all Secrets that are to be read.
pub fn names(platform: &Platform) -> Vec<String> {
    let made = secrets::requests(platform)
        .into_iter()
        .map(|request| request.name);
    let mut names: Vec<_> = made
        .chain(
            named(platform)
                .into_iter()
                .map(|reference| reference.name.clone()),
        )
        .collect();
    names.sort();
    names.dedup();
    names
}

/// An object of the world without what is secret in it.
pub fn object(secret: &Secret) -> Value {
    let metadata = &secret.metadata;
    json!({"metadata": {
        "name": metadata.name, "uid": metadata.uid, "resourceVersion": metadata.resource_version,
        "labels": metadata.labels.clone().unwrap_or_default(),
        "ownerReferences": metadata.owner_references.clone().unwrap_or_default(),
    }})
}

/// Key of a Secret's object in the world.
pub fn key(name: &str) -> Key {
    Key::new(Kind::Secret, name)
}

/// The state of each named key, out of all values that were read. Nothing is known before the platform has the secret with which
/// fingerprints are keyed: another fingerprint later would seem to be another value.
pub fn references(platform: &Platform, read: &Credentials) -> BTreeMap<(String, String), Reference> {
    let api = crds::names::component(&platform.name, crds::names::Component::Api);
    let Some(pepper) = read.get(&api).and_then(|values| values.get(secrets::PEPPER)) else {
        return BTreeMap::new();
    };
    let state = |reference: &SecretKeyRef| match read.get(&reference.name) {
        None => Reference::NoSecret,
        Some(values) => match values.get(&reference.key).map(|value| value.trim()) {
            None | Some("") => Reference::NoKey,
            Some(value) => Reference::Held {
                fingerprint: fingerprint(pepper, value),
            },
        },
    };
    named(platform)
        .into_iter()
        .map(|reference| ((reference.name.clone(), reference.key.clone()), state(reference)))
        .collect()
}

fn fingerprint(pepper: &str, value: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(pepper);
    digest.update([0]);
    digest.update(value);
    pod::hex(&digest.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fixtures::{external, platform};

    fn credentials(url: &str) -> Credentials {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        [
            ("acme-api".to_owned(), map(&[("pepper", "p")])),
            ("db".to_owned(), map(&[("primary", url)])),
        ]
        .into()
    }

    #[test]
    fn each_named_key_is_told_apart() {
        let platform = platform(external());
        let found = references(&platform, &credentials("postgres://a"));
        let state = |secret: &str, key: &str| found[&(secret.to_owned(), key.to_owned())].clone();
        assert!(matches!(state("db", "primary"), Reference::Held { .. }));
        assert_eq!(state("db", "replica"), Reference::NoKey);
        assert_eq!(state("cache", "url"), Reference::NoSecret);
        let (reason, words) = missing(&found, &of_database(&platform)).unwrap();
        assert_eq!(reason, Reason::SecretMissing);
        assert!(
            words.contains("Secret db") && words.contains("replica"),
            "{words}"
        );
        assert_eq!(digest(&found, &of_cache(&platform)), "-");
    }

    #[test]
    fn nothing_is_known_before_fingerprints_can_be_keyed() {
        let platform = platform(external());
        let mut read = credentials("postgres://a");
        read.remove("acme-api");
        let found = references(&platform, &read);
        let (reason, _) = missing(&found, &of_database(&platform)).unwrap();
        assert_eq!(reason, Reason::Progressing);
    }

    #[test]
    fn a_fingerprint_tells_a_change_and_not_the_value() {
        let platform = platform(external());
        let of = |url: &str| {
            references(&platform, &credentials(url))[&("db".to_owned(), "primary".to_owned())].clone()
        };
        assert_eq!(of("postgres://a"), of("postgres://a\n"));
        assert_ne!(of("postgres://a"), of("postgres://b"));
        assert!(!format!("{:?}", of("postgres://a")).contains("postgres"));
    }
}
