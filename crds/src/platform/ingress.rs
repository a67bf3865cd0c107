//! `spec.ingress`: how clients reach the API from outside the cluster.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// How clients reach the API from outside the cluster.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("!self.enabled || self.host != ''", "ingress.host is missing: write the name that clients use, such as api.example.com"),
        ("!has(self.tls) || self.host != ''", "ingress.tls needs ingress.host: write the name that the certificate is for"),
        ("!has(self.gateway) || !has(self.tls)", "ingress.tls has no place beside ingress.gateway: the Gateway ends TLS, so name the certificate in its listener"),
        ("!has(self.gateway) || !has(self.className)", "ingress.className has no place beside ingress.gateway: the Gateway names its own class"),
])))]
pub struct IngressSpec {
    /// Whether an Ingress (or, with `gateway`, an HTTPRoute) is made.
    pub enabled: bool,
    /// DNS name that clients use.
    #[schemars(
        length(max = 253),
        regex(pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$")
    )]
    pub host: String,
    /// IngressClass; absent: the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// Certificate: a Secret, or an issuer of cert-manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<IngressTls>,
    /// Further annotations for the controller in use. They win over those that the operator sets: timeouts that leave WebSockets open,
    /// no limit of the body's size (the API has its own), balancing by load and never by client.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Gateway to attach an HTTPRoute to, instead of an Ingress. Needs Gateway API 1.2 or newer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayRef>,
}

/// Certificate of the host.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
        ("has(self.secretName) != has(self.issuerRef)", "set exactly one of tls.secretName and tls.issuerRef"),
])))]
pub struct IngressTls {
    /// Secret of type kubernetes.io/tls.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// Issuer of cert-manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
}

/// Issuer of cert-manager.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Whether it is bound to the namespace.
    #[serde(default)]
    pub kind: IssuerKind,
}

/// Kind of issuer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IssuerKind {
    /// In the same namespace.
    Issuer,
    /// For the whole cluster.
    #[default]
    ClusterIssuer,
}

/// A Gateway of the Gateway API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; absent: the platform's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Listener; absent: all that match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}
