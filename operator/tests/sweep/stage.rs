//! A namespace with an operator and a puppet, in which one workload is run, with one fault or none, again and again.

mod deeds;
mod rest;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use serde_json::json;
use tokio::time::sleep;

use crate::digest::{self, Digest};
use crate::fault::{Fault, Injection, ProbeFault};
use crate::incarnation::{Incarnation, PLATFORM};
use crate::injector::{Injector, SPELL};
use crate::journal::{Entry, Journal, Lives};
use crate::lab::Lab;
use crate::puppet::{Mood, Puppet};
use crate::referee::Referee;
use crate::view::{RESOURCES, resource};
use crate::wire::Line;
use crate::workload::{Deed, Workload};

/// What a run came to.
pub struct Report {
    /// What was carried out after the workload began.
    pub entries: Vec<Entry>,
    /// Where it ended.
    pub digest: Digest,
    /// Objects made and deleted.
    pub lives: Lives,
    /// What was wrong.
    pub failures: Vec<String>,
    /// Whether the fault has struck.
    pub fired: bool,
    /// From the beginning of the workload to its end.
    pub took: Duration,
}

/// What a run without faults came to.
pub struct Reference {
    /// The run itself.
    pub report: Report,
    /// Paths that differ without a fault.
    pub mask: Vec<String>,
}

/// A namespace in which a workload is run.
pub struct Stage<'a> {
    lab: &'a Lab,
    workload: &'a Workload,
    namespace: String,
    line: Line,
    puppet: Puppet,
    operator: Mutex<Option<Arc<Incarnation>>>,
}

impl<'a> Stage<'a> {
    /// Makes a namespace, and in it what the workload begins with.
    pub async fn open(lab: &'a Lab, workload: &'a Workload) -> Result<Self, String> {
        let namespace = lab.namespace();
        lab.view.open(&namespace);
        let api: Api<Namespace> = Api::all(lab.client.clone());
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
        let puppet = Puppet::start(lab.client.clone(), lab.view.clone(), &namespace);
        let referee = Referee::new(
            &namespace,
            lab.view.clone(),
            puppet.operands.clone(),
            workload.autoscaled,
        );
        let line = Line {
            injector: Injector::new(),
            journal: Arc::new(Journal::default()),
            referee: Arc::new(referee),
        };
        let stage = Self {
            lab,
            workload,
            namespace,
            line,
            puppet,
            operator: Mutex::default(),
        };
        if !workload.before.is_empty() {
            stage.start();
            for deed in &workload.before {
                stage.act(deed).await?;
                stage.ready().await?;
            }
            stage.settle().await?;
        }
        Ok(stage)
    }

