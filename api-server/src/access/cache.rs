//! Validated tokens of this process. An entry is believed only while three things hold: it is younger than its time to live, no change of
//! its person's rights was learned since it was read, and this process looked for such changes within the last second. So a lost
//! message, a stopped Redis or a stopped watcher cost queries, and never a revoked token that still works.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use quick_cache::sync::Cache;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::domain::principal::Principal;
use crate::keys::TokenHash;
use crate::metrics::AccessMetrics;
use crate::routing::fleet::AccessSink;
use crate::tally;

/// Entries of one process, about 200 bytes each.
const MOST: usize = 50_000;
/// How long an entry is believed without having looked for changes. With the time of a look this stays below the second that is promised.
const UNCONFIRMED: Duration = Duration::from_millis(900);
/// How long an unknown token is remembered as such. A token cannot be presented before it was made, so none becomes known later.
const UNKNOWN: Duration = Duration::from_secs(10);
/// The longest time to live that is granted; changes are remembered as long, whatever the configuration says by then.
const LONGEST: Duration = Duration::from_hours(1);
/// People whose changes are remembered; more empty the cache instead.
const MOST_CHANGED: usize = 100_000;
/// Messages to other processes that may wait; what does not fit is found in the table.
const MOST_OUTGOING: usize = 1_024;

/// What was read about a token.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whose it is; nobody's if it is not good.
    pub person: Option<Principal>,
    /// From when on changes are not in it.
    pub as_of: Instant,
}

/// Open connections, whose people may lose rights while they listen.
pub trait Listeners: std::fmt::Debug + Send + Sync {
    /// Whether anybody listens.
    fn anybody(&self) -> bool;

    /// What these people may do has changed.
    fn rights_changed(&self, people: &[Uuid]);
}

/// Validated tokens.
#[derive(Debug, Clone)]
pub struct Tokens(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    listeners: OnceLock<Arc<dyn Listeners>>,
    entries: Cache<TokenHash, Entry>,
    state: Mutex<State>,
    outgoing: mpsc::Sender<Uuid>,
    metrics: AccessMetrics,
}

#[derive(Debug)]
struct State {
    /// When this process learned of the last change of a person's rights.
    changed: HashMap<Uuid, Instant>,
    /// Everything that was committed before this moment is known here.
    confirmed: Option<Instant>,
    /// Entries read before this moment are not believed.
    floor: Option<Instant>,
}

impl State {
    /// Whether what was read as of a moment can still hold for a person.
    fn holds(&self, user_id: Uuid, as_of: Instant) -> bool {
        self.floor.is_none_or(|floor| as_of > floor) && !self.changed_since(user_id, as_of)
    }

    fn changed_since(&self, user_id: Uuid, as_of: Instant) -> bool {
        self.changed
            .get(&user_id)
            .is_some_and(|changed| as_of <= *changed)
    }
}

impl Tokens {
    /// An empty cache, and the end of the queue from which people are taken whose rights this process changed.
    pub fn new(metrics: AccessMetrics) -> (Self, mpsc::Receiver<Uuid>) {
        let (outgoing, published) = mpsc::channel(MOST_OUTGOING);
        let tokens = Self(Arc::new(Inner {
            listeners: OnceLock::new(),
            entries: Cache::new(MOST),
            state: Mutex::new(State {
                changed: HashMap::new(),
                confirmed: None,
                floor: None,
            }),
            outgoing,
            metrics,
        }));
        (tokens, published)
    }

    /// What is known of a token and may be believed now.
    pub fn get(
        &self,
        hash: &TokenHash,
        ttl: Duration,
        now: Instant,
        clock: Timestamp,
    ) -> Option<Option<Principal>> {
        let found = self
            .0
            .entries
            .get(hash)
            .filter(|entry| self.believes(entry, ttl, now, clock));
        tally::lookup(found.is_some());
        let counter = if found.is_some() {
            &self.0.metrics.hits
        } else {
            &self.0.metrics.misses
        };
        counter.inc();
        found.map(|entry| entry.person)
    }

    fn believes(&self, entry: &Entry, ttl: Duration, now: Instant, clock: Timestamp) -> bool {
        let age = now.saturating_duration_since(entry.as_of);
        let Some(person) = &entry.person else {
            return age < UNKNOWN;
        };
        let state = self.state();
        let looked = state
            .confirmed
            .map_or(entry.as_of, |confirmed| confirmed.max(entry.as_of));
        age < ttl.min(LONGEST)
            && person.expires_at > clock
            && now.saturating_duration_since(looked) < UNCONFIRMED
            && state.holds(person.user_id, entry.as_of)
    }

    /// Whether what was read as of a moment may be used for a person: a change may have been learned while it was read.
    pub fn holds(&self, user_id: Uuid, as_of: Instant) -> bool {
        self.state().holds(user_id, as_of)
    }

    /// Whether a change of a person's rights is known that what was read as of a moment may lack.
    pub fn changed_since(&self, user_id: Uuid, as_of: Instant) -> bool {
        self.state().changed_since(user_id, as_of)
    }

    /// Keeps what was read.
    pub fn put(&self, hash: TokenHash, entry: Entry) {
        self.0.entries.insert(hash, entry);
    }

    /// Whether there is anything to watch for.
    pub fn is_empty(&self) -> bool {
        self.0.entries.is_empty() && !self.0.listeners.get().is_some_and(|open| open.anybody())
    }

