//! Bugs that are planted on purpose, and the faults under which each shows: a sweep that misses one is blind there.

use operator::planted::{Bug, plant};

use crate::campaign::{self, Plan};
use crate::sample;
use crate::{chosen, lab};

/// A bug, the workload that it shows in, and a word in the names of the faults that it takes. The others break a law of plans
/// (`plan/laws.rs`) or the fence's test.
const BUGS: [(Bug, &str, &str); 4] = [
    (Bug::SecretsRedrawn, "create", "create secrets"),
    (
        Bug::StatusBelieved,
        "deletion policy",
        "error 500 before at patch tankaplatforms/status",
    ),
    (Bug::DeletionUntied, "parameters", "delete networkpolicies"),
    (Bug::ReplicasTaken, "change under the autoscaler", "Delay"),
];
/// Runs after which a bug counts as missed.
const PATIENCE: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_bugs_are_found() {
    let lab = lab().await;
    let mut workloads = chosen();
    workloads.retain(|workload| BUGS.iter().any(|(_, name, _)| workload.name == *name));
    let references = campaign::references(&lab, &workloads).await;
    let mut missed = Vec::new();
    for (bug, name, fault) in BUGS {
        let suits =
            |plan: &Plan<'_>| plan.workload.name == name && plan.injection.to_string().contains(fault);
        let all = references
            .iter()
            .flat_map(|(workload, reference)| campaign::plans(workload, reference))
            .filter(suits);
        let plans = sample::choose(all.collect(), PATIENCE, 1);
        plant(Some(bug));
        let tally = campaign::run(&lab, plans, campaign::PARALLEL, 1).await;
        plant(None);
        let runs: usize = tally.workloads.values().sum();
        println!(
            "{bug:?}: {} in {runs} runs, {:.0} s",
            if tally.failures.is_empty() {
                "missed"
            } else {
                "found"
            },
            tally.took.as_secs_f64()
        );
        if tally.failures.is_empty() {
            missed.push(bug);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
