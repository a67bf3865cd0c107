//! Acting as a ServiceAccount: a kubeconfig with its token, and what the API server's audit log says it asked for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::process::audit_log;

/// An account that exists.
pub struct Identity {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// A kubeconfig with its token.
    pub kubeconfig: PathBuf,
    log: PathBuf,
}

/// A request in the audit log.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// What was asked.
    pub verb: String,
    /// Of what. Nothing where an address was asked that is no resource.
    pub object_ref: Option<Object>,
    user: User,
    #[serde(default)]
    response_status: Status,
}

/// What a request is about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    /// Group; empty for the first of all.
    pub api_group: String,
    /// Plural of the kind.
    pub resource: String,
    /// `status` and the like.
    pub subresource: String,
    /// Name, where one was asked for.
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

#[derive(Debug, Clone, Deserialize)]
struct User {
    username: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl Request {
    /// Whether it was forbidden.
    pub fn forbidden(&self) -> bool {
        self.response_status.code == 403
    }

    /// Whether it would change something.
    pub fn writes(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str())
    }

    /// The rights that it needed: group, resource with subresource, verb. An apply that made the object needed two.
    pub fn rights(&self) -> Vec<(String, String, String)> {
        let Some(object) = &self.object_ref else {
            return Vec::new();
        };
        let resource = if object.subresource.is_empty() {
            object.resource.clone()
        } else {
            format!("{}/{}", object.resource, object.subresource)
        };
        let made = self.verb == "patch" && self.response_status.code == 201;
        let verbs = [Some(self.verb.as_str()), made.then_some("create")];
        verbs
            .into_iter()
            .flatten()
            .map(|verb| (object.api_group.clone(), resource.clone(), verb.to_owned()))
            .collect()
    }
}

impl Identity {
    /// A token for an account, which is made if it is not there.
    pub async fn of(client: &Client, admin: &Path, namespace: &str, name: &str) -> Self {
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let account = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let _ = accounts.create(&PostParams::default(), &account).await;
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: Vec::new(),
                expiration_seconds: Some(3_600),
                bound_object_ref: None,
            },
            ..TokenRequest::default()
        };
        let token = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .unwrap()
            .status
            .unwrap()
            .token;
        let mut file = serde_json::to_value(Kubeconfig::read_from(admin).unwrap()).unwrap();
        for user in file["users"].as_array_mut().unwrap() {
            user["user"] = json!({"token": token});
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(namespace);
        fs::create_dir_all(&folder).unwrap();
        let kubeconfig = folder.join(name);
        // JSON is YAML.
        fs::write(&kubeconfig, file.to_string()).unwrap();
        Self {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            kubeconfig,
            log: audit_log(admin),
        }
    }

    /// A client with its rights.
    pub async fn client(&self) -> Client {
        let file = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .unwrap();
        Client::try_from(config).unwrap()
    }

    /// Everything that it has asked for so far.
    pub fn requests(&self) -> Vec<Request> {
        let text = fs::read_to_string(&self.log).unwrap();
        text.lines()
            .filter(|line| line.contains(&self.user))
            // The last line may not be whole yet.
            .filter_map(|line| serde_json::from_str::<Request>(line).ok())
            .filter(|request| request.user.username == self.user)
            .collect()
    }
}

/// The log is written a moment after the answer.
pub const LOGGED: Duration = Duration::from_millis(500);

/// Rights in rules, without what they are narrowed to by name.
pub fn triples(rules: &Value) -> BTreeSet<(String, String, String)> {
    let texts = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap_or_default() };
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().unwrap() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    rights.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    rights
}
