//! The way in from outside. No ingress controller runs on the cluster; where one is needed, its part is played here: it takes a class,
//! and gives an Ingress an address.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Scenario;
use super::ground::{Ground, until};
use super::specs;
use super::status::row;
use super::subject::Complaint;

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "status-ingress-host",
    shows: "a host that somebody else's Ingress routes already is named, and taken over once it is free",
    quick: false,
    play: |ground| Box::pin(host_taken(ground)),
}];

/// Class of the controller that is played.
const CLASS: &str = "scenarios";
/// How long the operator may take to make the Ingress.
const MADE_WITHIN: Duration = Duration::from_mins(2);

/// The part of a spec that asks for an Ingress.
pub fn ingress(host: &str) -> Value {
    json!({"ingress": {"enabled": true, "host": host, "className": CLASS}})
}

/// Makes the class.
pub async fn class(ground: &Ground<'_>) -> Result<()> {
    let manifest = format!(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: {CLASS}}}\nspec: {{controller: example.com/scenarios}}\n"
    );
    ground.cluster.apply(&manifest).await.map(drop)
}

/// Waits for the platform's Ingress, and gives it an address.
pub async fn admit(ground: &Ground<'_>) -> Result<()> {
    let path = ground.object("networking.k8s.io/v1", "ingresses", "acme-api");
    until("the Ingress", MADE_WITHIN, || async {
        Ok(ground.kubernetes.find(&path).await?.is_some())
    })
    .await?;
    let address = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    ground
        .kubernetes
        .merge(&format!("{path}/status"), &address)
        .await
        .map(drop)
}

async fn host_taken(ground: &Ground<'_>) -> Result<()> {
    const HOST: &str = "taken.example.com";
    class(ground).await?;
    ground
        .apply(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: theirs}}\nspec:\n  ingressClassName: {CLASS}\n  rules:\n  - host: {HOST}\n    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: theirs, port: {{number: 80}}}}}}}}]}}\n"
        ))
        .await?;
    let acme = ground.ready_platform(&specs::single()).await?;
    row(
        &acme,
        "host taken",
        &Complaint::new("IngressReady", "HostConflict", &[HOST, "theirs"]),
        acme.change(ingress(HOST)),
        async |()| ground.kubectl(&["delete", "ingress", "theirs"]).await.map(drop),
    )
    .await?;
    admit(ground).await?;
    acme.ready().await.map(drop)
}
