//! A namespace of its own for each test, and the operator's real binary at work in it.

use std::path::Path;
use std::time::Duration;

use crds::platform::crd;
use crds::{TankaPlatform, TankaPlatformSpec};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, Config};
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

    /// Objects of a kind, without types.
    pub fn objects(&self, kind: operator::platform::object::Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.api_resource())
    }

    /// Waits for an object.
    pub async fn object(&self, kind: operator::platform::object::Kind, name: &str) -> DynamicObject {
        let api = self.objects(kind);
        eventually(&format!("{} {name}", kind.as_str()), || async {
            api.get_opt(name).await.unwrap()
        })
        .await
    }

    /// Waits until the status has a condition for which `check` says yes.
    pub async fn condition(
        &self,
        platform: &str,
        kind: &str,
        reason: &str,
    ) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
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
