//! What one request costs: statements and cache look-ups, counted where they happen. The count travels with the task; work that a
//! request hands to another task takes it along with [`inherit`].

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

tokio::task_local! {
    static CURRENT: Arc<Tally>;
}

/// Counts of one request.
#[derive(Debug, Default)]
pub struct Tally {
    statements: AtomicU32,
    hits: AtomicU32,
    misses: AtomicU32,
}

impl Tally {
    /// Statements that were sent to PostgreSQL, without those that begin and end transactions.
    pub fn statements(&self) -> u32 {
        self.statements.load(Ordering::Relaxed)
    }

    /// Look-ups in caches: found, not found.
    pub fn lookups(&self) -> (u32, u32) {
        (
            self.hits.load(Ordering::Relaxed),
            self.misses.load(Ordering::Relaxed),
        )
    }

    /// Share of look-ups that were found, in percent; none without a look-up.
    pub fn hit_rate(&self) -> Option<f64> {
        let (hits, misses) = self.lookups();
        let all = hits.saturating_add(misses);
        (all > 0).then(|| f64::from(hits) / f64::from(all) * 100.0)
    }
}

/// Runs work on behalf of a request.
pub async fn scope<F: Future>(tally: Arc<Tally>, work: F) -> F::Output {
    CURRENT.scope(tally, work).await
}

/// Work for another task that is still counted for the request of this one.
pub fn inherit<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let current = CURRENT.try_with(Arc::clone).ok();
    async move {
        match current {
            Some(tally) => CURRENT.scope(tally, work).await,
            None => work.await,
        }
    }
}

/// Counts a statement.
pub fn statement() {
    let _ = CURRENT.try_with(|tally| tally.statements.fetch_add(1, Ordering::Relaxed));
}

/// Counts a look-up in a cache.
pub fn lookup(hit: bool) {
    let _ = CURRENT.try_with(|tally| {
        let counter = if hit { &tally.hits } else { &tally.misses };
        counter.fetch_add(1, Ordering::Relaxed)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_of_a_request_is_counted_for_it_also_in_another_task() {
        let (one, two) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
        scope(one.clone(), async {
            statement();
            lookup(true);
            tokio::spawn(inherit(async {
                statement();
                lookup(false);
            }))
            .await
            .unwrap();
        })
        .await;
        scope(two.clone(), async { statement() }).await;
        statement();
        assert_eq!((one.statements(), one.lookups()), (2, (1, 1)));
        assert_eq!(one.hit_rate(), Some(50.0));
        assert_eq!((two.statements(), two.hit_rate()), (1, None));
    }
}
