//! Waiting: until something is so, until nothing happens any more, until all is as it was without a fault.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{Reference, Stage};
use crate::digest;

/// Time in which a platform comes to where it should be after the fault: a hung request costs ten seconds of it.
const PATIENCE: Duration = Duration::from_mins(1);
/// Nothing has happened for this long.
const QUIET: Duration = Duration::from_millis(700);

impl Stage<'_> {
    /// Waits until `check` has an answer, asking whenever changes pause.
    pub(super) async fn wait<T>(
        &self,
        mut check: impl FnMut() -> Option<T>,
        complaint: impl Fn() -> String,
    ) -> Result<T, String> {
        let pause = Duration::from_millis(100);
        let mut changes = self.lab.view.changes(&self.namespace);
        let work = async {
            loop {
                // Many changes come at once, and to compare is dear.
                while timeout(pause, changes.changed()).await.is_ok() {}
                if let Some(answer) = check() {
                    return answer;
                }
            }
        };
        let outcome = timeout(PATIENCE, work).await;
        outcome.map_err(|_| complaint())
    }

    /// Waits until nothing happens any more.
    pub(super) async fn settle(&self) -> Result<(), String> {
        let mut changes = self.lab.view.changes(&self.namespace);
        let begun = Instant::now();
        loop {
            changes.borrow_and_update();
            self.calm().await?;
            if timeout(QUIET, changes.changed()).await.is_err() && self.is_collected() {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("it never comes to rest: {}", self.words()));
            }
        }
    }

    /// Whether the collector has nothing left to do.
    fn is_collected(&self) -> bool {
        let objects = self.lab.view.objects(&self.namespace);
        let alive = |uid: &Value| objects.values().any(|object| object["metadata"]["uid"] == *uid);
        objects.values().all(|object| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_none_or(|owners| owners.is_empty() || owners.iter().any(|owner| alive(&owner["uid"])))
        })
    }

    /// Waits until everything is as it was in the end without a fault.
    pub(super) async fn arrive(&self, reference: &Reference) -> Result<(), String> {
        let differences = || {
            let found = digest::digest(&self.namespace, &self.lab.view.objects(&self.namespace));
            digest::differences(&reference.report.digest, &found, &reference.mask)
        };
        let expected = &reference.report.digest;
        let is_there = || {
            // Old lists may still be read, and what follows from them is not yet to be seen.
            if self.line.injector.is_back() {
                return false;
            }
            let count = self.lab.view.objects(&self.namespace).len();
            count == expected.len() && differences().is_empty()
        };
        self.wait(
            || is_there().then_some(()),
            || {
                format!(
                    "it ends otherwise: {}\n      {}",
                    differences().join("\n      "),
                    self.words()
                )
            },
        )
        .await
    }

    /// Two looks, one after the other, that write nothing.
    pub(super) async fn calm(&self) -> Result<(), String> {
        let begun = Instant::now();
        let mut calm = 0;
        while calm < 2 {
            let before = self.line.journal.writes();
            self.look().await;
            calm = if self.line.journal.writes() == before {
                calm + 1
            } else {
                0
            };
            if begun.elapsed() > PATIENCE {
                let last = self.line.journal.last_writes(6).join(", ");
                return Err(format!("it writes at every look: {last}"));
            }
        }
        Ok(())
    }

    /// Waits for the end of a look that has begun from now on, if there is a platform to look at.
    pub(super) async fn look(&self) {
        let incarnation = self.incarnation();
        let before = incarnation.looks();
        incarnation.poke();
        let begun = Instant::now();
        // Without a platform there is nothing to look at, and a process that died looks at nothing.
        while incarnation.looks() == before && begun.elapsed() < Duration::from_secs(2) {
            if self.platform().is_none() && begun.elapsed() > Duration::from_millis(300) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}