    /// Names the connections that are told of changes, once.
    pub fn set_listeners(&self, listeners: Arc<dyn Listeners>) {
        let _ = self.0.listeners.set(listeners);
    }

    /// Takes note that people's rights changed.
    pub fn learn(&self, people: &[Uuid], now: Instant) {
        let mut state = self.state();
        if state.changed.len() + people.len() > MOST_CHANGED {
            state.changed.clear();
            state.floor = Some(now);
        }
        for person in people {
            state.changed.insert(*person, now);
        }
        self.0.metrics.changes.inc_by(people.len() as u64);
        drop(state);
        if let Some(listeners) = self.0.listeners.get()
            && !people.is_empty()
        {
            listeners.rights_changed(people);
        }
    }

    /// Takes note that everything committed before a moment is known. Changes that no entry can be older than are forgotten.
    pub fn confirm(&self, looked: Instant) {
        let mut state = self.state();
        state.confirmed = state.confirmed.max(Some(looked));
        let horizon = looked.checked_sub(LONGEST);
        state
            .changed
            .retain(|_, changed| horizon.is_none_or(|horizon| *changed > horizon));
    }

    /// Takes note that changes are known only from a moment on: what was read before is not believed any more.
    pub fn begin(&self, looked: Instant) {
        self.state().floor = Some(looked);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessSink for Tokens {
    fn rights_changed(&self, people: &[Uuid]) {
        self.learn(people, Instant::now());
        for person in people {
            // What does not fit is found in the table.
            let _ = self.0.outgoing.try_send(*person);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::principal::Role;
    use crate::metrics::Metrics;

    const TTL: Duration = Duration::from_mins(5);
    const CLOCK: Timestamp = Timestamp::UNIX_EPOCH;

    fn person(id: u128) -> Principal {
        Principal {
            session_id: Uuid::nil(),
            user_id: Uuid::from_u128(id),
            tenant_id: Uuid::nil(),
            role: Role::Member,
            is_operator: false,
            expires_at: Timestamp::from_second(600).unwrap(),
        }
    }

    fn filled(at: Instant) -> Tokens {
        let (tokens, _) = Tokens::new(Metrics::new().access.clone());
        for id in [1_u8, 2] {
            let entry = Entry {
                person: Some(person(u128::from(id))),
                as_of: at,
            };
            tokens.put([id; 32], entry);
        }
        tokens
    }

    fn known(tokens: &Tokens, id: u8, now: Instant) -> bool {
        tokens.get(&[id; 32], TTL, now, CLOCK).is_some()
    }

    /// F22: a change of a person's rights ends all that is known of that person's tokens, whichever they are, and of nobody else's.
    #[test]
    fn a_change_ends_what_is_known_of_that_person() {
        let start = Instant::now();
        let (tokens, later) = (filled(start), start + Duration::from_millis(10));
        assert!(known(&tokens, 1, later));
        tokens.learn(&[Uuid::from_u128(1)], later);
        assert!(!known(&tokens, 1, later));
        assert!(known(&tokens, 2, later));
        assert!(!tokens.holds(Uuid::from_u128(1), start));
        assert!(tokens.holds(Uuid::from_u128(1), later + Duration::from_millis(1)));
    }

    #[test]
    fn without_a_look_for_changes_nothing_is_believed_for_long() {
        let start = Instant::now();
        let (tokens, late) = (filled(start), start + Duration::from_secs(5));
        assert!(known(&tokens, 1, start + UNCONFIRMED - Duration::from_millis(1)));
        assert!(!known(&tokens, 1, late));
        tokens.confirm(late);
        assert!(known(&tokens, 1, late + Duration::from_millis(100)));
        assert!(!known(&tokens, 1, late + UNCONFIRMED));
    }

    #[test]
    fn entries_end_with_their_time_and_with_the_token() {
        let start = Instant::now();
        let tokens = filled(start);
        let late = start + TTL;
        tokens.confirm(late);
        assert!(!known(&tokens, 1, late));
        let expired = Timestamp::from_second(600).unwrap();
        assert!(tokens.get(&[1; 32], TTL, start, expired).is_none());
    }

    #[test]
    fn an_unknown_token_is_remembered_for_a_moment() {
        let start = Instant::now();
        let tokens = filled(start);
        let nobody = Entry {
            person: None,
            as_of: start,
        };
        tokens.put([3; 32], nobody);
        assert_eq!(tokens.get(&[3; 32], TTL, start, CLOCK), Some(None));
        assert_eq!(tokens.get(&[3; 32], TTL, start + UNKNOWN, CLOCK), None);
    }

    #[test]
    fn what_was_read_before_the_first_look_is_not_believed_after_it() {
        let start = Instant::now();
        let (tokens, later) = (filled(start), start + Duration::from_millis(10));
        tokens.begin(later);
        assert!(!known(&tokens, 1, later));
    }

    #[test]
    fn too_many_changes_empty_the_cache_instead_of_being_forgotten() {
        let start = Instant::now();
        let (tokens, later) = (filled(start), start + Duration::from_millis(1));
        let crowd: Vec<Uuid> = (10..=MOST_CHANGED as u128 + 10).map(Uuid::from_u128).collect();
        tokens.learn(&crowd, later);
        assert!(!known(&tokens, 1, later));
    }
}
