//! One load at a time for a key in this process; whoever asks meanwhile waits for it. A load is a task of its own, so that a caller who
//! leaves cannot stop it for the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

/// The outcome that all waiters share; `None` if the load panicked.
type Outcome<T> = Shared<BoxFuture<'static, Option<T>>>;

/// Loads that are under way.
#[derive(Debug)]
pub struct Flights<K, T>(Arc<Mutex<HashMap<K, Outcome<T>>>>);

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Removes a flight when it ends, however that happens.
struct Landing<K: Eq + Hash, T> {
    key: K,
    flights: Arc<Mutex<HashMap<K, Outcome<T>>>>,
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

impl<K, T> Flights<K, T>
where
    K: Eq + Hash + Copy + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// The load of a key, begun with `load` unless it is under way.
    pub fn join<F>(&self, key: K, load: impl FnOnce() -> F) -> Outcome<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = flights.get(&key) {
            return outcome.clone();
        }
        let landing = Landing {
            key,
            flights: self.0.clone(),
        };
        let load = load();
        let task = tokio::spawn(async move {
            let outcome = load.await;
            drop(landing);
            outcome
        });
        let outcome = async move { task.await.ok() }.boxed().shared();
        flights.insert(key, outcome.clone());
        outcome
    }

    /// Loads under way.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_thousand_callers_cause_one_load_and_whoever_leaves_does_not_stop_it() {
        let flights = Flights::<u8, u32>::default();
        let (loads, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let join = || {
            let (loads, go) = (loads.clone(), go.clone());
            flights.join(1, move || async move {
                go.notified().await;
                loads.fetch_add(1, Ordering::SeqCst) + 1
            })
        };
        drop(join());
        let waiting: Vec<_> = (0..1_000).map(|_| join()).collect();
        go.notify_one();
        let outcomes = futures::future::join_all(waiting).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Some(1)));
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_load_that_panics_ends_and_the_next_one_begins_anew() {
        let flights = Flights::<u8, u32>::default();
        let broken = flights.join(1, || async { panic!("broken") });
        assert_eq!(broken.await, None);
        assert_eq!(flights.join(1, || async { 7 }).await, Some(7));
    }
}
