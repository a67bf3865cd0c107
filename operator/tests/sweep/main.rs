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
mod digest;
mod fault;
mod incarnation;
mod injector;
mod journal;
mod puppet;
mod referee;
mod stage;
mod view;
mod wire;
mod workload;

use crds::platform::crd;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Config;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};

use crate::campaign::{Plan, references};
use crate::stage::Lab;

/// Runs in the sample that is part of `make test`.
const SAMPLE: usize = 80;
/// Runs in `make sweep`, spread over all faults of all workloads; `SWEEP_PLANS=100000` runs every one.
const PLANS: usize = 1_200;

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
    let client = kube::Client::try_from(config.clone()).unwrap();
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let name = "tankaplatforms.tanka.dev";
    api.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(crd()))
        .await
        .unwrap();
    await_condition(api, name, conditions::is_crd_established())
        .await
        .unwrap();
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

async fn sweep(wanted: usize) {
    let lab = lab().await;
    let workloads = chosen();
    let references = references(&lab, &workloads).await;
    let all = references
        .iter()
        .flat_map(|(workload, reference)| campaign::plans(workload, reference));
    let mut plans: Vec<Plan<'_>> = all.collect();
    let filter = std::env::var("SWEEP_FAULT").unwrap_or_default();
    plans.retain(|plan| plan.injection.to_string().contains(&filter));
    println!("{} faults of {} workloads", plans.len(), references.len());
    plans = campaign::sample(plans, wanted);
    let parallel = number("SWEEP_PARALLEL", campaign::PARALLEL);
    let tally = campaign::run(&lab, plans, parallel, number("SWEEP_ENOUGH", 50)).await;
    println!("{}", tally.table());
    for missed in tally.missed.iter().take(20) {
        println!("nothing to strike: {missed}");
    }
    assert!(tally.failures.is_empty(), "{} runs failed", tally.failures.len());
}

/// A part of the sweep that is small enough for every change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_of_all_faults_changes_nothing() {
    sweep(number("SWEEP_SAMPLE", SAMPLE)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes: run `make sweep`"]
async fn no_fault_changes_where_it_ends() {
    sweep(number("SWEEP_PLANS", PLANS)).await;
}
