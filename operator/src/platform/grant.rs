//! The operator's rights in a namespace. Over the whole cluster it may only read; writing, and any access to Secrets, comes from a
//! second ClusterRole that it binds to itself in namespaces that hold a platform.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::sleep;

use super::build::metadata::owner;
use super::deadline::bounded;
use super::validate::Platform;
use crate::metrics::{Cause, Metrics};
use crate::platform::object::Kind;
use crds::names;

/// How often is looked whether the role has come into effect.
const TRIES: u32 = 50;
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Whom the operator gives which role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// ClusterRole with the rights to keep a platform.
    pub role: String,
    /// The operator's own ServiceAccount.
    pub account: String,
    /// Its namespace.
    pub account_namespace: String,
}

/// Binds the role where it is needed. Without a grant, as in namespaced mode, the rights are there already.
pub struct Grants {
    client: Client,
    metrics: Metrics,
    grant: Option<Grant>,
    done: Mutex<BTreeSet<String>>,
}

impl Grants {
    /// Grants as configured.
    pub fn new(client: Client, metrics: Metrics, grant: Option<Grant>) -> Self {
        Self {
            client,
            metrics,
            grant,
            done: Mutex::default(),
        }
    }

    /// Makes sure that the operator may work in the platform's namespace.
    ///
    /// # Errors
    /// The API server's.
    pub async fn ensure(&self, platform: &Platform) -> Result<(), kube::Error> {
        let Some(grant) = &self.grant else { return Ok(()) };
        if self
            .done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&platform.uid)
        {
            return Ok(());
        }
        // Each platform is one owner more: the binding goes with the last of them.
        let mut owner = owner(platform);
        owner["controller"] = json!(false);
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {
                "name": names::FIELD_MANAGER,
                "namespace": platform.namespace,
                "labels": {names::PART_OF_LABEL: names::PART_OF},
                "ownerReferences": [owner],
            },
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": grant.role},
            "subjects": [{"kind": "ServiceAccount", "name": grant.account, "namespace": grant.account_namespace}],
        });
        let api: Api<RoleBinding> = Api::namespaced(self.client.clone(), &platform.namespace);
        let manager = format!("{}-{}", names::FIELD_MANAGER, platform.uid);
        self.metrics.write(Kind::RoleBinding, Cause::Rights);
        bounded(api.patch(
            names::FIELD_MANAGER,
            &PatchParams::apply(&manager).force(),
            &Patch::Apply(&binding),
        ))
        .await?;
        self.effective(&platform.namespace).await?;
        self.done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(platform.uid.clone());
        Ok(())
    }

    /// Waits until the API server's authorizer knows of the binding, which it learns a moment after it was stored.
    async fn effective(&self, namespace: &str) -> Result<(), kube::Error> {
        let api: Api<RoleBinding> = Api::namespaced(self.client.clone(), namespace);
        for _ in 0..TRIES {
            match bounded(api.list_metadata(&ListParams::default().limit(1))).await {
                Err(kube::Error::Api(status)) if status.code == 403 => sleep(PAUSE).await,
                other => return other.map(drop),
            }
        }
        Err(kube::Error::Service(
            format!(
                "the operator's role is bound in namespace {namespace}, and still its requests are forbidden"
            )
            .into(),
        ))
    }

    /// Looks again before the next use: a request was forbidden, so somebody may have taken the binding away.
    pub fn doubt(&self, uid: &str) {
        self.done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }
}
