//! The operator under every fault, against a real API server. Its driver, caches and pipeline run in this process; beneath its client
//! each request can fail, and it can be killed at each. A puppet plays nodes and controllers. Wherever a fault strikes, the platform
//! must end as it does without one, without a forbidden step on the way.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

mod call;
mod campaign;
mod definition;
mod digest;
mod fault;
mod incarnation;
mod injector;
mod journal;
mod lab;
#[cfg(feature = "planted")]
mod planted;
mod puppet;
mod referee;
mod sample;
mod stage;
mod tally;
mod view;
mod wire;
mod workload;

use std::time::Instant;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::campaign::{Plan, references};
use crate::lab::Lab;

/// Plans where `SWEEP_PLANS` says nothing else: what `make test` has time for. `make sweep` names more.
const SAMPLE: usize = 80;

async fn lab() -> Lab {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let path = std::env::var("TANKA_TEST_KUBECONFIG").unwrap_or_else(|_| {
        panic!(
            "TANKA_TEST_KUBECONFIG names no kubeconfig: run `make sweep`, or start a control plane with \
             `e2e/cluster/build` and `tanka-cluster up --control-plane-only`"
        )
    });
    let file = Kubeconfig::read_from(path).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .unwrap();
    definition::define(&kube::Client::try_from(config.clone()).unwrap()).await;
    Lab::new(config)
}

/// Only the workloads whose names contain this; for work on one of them.
fn chosen() -> Vec<workload::Workload> {
    let filter = std::env::var("SWEEP_WORKLOAD").unwrap_or_default();
    let mut all = workload::all();
    all.retain(|workload| workload.name.contains(&filter));
    all
}

fn number(variable: &str, default: usize) -> usize {
    let text = std::env::var(variable).unwrap_or_default();
    text.parse().unwrap_or(default)
}

/// How much is swept is said by the environment: `SWEEP_PLANS` plans, chosen by `SWEEP_SEED` out of those whose workload and fault
/// contain `SWEEP_WORKLOAD` and `SWEEP_FAULT`, `SWEEP_PARALLEL` at a time, up to `SWEEP_ENOUGH` failures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_changes_where_it_ends() {
    let lab = lab().await;
    let workloads = chosen();
    let begun = Instant::now();
    let references = references(&lab, &workloads).await;
    let all = references
        .iter()
        .flat_map(|(workload, reference)| campaign::plans(workload, reference));
    let mut plans: Vec<Plan<'_>> = all.collect();
    let filter = std::env::var("SWEEP_FAULT").unwrap_or_default();
    plans.retain(|plan| plan.injection.to_string().contains(&filter));
    println!(
        "{} faults of {} workloads, each of which ran twice without one in {:.0} s",
        plans.len(),
        references.len(),
        begun.elapsed().as_secs_f64()
    );
    plans = sample::choose(plans, number("SWEEP_PLANS", SAMPLE), number("SWEEP_SEED", 1));
    let parallel = number("SWEEP_PARALLEL", campaign::PARALLEL);
    let tally = campaign::run(&lab, plans, parallel, number("SWEEP_ENOUGH", 50)).await;
    println!("{}", tally.table());
    for missed in tally.missed.iter().take(20) {
        println!("nothing to strike: {missed}");
    }
    assert!(tally.failures.is_empty(), "{} runs failed", tally.failures.len());
}
