//! Making Secrets: drawn once, and made again with the values that were seen last.

use std::sync::PoisonError;

use crds::names;
use kube::Error;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use rand::RngExt;
use rand::distr::Alphanumeric;

use super::Applier;
use crate::metrics::Cause;
use crate::planted::{self, Bug};
use crate::platform::build::secrets::SecretRequest;
use crate::platform::deadline::bounded;
use crate::platform::object::Kind;
use crate::platform::observe::secrets::Credentials;
use crate::platform::observe::{Rejection, World};
use crate::platform::plan::credentials;
use crate::platform::validate::Platform;

/// Length of a generated password: 190 bits.
const PASSWORD_LENGTH: usize = 32;

impl Applier {
    /// Remembers credentials that exist, for the day on which their Secret is deleted by mistake.
    pub fn remember_credentials(&self, namespace: &str, seen: Credentials) {
        let mut credentials = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        credentials.extend(
            seen.into_iter()
                .map(|(secret, values)| ((namespace.to_owned(), secret), values)),
        );
    }

    /// Makes a Secret, unless that would lock somebody out.
    ///
    /// # Errors
    /// Where the API server cannot be reached or failed itself, or says that it is there while it is not.
    pub(super) async fn create_secret(
        &self,
        platform: &Platform,
        world: &World,
        request: &SecretRequest,
    ) -> Result<Option<Rejection>, Error> {
        let key = (platform.namespace.clone(), request.name.clone());
        let remembered = self
            .credentials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if remembered.is_none() && credentials::are_held(platform, world, &request.name) {
            return Ok(Some(Rejection::CredentialsLost));
        }
        let mut values = remembered.unwrap_or_default();
        for name in request.keys {
            values.entry((*name).to_owned()).or_insert_with(password);
        }
        let object: DynamicObject =
            serde_json::from_value(request.manifest(&values)).map_err(Error::SerdeError)?;
        let parameters = PostParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        self.metrics.write(Kind::Secret, Cause::Missing);
        match bounded(self.api(platform, Kind::Secret).create(&parameters, &object)).await {
            // Somebody was faster, and what is there counts; if nothing is, no pod may be made without it.
            Err(Error::Api(status)) if status.code == 409 => {
                let found = bounded(self.api(platform, Kind::Secret).get_opt(&request.name)).await?;
                found.map(|_| None).ok_or(Error::Api(status))
            }
            Err(_) if planted::is(Bug::SecretsRedrawn) => {
                let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
                let api = self.api(platform, Kind::Secret);
                let patch = Patch::Apply(&object);
                bounded(api.patch(&request.name, &parameters, &patch))
                    .await
                    .map(|_| None)
            }
            Err(error) => Err(error),
            Ok(_) => {
                self.remember_credentials(
                    &platform.namespace,
                    Credentials::from([(request.name.clone(), values)]),
                );
                Ok(None)
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the rim: credentials are drawn here and nowhere else"
)]
fn password() -> String {
    rand::rng()
        .sample_iter(Alphanumeric)
        .take(PASSWORD_LENGTH)
        .map(char::from)
        .collect()
}
