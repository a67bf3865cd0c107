//! The definition of `TankaPlatform` on an API server that has nothing yet.

use std::time::Duration;

use crds::TankaPlatform;
use crds::platform::crd;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use tokio::time::{sleep, timeout};

/// An API server that serves it later has failed.
const LONGEST: Duration = Duration::from_secs(30);

/// Applies it and waits until platforms can be listed: an API server calls a definition established a moment before it serves it.
pub async fn define(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "tankaplatforms.tanka.dev";
    api.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(crd()))
        .await
        .unwrap();
    await_condition(api, name, conditions::is_crd_established())
        .await
        .unwrap();
    let platforms: Api<TankaPlatform> = Api::all(client.clone());
    let served = async {
        while platforms.list(&ListParams::default().limit(1)).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONGEST, served).await.unwrap();
}
