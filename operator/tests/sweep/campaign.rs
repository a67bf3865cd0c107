//! All faults of all workloads: which there are, and running them, several at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use tokio::time::timeout;

use crate::digest;
use crate::fault::{Fault, Identity, Injection, Point, ProbeFault, WatchFault};
use crate::journal::{Entry, Lives};
use crate::lab::Lab;
use crate::stage::{Reference, Report, Stage};
use crate::tally::Tally;
use crate::workload::Workload;

/// Runs at the same time.
pub const PARALLEL: usize = 8;
/// Runs after which a stage is left, so that all stages are busy to the end.
const ON_ONE_STAGE: usize = 12;
/// A run that takes longer hangs.
const LONGEST: Duration = Duration::from_mins(3);

/// A fault of a workload.
pub struct Plan<'a> {
    /// The workload.
    pub workload: &'a Workload,
    /// How it ends without faults.
    pub reference: &'a Reference,
    /// What goes wrong.
    pub injection: Injection,
}

/// Runs each workload twice without faults.
pub async fn references<'a>(lab: &Lab, workloads: &'a [Workload]) -> Vec<(&'a Workload, Reference)> {
    let runs = workloads.iter().map(|workload| async move {
        let (one, other) = (undisturbed(lab, workload).await, undisturbed(lab, workload).await);
        let only = |left: &Lives, right: &Lives| {
            let differing = left.iter().filter(|(key, life)| right.get(key) != Some(life));
            differing
                .map(|(key, life)| format!("{key:?}: {life:?}"))
                .collect::<Vec<_>>()
        };
        let (first, second) = (only(&one.lives, &other.lives), only(&other.lives, &one.lives));
        assert_eq!(first, second, "{} is not the same twice", workload.name);
        let mask = digest::mask(&one.digest, &other.digest);
        if !mask.is_empty() {
            println!("{}: differs without a fault: {mask:?}", workload.name);
        }
        (workload, Reference { report: one, mask })
    });
    stream::iter(runs).buffered(PARALLEL).collect().await
}

async fn undisturbed(lab: &Lab, workload: &Workload) -> Report {
    let stage = match Stage::open(lab, workload).await {
        Ok(stage) => stage,
        Err(failure) => panic!("{} cannot begin, without any fault: {failure}", workload.name),
    };
    let report = stage.play(None, None).await;
    stage.close().await;
    assert!(
        report.failures.is_empty(),
        "{} fails without any fault: {:#?}",
        workload.name,
        report.failures
    );
    report
}

/// All faults of a workload.
pub fn plans<'a>(workload: &'a Workload, reference: &'a Reference) -> Vec<Plan<'a>> {
    let mut counts: BTreeMap<Identity, Vec<&Entry>> = BTreeMap::new();
    for entry in &reference.report.entries {
        counts.entry(entry.call.identity.clone()).or_default().push(entry);
    }
    let mut injections = Vec::new();
    for (identity, entries) in &counts {
        for nth in 0..entries.len().min(2) {
            let versions: BTreeSet<u64> = entries.iter().map(|entry| entry.answer).collect();
            let faults = faults_of(identity, versions.len() > 1 && nth > 0, workload);
            let point = |nth| Point {
                identity: identity.clone(),
                nth,
            };
            injections.extend(
                faults
                    .into_iter()
                    .map(|fault| Injection::Request(point(nth), fault)),
            );
        }
    }
    for (resource, ..) in crate::view::RESOURCES.iter().filter(|row| row.0 != "secrets") {
        let kinds = [
            WatchFault::Stall,
            WatchFault::Cut,
            WatchFault::Gone,
            WatchFault::Garbage,
        ];
        injections.extend(kinds.map(|fault| Injection::Watch((*resource).to_owned(), fault)));
    }
    let probes = [ProbeFault::Silence, ProbeFault::Garbage, ProbeFault::Closed];
    injections.extend(probes.map(Injection::Probe));
    injections
        .into_iter()
        .map(|injection| Plan {
            workload,
            reference,
            injection,
        })
        .collect()
}

