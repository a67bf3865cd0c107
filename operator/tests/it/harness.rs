//! A namespace of its own for each test, and the operator's real binary at work in it.

use std::path::Path;
use std::time::Duration;

use crds::platform::crd;
use crds::{TankaPlatform, TankaPlatformSpec};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Config};
use operator::platform::object::Kind;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::process::Operator;

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

static INSTALLED: OnceCell<()> = OnceCell::const_new();

/// Path of the kubeconfig of the API server under test.
pub fn kubeconfig() -> String {
    std::env::var("TANKA_TEST_KUBECONFIG").expect(
        "TANKA_TEST_KUBECONFIG names no kubeconfig: run `make test`, or start a control plane with \
         `e2e/cluster/build` and `tanka-cluster up --control-plane-only --controller-manager`",
    )
}

/// A client, after the definition has been installed once.
pub async fn client() -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let file = kube::config::Kubeconfig::read_from(kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default())
        .await
        .unwrap();
    let client = Client::try_from(config).unwrap();
    INSTALLED.get_or_init(|| install(client.clone())).await;
    client
}

async fn install(client: Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let parameters = PatchParams::apply("tests").force();
    api.patch("tankaplatforms.tanka.dev", &parameters, &Patch::Apply(crd()))
        .await
        .unwrap();
    eventually("the definition to be established", || async {
        let crd = api.get("tankaplatforms.tanka.dev").await.ok()?;
        let conditions = crd.status?.conditions?;
        conditions
            .iter()
            .any(|c| c.type_ == "Established" && c.status == "True")
            .then_some(())
    })
    .await;
}

/// Waits until `check` has an answer.
pub async fn eventually<T, F>(what: &str, check: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    eventually_within(PATIENCE, what, check).await
}

/// The same, with a patience of its own.
pub async fn eventually_within<T, F>(patience: Duration, what: &str, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    loop {
        if let Some(answer) = check().await {
            return answer;
        }
        assert!(begun.elapsed() < patience, "waited in vain for {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A spec whose PostgreSQL and Redis are somebody else's, so that nothing but the migration stands before the API.
pub fn external() -> Value {
    json!({
        "postgres": {"external": {"primarySecretRef": {"name": "db", "key": "url"}}},
        "redis": {"external": {"secretRef": {"name": "cache", "key": "url"}}},
    })
}

/// Says of a Job what its controller says when it has worked.
async fn complete(jobs: &Api<DynamicObject>, job: &DynamicObject) {
    if job.data["status"]["succeeded"] == 1 {
        return;
    }
    // Its start cannot be changed any more once its controller has set it, and its end cannot come before.
    let started = job.data["status"]["startTime"]
        .as_str()
        .unwrap_or("2026-01-01T00:00:00Z");
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": started});
    let status = json!({"status": {
        "startTime": started, "completionTime": started,
        "active": 0, "ready": 0, "terminating": 0, "succeeded": 1, "uncountedTerminatedPods": {},
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
    }});
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let patched = jobs
        .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await;
    if let Err(error) = patched {
        println!("{error}");
    }
}

/// A namespace with the operator at work in it.
pub struct World {
    /// Client of the API server.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    operator: Option<Operator>,
}

impl World {
    /// A namespace without an operator yet.
    pub async fn empty(name: &str) -> Self {
        let client = client().await;
        let api: Api<Namespace> = Api::all(client.clone());
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"generateName": format!("{name}-")}})).unwrap();
        let made = api.create(&PostParams::default(), &namespace).await.unwrap();
        Self {
            client,
            namespace: made.metadata.name.unwrap(),
            operator: None,
        }
    }

    /// A namespace with an operator.
    pub async fn new(name: &str) -> Self {
        let mut world = Self::empty(name).await;
        world.start_operator();
        world
    }

    /// Starts the operator, bound to the namespace.
    pub fn start_operator(&mut self) {
        let namespace = self.namespace.clone();
        let arguments = [
            "--watch-namespaces",
            &namespace,
            "--namespace",
            &namespace,
            "--identity",
            "test",
            "--log-format",
            "text",
        ];
        self.adopt(Operator::start(Path::new(&kubeconfig()), &arguments, &[]));
    }

    /// Takes an operator that was started in another way.
    pub fn adopt(&mut self, operator: Operator) {
        self.operator = Some(operator);
    }

    /// Ends the operator as a crash would.
    pub fn kill_operator(&mut self) {
        self.operator = None;
    }

    /// The operator's own count of writes.
    #[expect(
        clippy::unused_async,
        reason = "tests wait for it as for every other question"
    )]
    pub async fn writes(&self) -> u64 {
        let text = self.operator.as_ref().unwrap().get("/metrics");
        let lines = text
            .lines()
            .filter(|line| line.starts_with("tanka_apiserver_writes_total"));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Platforms in the namespace.
    pub fn platforms(&self) -> Api<TankaPlatform> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates a platform.
    pub async fn create(&self, name: &str, spec: Value) -> TankaPlatform {
        let spec: TankaPlatformSpec = serde_json::from_value(spec).unwrap();
        self.platforms()
            .create(&PostParams::default(), &TankaPlatform::new(name, spec))
            .await
            .unwrap()
    }

    /// Supplies the external services of [`external`] and lets the migration succeed, as the Job's controller would tell it.
    pub async fn migrate(&self, platform: &str) {
        // That of the database last: the migration waits for it, and is made anew when another Secret changes.
        for (name, url) in [
            ("cache", "redis://cache.example.com"),
            ("db", "postgres://db.example.com/tanka"),
        ] {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"url": url}});
            let secret = serde_json::from_value(secret).unwrap();
            self.objects(Kind::Secret)
                .create(&PostParams::default(), &secret)
                .await
                .unwrap();
        }
        let (jobs, platforms) = (self.objects(Kind::Job), self.platforms());
        let labels = format!("tanka.dev/platform={platform}");
        eventually("its migrations to be done", || async {
            // A Job that was made when only one of the Secrets had been seen is replaced by another.
            for job in jobs.list(&ListParams::default().labels(&labels)).await.unwrap() {
                complete(&jobs, &job).await;
            }
            let status = platforms.get(platform).await.unwrap().status?;
            let applied = |c: &&Condition| c.type_ == "MigrationsApplied" && c.status == "True";
            status.conditions.iter().find(applied).map(|_| ())
        })
        .await;
    }

    /// Objects of a kind, without types.
    pub fn objects(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.api_resource())
    }

    /// Waits for an object.
    pub async fn object(&self, kind: Kind, name: &str) -> DynamicObject {
        let api = self.objects(kind);
        eventually(&format!("{} {name}", kind.as_str()), || async {
            api.get_opt(name).await.unwrap()
        })
        .await
    }

    /// Waits until the status has a condition for which `check` says yes.
    pub async fn condition(&self, platform: &str, kind: &str, reason: &str) -> Condition {
        let api = self.platforms();
        eventually(&format!("{kind} of {platform} to say {reason}"), || async {
            let status = api.get(platform).await.unwrap().status?;
            status
                .conditions
                .into_iter()
                .find(|condition| condition.type_ == kind && condition.reason == reason)
        })
        .await
    }

    /// Waits until the operator has written nothing for two of its regular looks.
    pub async fn calm(&self) -> u64 {
        let mut before = self.writes().await;
        for _ in 0..10 {
            sleep(Duration::from_secs(2)).await;
            let after = self.writes().await;
            if after == before {
                return after;
            }
            before = after;
        }
        panic!("the operator goes on writing although nothing changes");
    }
}
