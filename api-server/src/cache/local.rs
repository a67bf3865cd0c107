//! The tier in this process, bounded by bytes. An entry carries the stamp that its entity had before it was computed; an
//! invalidation changes the stamp, so what was computed before it is not served, even if it is stored after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::entry::Entry;
use super::key::Key;
use super::kind::{Entity, KINDS, Target};
use crate::routing::Position;

/// Entities share so many counters. Two that meet in one merely invalidate each other: a miss, never a stale answer.
const STRIPES: usize = 1 << 14;
/// Entities whose last invalidation is remembered with its position.
const FLOORS: usize = 50_000;
/// Size of an entry that the store is laid out for.
const TYPICAL: u64 = 2_048;

/// State of an entity; another one means that it was invalidated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp(u64);

#[derive(Debug, Clone)]
struct Stored {
    stamp: Stamp,
    entry: Arc<Entry>,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Key, Stored> for ByBytes {
    fn weight(&self, _: &Key, stored: &Stored) -> u64 {
        stored.entry.weight()
    }
}

/// The tier in this process.
#[derive(Debug)]
pub struct Local {
    entries: Cache<Key, Stored, ByBytes>,
    stripes: Box<[AtomicU64]>,
    kinds: [AtomicU64; KINDS.len()],
    floors: Cache<Entity, Position>,
    kind_floors: Mutex<[Option<Position>; KINDS.len()]>,
}

impl Local {
    /// An empty one of so many bytes.
    pub fn new(capacity: u64) -> Self {
        let estimate = usize::try_from(capacity / TYPICAL).unwrap_or(usize::MAX).max(64);
        Self {
            entries: Cache::with_weighter(estimate, capacity, ByBytes),
            stripes: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
            kinds: std::array::from_fn(|_| AtomicU64::new(0)),
            floors: Cache::new(FLOORS),
            kind_floors: Mutex::default(),
        }
    }

    /// Changes the bound.
    pub fn resize(&self, capacity: u64) {
        if self.entries.capacity() != capacity {
            self.entries.set_capacity(capacity);
        }
    }

    /// State of an entity now. All counters only grow, so their sum is the same only if each of them is.
    pub fn stamp(&self, entity: &Entity) -> Stamp {
        let stripe = self.stripe(entity).load(Ordering::SeqCst);
        Stamp(stripe + self.kinds[entity.kind.index()].load(Ordering::SeqCst))
    }

    /// An entry that nothing has invalidated, expired or not.
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        let stored = self.entries.get(key)?;
        (stored.stamp == self.stamp(&key.entity)).then_some(stored.entry)
    }

    /// Stores what was computed since the entity had this stamp.
    pub fn insert(&self, key: Key, stamp: Stamp, entry: Arc<Entry>) {
        if stamp == self.stamp(&key.entity) {
            self.entries.insert(key, Stored { stamp, entry });
        }
    }

    /// Takes note of an invalidation, and of the position of the write behind it.
    pub fn invalidate(&self, target: Target, position: Option<Position>) {
        match target {
            Target::Entity(entity) => {
                if let Some(position) = position {
                    let known = self.floors.get(&entity).unwrap_or_default();
                    self.floors.insert(entity, known.max(position));
                }
                self.stripe(&entity).fetch_add(1, Ordering::SeqCst);
            }
            Target::Kind(kind) => {
                let mut floors = self.kind_floors.lock().unwrap_or_else(PoisonError::into_inner);
                let floor = &mut floors[kind.index()];
                *floor = (*floor).max(position);
                drop(floors);
                self.kinds[kind.index()].fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// The last write to an entity that this process has heard of.
    pub fn floor(&self, entity: &Entity) -> Option<Position> {
        let of_kind = self.kind_floors.lock().unwrap_or_else(PoisonError::into_inner)[entity.kind.index()];
        self.floors.get(entity).max(of_kind)
    }

    /// Entries, and the bytes that they take.
    pub fn size(&self) -> (usize, u64) {
        (self.entries.len(), self.entries.weight())
    }

    /// Entries of each kind that are good now; looks at all of them.
    pub fn count(&self, now: Instant) -> [usize; KINDS.len()] {
        let mut counts = [0; KINDS.len()];
        for (key, stored) in self.entries.iter() {
            if stored.entry.until > now && stored.stamp == self.stamp(&key.entity) {
                counts[key.entity.kind.index()] += 1;
            }
        }
        counts
    }

    fn stripe(&self, entity: &Entity) -> &AtomicU64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ u64::try_from(entity.kind.index()).unwrap_or(0);
        for id in [entity.tenant, entity.id] {
            let (high, low) = id.map_or((0, 0), |id| id.as_u64_pair());
            for part in [high, low] {
                hash = (hash ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                hash ^= hash >> 32;
            }
        }
        &self.stripes[usize::try_from(hash).unwrap_or(0) % STRIPES]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::cache::entry::Content;
    use crate::cache::kind::Kind;

    fn entity(person: u128) -> Entity {
        Entity::of_person(Kind::Memories, Uuid::from_u128(1), Uuid::from_u128(person))
    }

    fn key(person: u128) -> Key {
        Key::new(entity(person), &"list").unwrap()
    }

    fn entry(size: usize) -> Arc<Entry> {
        Arc::new(Entry {
            content: Content::Json(Bytes::from(vec![b'1'; size])),
            covers: None,
            cost: Duration::ZERO,
            until: Instant::now() + Duration::from_mins(1),
            ttl: Duration::from_mins(1),
        })
    }

    /// F02: what a write replaces is found by its entity, and is gone.
    #[test]
    fn what_was_computed_before_an_invalidation_is_not_served() {
        let local = Local::new(1 << 20);
        let before = local.stamp(&entity(1));
        local.insert(key(1), before, entry(10));
        assert!(local.get(&key(1)).is_some());
        local.invalidate(entity(1).into(), None);
        assert!(local.get(&key(1)).is_none());
        local.insert(key(1), before, entry(10));
        assert!(local.get(&key(1)).is_none(), "it was computed before");
        local.insert(key(1), local.stamp(&entity(1)), entry(10));
        assert!(local.get(&key(1)).is_some());
        local.invalidate(Target::Kind(Kind::Plans), None);
        assert!(local.get(&key(1)).is_some(), "another kind");
        local.invalidate(Target::Kind(Kind::Memories), None);
        assert!(local.get(&key(1)).is_none());
    }

    #[test]
    fn bytes_are_bounded_also_after_a_change_of_the_bound() {
        let local = Local::new(1 << 20);
        for person in 0..4_000 {
            local.insert(key(person), local.stamp(&entity(person)), entry(1_000));
        }
        let (count, bytes) = local.size();
        assert!(
            bytes <= 1 << 20 && count > 100,
            "{count} entries of {bytes} bytes"
        );
        local.resize(1 << 16);
        assert!(local.size().1 <= 1 << 16, "{:?}", local.size());
    }

    #[test]
    fn the_latest_position_of_an_entity_is_remembered() {
        let local = Local::new(1 << 20);
        let at = |lsn| Position { timeline: 1, lsn };
        local.invalidate(entity(1).into(), Some(at(9)));
        local.invalidate(entity(1).into(), Some(at(7)));
        assert_eq!(local.floor(&entity(1)), Some(at(9)));
        assert_eq!(local.floor(&entity(2)), None);
    }
}
