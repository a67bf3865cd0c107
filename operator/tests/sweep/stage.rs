//! A namespace with an operator and a puppet, in which one workload is run, with one fault or none, again and again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::digest::{self, Digest};
use crate::fault::{Fault, Injection, ProbeFault};
use crate::incarnation::{Incarnation, PLATFORM};
use crate::injector::{Injector, SPELL};
use crate::journal::{Entry, Journal};
use crate::puppet::{Mood, Puppet};
use crate::referee::Referee;
use crate::view::{RESOURCES, View, resource};
use crate::wire::{Exchange, Line};
use crate::workload::{Deed, Workload};

/// Time in which a platform comes to where it should be after the fault: a hung request costs ten seconds of it.
const PATIENCE: Duration = Duration::from_mins(1);
/// Nothing has happened for this long.
const QUIET: Duration = Duration::from_millis(700);

/// What all runs share.
pub struct Lab {
    /// A client that no fault touches.
    pub client: Client,
    exchange: Exchange,
    view: Arc<View>,
    serial: AtomicUsize,
}

impl Lab {
    /// Follows the API server of `config`.
    pub fn new(config: Config) -> Self {
        let client = Client::try_from(config.clone()).unwrap();
        Self {
            view: View::start(&client),
            exchange: Exchange::new(config),
            client,
            serial: AtomicUsize::new(0),
        }
    }

    fn namespace(&self) -> String {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        format!("sweep-{:08}-{serial:06}", std::process::id())
    }
}

/// What a run came to.
pub struct Report {
    /// What was carried out after the workload began.
    pub entries: Vec<Entry>,
    /// Where it ended.
    pub digest: Digest,
    /// Objects made and deleted.
    pub lives: BTreeMap<(String, String), (usize, usize)>,
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

    fn api(&self, plural: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.lab.client.clone(), &self.namespace, &resource(plural))
    }

    async fn act(&self, deed: &Deed) -> Result<(), String> {
        let outcome = match deed {
            Deed::Gone => {
                let gone = || self.platform().is_none().then_some(());
                return self.wait(gone, || "the platform is still there".to_owned()).await;
            }
            Deed::Await(kind, reason) => {
                let says = || self.says(kind, reason).then_some(());
                let complaint = || format!("{kind} never says {reason}: {}", self.words());
                return self.wait(says, complaint).await;
            }
            deed => self.write(deed).await,
        };
        outcome.map_err(|error| format!("{deed:?} was refused: {error}"))
    }

    async fn write(&self, deed: &Deed) -> Result<(), kube::Error> {
        let platforms = self.api("tankaplatforms");
        let someone = PatchParams::default();
        match deed {
            Deed::Create(spec) => {
                let object = json!({"apiVersion": "tanka.dev/v1alpha1", "kind": "TankaPlatform", "metadata": {"name": PLATFORM}, "spec": spec});
                let object = serde_json::from_value(object).unwrap();
                platforms.create(&PostParams::default(), &object).await?;
            }
            Deed::Change(spec) => {
                let patch = Patch::Merge(json!({"spec": spec}));
                platforms.patch(PLATFORM, &someone, &patch).await?;
            }
            Deed::Delete => {
                platforms.delete(PLATFORM, &DeleteParams::default()).await?;
            }
            Deed::Drift(plural, name, patch) => {
                self.api(plural)
                    .patch(name, &someone, &Patch::Merge(patch))
                    .await?;
            }
            Deed::Lose(plural, name) => {
                self.api(plural).delete(name, &DeleteParams::background()).await?;
            }
            Deed::Foreign(plural, object) => {
                let object = serde_json::from_value(object.clone()).unwrap();
                self.api(plural).create(&PostParams::default(), &object).await?;
            }
            Deed::Scale(replicas) => {
                let scaler = PatchParams {
                    field_manager: Some("kube-controller-manager".to_owned()),
                    ..PatchParams::default()
                };
                let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
                self.api("deployments")
                    .patch_scale("acme-api", &scaler, &patch)
                    .await?;
            }
            Deed::Gone | Deed::Await(..) => {}
        }
        Ok(())
    }

    fn platform(&self) -> Option<Arc<Value>> {
        let objects = self.lab.view.objects(&self.namespace);
        objects.get(&("tankaplatforms", PLATFORM.to_owned())).cloned()
    }

    fn says(&self, kind: &str, reason: &str) -> bool {
        let Some(platform) = self.platform() else {
            return false;
        };
        let current = platform["status"]["observedGeneration"] == platform["metadata"]["generation"];
        let conditions = platform["status"]["conditions"].as_array();
        current
            && conditions.is_some_and(|all| all.iter().any(|c| c["type"] == kind && c["reason"] == reason))
    }

    /// What the conditions say, for people.
    fn words(&self) -> String {
        let Some(platform) = self.platform() else {
            return "there is no platform".to_owned();
        };
        let conditions = platform["status"]["conditions"].as_array().into_iter().flatten();
        conditions
            .map(|c| {
                format!(
                    "{}={} {}",
                    c["type"].as_str().unwrap_or(""),
                    c["status"],
                    c["message"]
                )
            })
            .collect::<Vec<_>>()
            .join("; ")
    }

    async fn ready(&self) -> Result<(), String> {
        self.wait(
            || self.says("Ready", "AllReady").then_some(()),
            || format!("never ready: {}", self.words()),
        )
        .await
    }

    /// Waits until `check` has an answer, asking whenever changes pause.
    async fn wait<T>(
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
    async fn settle(&self) -> Result<(), String> {
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
    async fn arrive(&self, reference: &Reference) -> Result<(), String> {
        let differences = || {
            let found = digest::digest(&self.namespace, &self.lab.view.objects(&self.namespace));
            digest::differences(&reference.report.digest, &found, &reference.mask)
        };
        self.wait(
            || differences().is_empty().then_some(()),
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
    async fn calm(&self) -> Result<(), String> {
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
    async fn look(&self) {
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
