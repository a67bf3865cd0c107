//! What the API server refused is not sent again at every look, but after growing pauses, or as soon as something about it is different.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// The first pause; each is twice the one before.
const FIRST: SignedDuration = SignedDuration::from_secs(1);
/// The longest: a cure is noticed within ten seconds.
const LONGEST: SignedDuration = SignedDuration::from_secs(5);

/// Refused requests by what they were about.
pub(super) struct Refusals<K>(Mutex<HashMap<K, Refusal>>);

struct Refusal {
    sent: Value,
    /// The object's version when it was sent; none if there was no object.
    version: Option<String>,
    words: String,
    pause: SignedDuration,
    until: Timestamp,
}

impl<K> Default for Refusals<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + std::hash::Hash> Refusals<K> {
    /// The words of a refusal of the same request about the same object, while it is too early to ask again.
    pub(super) fn standing(
        &self,
        place: &K,
        sent: &Value,
        version: Option<&str>,
        now: Timestamp,
    ) -> Option<String> {
        let refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refusals
            .get(place)
            .filter(|refusal| refusal.is_about(sent, version) && now < refusal.until)
            .map(|refusal| refusal.words.clone())
    }

    /// Notes a refusal.
    pub(super) fn note(&self, place: K, sent: &Value, version: Option<&str>, words: &str, now: Timestamp) {
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = refusals
            .get(&place)
            .filter(|refusal| refusal.is_about(sent, version))
            .map_or(FIRST, |refusal| (refusal.pause * 2).min(LONGEST));
        let refusal = Refusal {
            sent: sent.clone(),
            version: version.map(str::to_owned),
            words: words.to_owned(),
            pause,
            until: now.saturating_add(pause).unwrap_or(now),
        };
        refusals.insert(place, refusal);
    }

    /// Forgets it: a request was taken.
    pub(super) fn clear(&self, place: &K) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(place);
    }
}

impl Refusal {
    fn is_about(&self, sent: &Value, version: Option<&str>) -> bool {
        self.sent == *sent && self.version.as_deref() == version
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn pauses_grow_to_five_seconds_and_end_when_anything_changes() {
        let refusals = Refusals::default();
        let (wanted, other) = (json!({"a": 1}), json!({"a": 2}));
        let stands = |now| refusals.standing(&"x", &wanted, Some("7"), at(now)).is_some();
        let mut now = 0;
        for pause in [1, 2, 4, 5, 5] {
            assert!(!stands(now));
            refusals.note("x", &wanted, Some("7"), "no", at(now));
            assert!(stands(now + pause - 1));
            now += pause;
        }
        refusals.note("x", &wanted, Some("7"), "no", at(now));
        assert!(stands(now));
        assert_eq!(refusals.standing(&"x", &other, Some("7"), at(now)), None);
        assert_eq!(refusals.standing(&"x", &wanted, Some("8"), at(now)), None);
        assert_eq!(refusals.standing(&"x", &wanted, None, at(now)), None);
        refusals.clear(&"x");
        assert!(!stands(now));
    }
}
