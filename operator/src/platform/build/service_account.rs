//! ServiceAccount of a component that asks the API server for nothing: it gives the pods an identity of their own, and no token.

use crds::names::{self, Component};
use serde_json::json;

use super::metadata;
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// The account, named as the component.
pub fn build(platform: &Platform, component: Component) -> Object {
    let name = names::component(&platform.name, component);
    let manifest = json!({"metadata": metadata::owned(platform, component, &name), "automountServiceAccountToken": false});
    Object::new(Kind::ServiceAccount, &name, manifest)
}