    /// Runs the workload with a fault, or without any, and says where it ends.
    pub async fn play(&self, injection: Option<&Injection>, reference: Option<&Reference>) -> Report {
        let travels = matches!(injection, Some(Injection::Request(_, Fault::TimeTravel)));
        self.line.injector.load(injection.cloned());
        if travels {
            // A fresh process lists everything as it is before the workload begins.
            self.start();
            self.look().await;
        }
        self.line.journal.clear();
        self.line.referee.clear();
        self.line.injector.arm();
        let begun = Instant::now();
        if self.operator.lock().unwrap().is_none() {
            self.start();
        }
        let work = async {
            for deed in &self.workload.change {
                self.act(deed).await?;
            }
            match reference {
                Some(reference) => self.arrive(reference).await?,
                None => self.settle().await?,
            }
            if reference.is_none() && self.platform().is_some() {
                self.ready().await?;
            }
            self.calm().await
        };
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = self.supervise() => Ok(()),
            () = self.upset(injection) => Ok(()),
        };
        let report = self.report(begun.elapsed(), outcome.err().into_iter().collect());
        match reference {
            Some(reference) => judge(report, reference),
            None => report,
        }
    }

    /// Brings everything back to where the workload begins. Says no where that cannot be.
    pub async fn reset(&self) -> bool {
        let Some(Deed::Create(spec)) = self.workload.before.first() else {
            return false;
        };
        if self.platform().is_none() {
            return false;
        }
        self.line.injector.load(None);
        let work = async {
            let api: Api<DynamicObject> = Api::namespaced_with(
                self.lab.client.clone(),
                &self.namespace,
                &resource("tankaplatforms"),
            );
            for _ in 0..5 {
                let Ok(mut platform) = api.get(PLATFORM).await else {
                    continue;
                };
                platform.data["spec"] = spec.clone();
                if api
                    .replace(PLATFORM, &PostParams::default(), &platform)
                    .await
                    .is_ok()
                {
                    break;
                }
            }
            for deed in self.workload.before.iter().skip(1) {
                self.act(deed).await?;
            }
            self.ready().await?;
            self.settle().await?;
            self.puppet.operands.lock().unwrap().forget();
            self.settle().await
        };
        tokio::select! {
            outcome = work => outcome.is_ok(),
            () = self.supervise() => false,
        }
    }

    /// Removes what was made, so that the API server's memory does not grow with the number of runs.
    pub async fn close(self) {
        let Self {
            lab,
            namespace,
            puppet,
            operator,
            ..
        } = self;
        drop((puppet, operator));
        let namespace = &namespace;
        for (plural, ..) in RESOURCES {
            let api: Api<DynamicObject> =
                Api::namespaced_with(lab.client.clone(), namespace, &resource(plural));
            let parameters = DeleteParams::default().grace_period(0);
            if plural == "services" {
                for (_, name) in lab
                    .view
                    .objects(namespace)
                    .into_keys()
                    .filter(|key| key.0 == plural)
                {
                    let _ = api.delete(&name, &parameters).await;
                }
            } else {
                let _ = api.delete_collection(&parameters, &ListParams::default()).await;
            }
        }
        lab.view.close(namespace);
        let api: Api<Namespace> = Api::all(lab.client.clone());
        let _ = api.delete(namespace, &DeleteParams::default()).await;
    }

    fn report(&self, took: Duration, mut failures: Vec<String>) -> Report {
        failures.extend(self.line.referee.fouls());
        let objects = self.lab.view.objects(&self.namespace);
        Report {
            entries: self.line.journal.entries(),
            digest: digest::digest(&self.namespace, &objects),
            lives: self.line.journal.lives(),
            failures,
            fired: self.line.injector.fired(),
            took,
        }
    }

    fn start(&self) {
        let incarnation = Incarnation::start(&self.lab.exchange, &self.line, &self.namespace);
        *self.operator.lock().unwrap() = Some(Arc::new(incarnation));
    }

    fn incarnation(&self) -> Arc<Incarnation> {
        self.operator.lock().unwrap().clone().unwrap()
    }

    /// Starts the operator again whenever a fault kills it.
    async fn supervise(&self) {
        loop {
            let life = self.incarnation().life.clone();
            life.ended().await;
            self.start();
        }
    }

    /// Makes the pods answer badly for a while.
    async fn upset(&self, injection: Option<&Injection>) {
        if let Some(Injection::Probe(fault)) = injection {
            let mood = match fault {
                ProbeFault::Silence => Mood::Silent,
                ProbeFault::Garbage => Mood::Garbage,
                ProbeFault::Closed => Mood::Closed,
            };
            self.puppet.operands.lock().unwrap().mood = mood;
            sleep(SPELL).await;
            self.puppet.operands.lock().unwrap().mood = Mood::Honest;
        }
        std::future::pending::<()>().await;
    }
}

/// Compares a run with one without faults.
fn judge(mut report: Report, reference: &Reference) -> Report {
    let differences = digest::differences(&reference.report.digest, &report.digest, &reference.mask);
    if report.failures.is_empty() && !differences.is_empty() {
        report
            .failures
            .push(format!("it does not stay so: {}", differences.join("\n      ")));
    }
    let expected = &reference.report.lives;
    for key in expected
        .keys()
        .chain(report.lives.keys().filter(|key| !expected.contains_key(*key)))
    {
        let (want, have) = (
            expected.get(key).copied().unwrap_or_default(),
            report.lives.get(key).copied().unwrap_or_default(),
        );
        if want != have {
            report.failures.push(format!(
                "{}/{} was made {} and deleted {} times, without a fault {} and {}",
                key.0, key.1, have.0, have.1, want.0, want.1
            ));
        }
    }
    report
}
