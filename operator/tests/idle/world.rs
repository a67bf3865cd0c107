//! Namespaces with a platform and a puppet each.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::TankaPlatform;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::json;

use crate::process::wait;
use crate::sweep::definition::define;
use crate::sweep::puppet::Puppet;
use crate::sweep::view::{RESOURCES, View, resource};

/// Name of each platform.
const PLATFORM: &str = "acme";
/// Nothing has been written for so long: nothing is going to be.
const CALM: Duration = Duration::from_secs(15);

/// All of it.
pub struct World {
    /// How the API server is reached.
    pub kubeconfig: PathBuf,
    client: Client,
    namespaces: Vec<String>,
    _puppets: Vec<Puppet>,
}

impl World {
    /// Makes the namespaces and begins to play.
    pub async fn open(count: usize) -> Self {
        let path = std::env::var("TANKA_TEST_KUBECONFIG")
            .expect("TANKA_TEST_KUBECONFIG names a kubeconfig: run `make bench-operator`");
        let kubeconfig = PathBuf::from(path);
        let file = Kubeconfig::read_from(&kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = Client::try_from(config).unwrap();
        define(&client).await;
        let view = View::start(&client);
        let namespaces: Vec<String> = (0..count)
            .map(|n| format!("idle-{}-{n:03}", std::process::id()))
            .collect();
        let mut puppets = Vec::new();
        for name in &namespaces {
            view.open(name);
            let api: Api<Namespace> = Api::all(client.clone());
            let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            api.create(&PostParams::default(), &object).await.unwrap();
            puppets.push(Puppet::start(client.clone(), Arc::clone(&view), name));
        }
        Self {
            kubeconfig,
            client,
            namespaces,
            _puppets: puppets,
        }
    }

    fn platforms(&self, namespace: &str) -> Api<TankaPlatform> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Makes a platform with all defaults in each namespace.
    pub async fn create(&self) {
        for namespace in &self.namespaces {
            let platform = TankaPlatform::new(PLATFORM, crds::TankaPlatformSpec::default());
            let api = self.platforms(namespace);
            api.create(&PostParams::default(), &platform).await.unwrap();
        }
    }

    /// Waits until all say Ready.
    pub async fn ready(&self) {
        wait("all platforms to be Ready", async || {
            let api: Api<TankaPlatform> = Api::all(self.client.clone());
            let Ok(all) = api.list(&ListParams::default()).await else {
                return false;
            };
            let ready = |platform: &TankaPlatform| {
                let conditions = platform.status.as_ref().map(|status| &status.conditions);
                conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
            };
            all.iter().filter(|platform| ready(platform)).count() >= self.namespaces.len()
        })
        .await;
    }

    /// Every object of the namespaces with its version, events among them. Leases are elsewhere.
    pub async fn versions(&self) -> BTreeSet<String> {
        let mut versions = BTreeSet::new();
        let events = kube::core::ApiResource::erase::<k8s_openapi::api::core::v1::Event>(&());
        let kinds = RESOURCES
            .map(|(plural, ..)| resource(plural))
            .into_iter()
            .chain([events]);
        for kind in kinds {
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
            let all = api.list(&ListParams::default()).await.unwrap();
            versions.extend(
                all.iter()
                    .filter(|object| object.namespace().is_some_and(|ns| self.namespaces.contains(&ns)))
                    .map(|object| {
                        let version = object.resource_version().unwrap_or_default();
                        format!(
                            "{}/{}/{} {version}",
                            kind.plural,
                            object.namespace().unwrap_or_default(),
                            object.name_any()
                        )
                    }),
            );
        }
        versions
    }

    /// Waits until nothing moves any more.
    pub async fn calm(&self) {
        let mut seen = self.versions().await;
        for _ in 0..40 {
            tokio::time::sleep(CALM).await;
            let now = self.versions().await;
            if now == seen {
                return;
            }
            seen = now;
        }
        panic!("it never comes to rest");
    }

    /// Changes a setting of one platform and says how long the first write took.
    pub async fn change(&self, number: usize) -> Duration {
        let namespace = &self.namespaces[number % self.namespaces.len()];
        let files: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource("configmaps"));
        let name = crds::names::api_config(PLATFORM);
        let version = async || {
            files
                .get(&name)
                .await
                .ok()
                .and_then(|file| file.resource_version())
        };
        let before = version().await;
        let patch =
            json!({"spec": {"api": {"logLevel": if number.is_multiple_of(2) { "debug" } else { "warn" }}}});
        let begun = Instant::now();
        self.platforms(namespace)
            .patch(PLATFORM, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
        while version().await == before {
            assert!(
                begun.elapsed() < Duration::from_mins(1),
                "a change is not taken over"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        begun.elapsed()
    }
}
