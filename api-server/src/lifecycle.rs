//! How the process ends: unready first, then a moment for routing to notice, then no new connections, sockets closed with a
//! hint when to come back, work in flight finished, and what is left cut off at the deadline.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The stages, and the work that is waited for.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    /// Ends when the process is no longer ready.
    pub draining: CancellationToken,
    /// Ends when connections and sockets have to close after what they are doing.
    pub closing: CancellationToken,
    /// Ends when everything has to stop.
    pub stop: CancellationToken,
    /// Connections, sockets and writes.
    pub tasks: TaskTracker,
    /// Ends when a task of the background ended before it should.
    pub failed: CancellationToken,
}

/// How long routing is given to notice that the process is no longer ready, at most.
const LONGEST_NOTICE: Duration = Duration::from_secs(5);
/// Kept from the drain's time for closing connections to databases.
const REST: Duration = Duration::from_millis(500);

/// How the time of a drain is divided: notice for routing, then the end of the time for work in flight.
fn plan(total: Duration) -> (Duration, Duration) {
    let notice = (total / 6).min(LONGEST_NOTICE);
    (notice, total.saturating_sub(REST).max(notice))
}

impl Lifecycle {
    /// Runs a task of the background, which works until the drain begins. One that ends before, or panics, ends the process: half a server
    /// would look healthy.
    pub fn background(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let (draining, failed) = (self.draining.clone(), self.failed.clone());
        tokio::spawn(async move {
            let ended = AssertUnwindSafe(work).catch_unwind().await;
            if !draining.is_cancelled() {
                tracing::error!(
                    task.name = name,
                    panicked = ended.is_err(),
                    "background task ended"
                );
                failed.cancel();
            }
        });
    }

    /// Drains; answers whether all work was finished in time.
    pub async fn drain(&self, total: Duration) -> bool {
        let started = Instant::now();
        let (notice, work) = plan(total);
        tracing::info!(timeout_s = total.as_secs_f64(), "draining: no longer ready");
        self.draining.cancel();
        sleep(notice).await;
        self.closing.cancel();
        self.tasks.close();
        let finished = timeout_at(started + work, self.tasks.wait()).await.is_ok();
        self.stop.cancel();
        if finished {
            tracing::info!(duration_s = started.elapsed().as_secs_f64(), "drained");
        } else {
            tracing::warn!(
                tasks = self.tasks.len(),
                "drain ran out of time, cutting off what is left"
            );
        }
        finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_leaves_most_of_its_time_for_work() {
        assert_eq!(
            plan(Duration::from_secs(30)),
            (Duration::from_secs(5), Duration::from_millis(29_500))
        );
        let (notice, work) = plan(Duration::from_millis(300));
        assert!(notice <= work);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_as_soon_as_the_work_does() {
        let lifecycle = Lifecycle::default();
        let closing = lifecycle.closing.clone();
        lifecycle.tasks.spawn(async move { closing.cancelled().await });
        let started = Instant::now();
        assert!(lifecycle.drain(Duration::from_secs(30)).await);
        assert!(started.elapsed() < Duration::from_secs(6));
    }

    #[tokio::test]
    async fn a_task_of_the_background_that_dies_is_noticed() {
        let lifecycle = Lifecycle::default();
        lifecycle.background("dies", async { panic!("of a test") });
        lifecycle.failed.cancelled().await;
        let stopped = Lifecycle::default();
        stopped.draining.cancel();
        let (done, ended) = tokio::sync::oneshot::channel();
        stopped.background("ends", async move { done.send(()).unwrap() });
        ended.await.unwrap();
        assert!(!stopped.failed.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_hangs_is_cut_off() {
        let lifecycle = Lifecycle::default();
        lifecycle.tasks.spawn(std::future::pending::<()>());
        assert!(!lifecycle.drain(Duration::from_secs(30)).await);
        assert!(lifecycle.stop.is_cancelled());
    }
}
