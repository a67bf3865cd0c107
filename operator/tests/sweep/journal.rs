//! Takes down what was really carried out for the operator, beneath all faults.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::call::Call;
use crate::fault::Identity;

/// How often each object, by resource and name, was made and deleted.
pub type Lives = BTreeMap<(String, String), (usize, usize)>;

/// A request that the API server answered.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What was asked.
    pub call: Call,
    /// How it was answered.
    pub status: u16,
    /// A digest of the answer.
    pub answer: u64,
}

/// All requests of the operator to one namespace, in the order of their answers.
#[derive(Debug, Default)]
pub struct Journal {
    entries: Mutex<Vec<Entry>>,
    writes: AtomicU64,
}

impl Journal {
    /// Takes down a request.
    pub fn record(&self, entry: Entry) {
        if entry.call.writes() {
            self.writes.fetch_add(1, Ordering::SeqCst);
        }
        self.entries.lock().unwrap().push(entry);
    }

    /// Requests that would change something, so far.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Forgets what was before the workload.
    pub fn clear(&self) {
        self.entries.lock().unwrap().clear();
    }

    /// Everything so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }

    /// The last writes, for people.
    pub fn last_writes(&self, count: usize) -> Vec<String> {
        let entries = self.entries.lock().unwrap();
        let writes = entries.iter().filter(|entry| entry.call.writes());
        let mut lines: Vec<String> = writes
            .map(|Entry { call, status, .. }| {
                let Identity { verb, resource, name } = &call.identity;
                format!("{status} {verb} {resource}/{name}")
            })
            .collect();
        lines.drain(..lines.len().saturating_sub(count));
        lines
    }

    /// How often each object was made and deleted.
    pub fn lives(&self) -> Lives {
        let mut lives = Lives::new();
        for Entry { call, status, .. } in self.entries.lock().unwrap().iter() {
            let Identity { verb, resource, name } = &call.identity;
            if resource == "events" || resource.contains('/') {
                continue;
            }
            let life = lives.entry((resource.clone(), name.clone())).or_default();
            match (*verb, status) {
                ("create" | "patch", 201) => life.0 += 1,
                ("delete", 200..=202) => life.1 += 1,
                _ => {}
            }
        }
        lives.retain(|_, life| *life != (0, 0));
        lives
    }
}