/// What can happen to a request.
fn faults_of(identity: &Identity, has_older: bool, workload: &Workload) -> Vec<Fault> {
    use Fault::{
        CrashAfter, CrashBefore, Delay, ErrorAfter, ErrorBefore, Hang, Outage, ResetAfter, ResetBefore,
        StaleRead, TimeTravel, Truncate,
    };
    let mut faults = match identity.verb {
        "list" => vec![
            CrashAfter,
            ErrorBefore(500),
            ErrorBefore(403),
            ResetBefore,
            Truncate,
            Delay,
        ],
        "get" => vec![
            CrashBefore,
            CrashAfter,
            ErrorBefore(500),
            ErrorBefore(429),
            ResetBefore,
            Truncate,
            Hang,
            Delay,
        ],
        _ if identity.resource == "events" => {
            vec![CrashBefore, CrashAfter, ErrorBefore(403), ErrorAfter(504), Hang]
        }
        _ => vec![
            CrashBefore,
            CrashAfter,
            TimeTravel,
            ErrorBefore(500),
            ErrorBefore(429),
            ErrorBefore(409),
            ErrorBefore(403),
            ErrorAfter(504),
            ErrorAfter(500),
            ResetBefore,
            ResetAfter,
            Hang,
            Delay,
            Truncate,
            Outage,
        ],
    };
    if has_older && identity.verb == "get" {
        faults.push(StaleRead);
    }
    faults.retain(|fault| match fault {
        CrashBefore | CrashAfter => !workload.needs_memory,
        TimeTravel => !workload.needs_memory && !workload.before.is_empty(),
        _ => true,
    });
    faults
}

/// Runs plans, those of a workload one after the other on the same stage while it lasts. Ends early at `enough` failures.
pub async fn run(lab: &Lab, plans: Vec<Plan<'_>>, parallel: usize, enough: usize) -> Tally {
    let begun = Instant::now();
    let total = plans.len();
    let tally = Mutex::new(Tally::default());
    let mut queues: Vec<(&Workload, Vec<Plan<'_>>)> = Vec::new();
    for plan in plans {
        match queues.last_mut() {
            Some((workload, queue)) if workload.name == plan.workload.name && queue.len() < ON_ONE_STAGE => {
                queue.push(plan);
            }
            _ => queues.push((plan.workload, vec![plan])),
        }
    }
    stream::iter(queues)
        .for_each_concurrent(parallel, |(workload, queue)| {
            let tally = &tally;
            async move {
                let mut stage = None;
                for plan in queue {
                    if tally.lock().unwrap().failures.len() >= enough {
                        break;
                    }
                    let report = timeout(LONGEST, perform(lab, &mut stage, workload, &plan)).await;
                    let report = report.unwrap_or_else(|_| Err("it never ends".to_owned()));
                    if report.as_ref().is_ok_and(|report| !report.failures.is_empty()) || report.is_err() {
                        // What a failed run leaves behind is no place to begin.
                        if let Some(stage) = stage.take() {
                            stage.close().await;
                        }
                    }
                    let mut tally = tally.lock().unwrap();
                    tally.add(workload.name, &plan.injection, report);
                    let done = tally.times.len();
                    if done.is_multiple_of(50) {
                        let failed = tally.failures.len();
                        println!(
                            "{done} of {total} after {:.0} s, {failed} failed",
                            begun.elapsed().as_secs_f64()
                        );
                    }
                }
                if let Some(stage) = stage {
                    stage.close().await;
                }
            }
        })
        .await;
    let mut tally = tally.into_inner().unwrap();
    tally.took = begun.elapsed();
    tally
}

/// Runs a plan, on the stage that is there if it can be brought back to the beginning.
async fn perform<'a>(
    lab: &'a Lab,
    stage: &mut Option<Stage<'a>>,
    workload: &'a Workload,
    plan: &Plan<'_>,
) -> Result<Report, String> {
    if let Some(used) = stage.take() {
        if used.reset().await {
            *stage = Some(used);
        } else {
            used.close().await;
        }
    }
    let fresh = match stage.take() {
        Some(ready) => ready,
        None => Stage::open(lab, workload)
            .await
            .map_err(|failure| format!("cannot begin: {failure}"))?,
    };
    let report = fresh.play(Some(&plan.injection), Some(plan.reference)).await;
    *stage = Some(fresh);
    Ok(report)
}
