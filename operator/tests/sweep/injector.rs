//! Decides what happens to each request of one run.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::call::Call;
use crate::fault::{Fault, Identity, Injection, Point, WatchFault};

/// How long a cache lags behind, nothing can be reached, or pods do not answer.
pub const SPELL: Duration = Duration::from_millis(1_500);
/// How long watches are cut: long enough for each to notice.
const MOMENT: Duration = Duration::from_millis(200);

/// The plan of one run after the other.
#[derive(Default)]
pub struct Injector {
    plan: Mutex<Plan>,
    armed: AtomicBool,
    fired: AtomicBool,
    gates: Mutex<HashMap<String, watch::Sender<Option<WatchFault>>>>,
}

#[derive(Default)]
struct Plan {
    injection: Option<Injection>,
    counts: HashMap<Identity, usize>,
    answers: HashMap<String, Vec<(u16, Bytes)>>,
    lists: HashMap<String, Bytes>,
    out_until: Option<Instant>,
    back_until: Option<Instant>,
}

impl Injector {
    /// Nothing happens yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Takes in what is to happen once it is armed.
    pub fn load(&self, injection: Option<Injection>) {
        self.armed.store(false, Ordering::SeqCst);
        self.fired.store(false, Ordering::SeqCst);
        *self.plan.lock().unwrap() = Plan {
            injection,
            ..Plan::default()
        };
    }

    /// The workload begins. A fault of a watch strikes at once.
    pub fn arm(self: &Arc<Self>) {
        self.armed.store(true, Ordering::SeqCst);
        let injection = self.plan.lock().unwrap().injection.clone();
        if let Some(Injection::Watch(resource, fault)) = injection {
            self.fired.store(true, Ordering::SeqCst);
            self.gate_of(&resource).send_replace(Some(fault));
            let length = if fault == WatchFault::Stall { SPELL } else { MOMENT };
            let injector = self.clone();
            tokio::spawn(async move {
                sleep(length).await;
                injector.gate_of(&resource).send_replace(None);
            });
        }
    }

    fn gate_of(&self, resource: &str) -> watch::Sender<Option<WatchFault>> {
        let mut gates = self.gates.lock().unwrap();
        gates
            .entry(resource.to_owned())
            .or_insert_with(|| watch::Sender::new(None))
            .clone()
    }

    /// Whether the fault has struck.
    pub fn fired(&self) -> bool {
        self.fired.load(Ordering::SeqCst)
    }

    /// Counts a request and says what happens to it.
    pub fn strike(&self, call: &Call) -> Option<Fault> {
        if !self.armed.load(Ordering::SeqCst) {
            return None;
        }
        let mut plan = self.plan.lock().unwrap();
        let count = plan.counts.entry(call.identity.clone()).or_default();
        let nth = *count;
        *count += 1;
        let Some(Injection::Request(Point { identity, nth: at }, fault)) = &plan.injection else {
            return None;
        };
        let fault = *fault;
        if *identity != call.identity || *at != nth || self.fired() {
            return None;
        }
        if fault == Fault::StaleRead && !plan.has_answer_to(call) {
            return None;
        }
        self.fired.store(true, Ordering::SeqCst);
        if fault == Fault::Outage {
            plan.out_until = Some(Instant::now() + SPELL);
        }
        Some(fault)
    }

    /// Whether nothing can be reached now.
    pub fn is_out(&self) -> bool {
        self.plan
            .lock()
            .unwrap()
            .out_until
            .is_some_and(|until| Instant::now() < until)
    }

    /// Whether time is turned back now.
    pub fn is_back(&self) -> bool {
        self.plan.lock().unwrap().back().is_some()
    }

    /// A new process has started. After a journey in time it reads old lists for a while.
    pub fn reborn(&self) {
        let mut plan = self.plan.lock().unwrap();
        let travels = matches!(plan.injection, Some(Injection::Request(_, Fault::TimeTravel)));
        if travels && self.fired() {
            plan.back_until = plan.back_until.or(Some(Instant::now() + SPELL));
        }
    }

    /// The list as it was before the workload, while time is turned back.
    pub fn list_from_before(&self, question: &str) -> Option<Bytes> {
        let plan = self.plan.lock().unwrap();
        plan.back()?;
        plan.lists.get(question).cloned()
    }

    /// Returns when watches may begin.
    pub async fn late_watch(&self) {
        let back = self.plan.lock().unwrap().back();
        if let Some(until) = back {
            sleep_until(until).await;
        }
    }

    /// What events of a resource have to pass.
    pub fn gate(&self, resource: &str) -> watch::Receiver<Option<WatchFault>> {
        self.gate_of(resource).subscribe()
    }

    /// Takes down answers that may be needed again later.
    pub fn remember(&self, call: &Call, question: &str, status: u16, body: &Bytes) {
        let mut plan = self.plan.lock().unwrap();
        match (&plan.injection, call.identity.verb) {
            (Some(Injection::Request(_, Fault::StaleRead)), "get") => {
                let known = plan.answers.entry(question.to_owned()).or_default();
                if known.last().is_none_or(|(_, last)| last != body) {
                    known.push((status, body.clone()));
                }
            }
            (Some(Injection::Request(_, Fault::TimeTravel)), "list") if !self.fired() && status == 200 => {
                plan.lists.insert(question.to_owned(), body.clone());
            }
            _ => {}
        }
    }

    /// The oldest answer to the same question.
    pub fn older(&self, question: &str) -> Option<(u16, Bytes)> {
        self.plan.lock().unwrap().answers.get(question)?.first().cloned()
    }
}

impl Plan {
    fn back(&self) -> Option<Instant> {
        self.back_until.filter(|until| Instant::now() < *until)
    }

    fn has_answer_to(&self, call: &Call) -> bool {
        let suffix = format!("/{}/{}", call.identity.resource, call.identity.name);
        self.answers.iter().any(|(question, known)| {
            let path = question.split('?').next().unwrap_or_default();
            path.ends_with(&suffix) && !known.is_empty()
        })
    }
}
