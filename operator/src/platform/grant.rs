//! The operator's rights in a namespace. Over the whole cluster it may only read; writing, and any access to Secrets, comes from a
//! second ClusterRole that it binds to itself in namespaces that hold a platform.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::build::metadata::owner;
use super::deadline::bounded;
use super::validate::Platform;
use crate::metrics::{Metrics, Verb};
use crate::platform::object::Kind;
use crds::names;

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
        self.metrics.write(Kind::RoleBinding, Verb::Apply);
        bounded(api.patch(
            names::FIELD_MANAGER,
            &PatchParams::apply(&manager).force(),
            &Patch::Apply(&binding),
        ))
        .await?;
        self.done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(platform.uid.clone());
        Ok(())
    }

    /// Looks again before the next use: a request was forbidden, so somebody may have taken the binding away.
    pub fn doubt(&self, uid: &str) {
        self.done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }
}
