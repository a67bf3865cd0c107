//! The real definitions of prometheus-operator and of the Gateway API, out of their Go modules.

use std::process::Command;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;

use crate::harness::eventually;

/// Where definitions are: a module, and files in it.
pub struct Source {
    module: &'static str,
    files: &'static [&'static str],
}

/// Rules and monitors of prometheus-operator.
pub const PROMETHEUS: Source = Source {
    module: "github.com/prometheus-operator/prometheus-operator@v0.85.0",
    files: &[
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    ],
};
/// Routes and Gateways of the Gateway API.
pub const GATEWAY: Source = Source {
    module: "sigs.k8s.io/gateway-api@v1.4.0",
    files: &[
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
        "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
    ],
};

impl Source {
    fn read(&self) -> Vec<CustomResourceDefinition> {
        let output = Command::new("go")
            .args(["mod", "download", "-json", self.module])
            .current_dir(std::env::temp_dir())
            .output()
            .expect("go is installed: run `make deps`");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let folder = told["Dir"].as_str().unwrap_or_else(|| {
            panic!(
                "{} cannot be had, check GOPROXY and the network: {told}",
                self.module
            )
        });
        let read = |file: &&str| std::fs::read_to_string(format!("{folder}/{file}")).unwrap();
        self.files
            .iter()
            .map(|file| serde_saphyr::from_str(&read(file)).unwrap())
            .collect()
    }

    /// Installs the definitions, and waits until their kinds are served.
    pub async fn install(&self, client: &Client) {
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        for crd in self.read() {
            let name = crd.metadata.name.clone().unwrap();
            api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&crd))
                .await
                .unwrap();
            let version = &crd.spec.versions[0].name;
            let kind = GroupVersionKind::gvk(&crd.spec.group, version, &crd.spec.names.kind);
            let resource = ApiResource::from_gvk_with_plural(&kind, &crd.spec.names.plural);
            let objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            eventually("the kind to be served", || async {
                objects.list(&ListParams::default()).await.ok()
            })
            .await;
        }
    }

    /// Removes them, with all their objects, and waits until they are gone.
    pub async fn remove(&self, client: &Client) {
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        for crd in self.read() {
            let name = crd.metadata.name.unwrap();
            let _ = api.delete(&name, &DeleteParams::default()).await;
            eventually("the definition to be gone", || async {
                api.get_opt(&name).await.unwrap().is_none().then_some(())
            })
            .await;
        }
    }
}
