//! PodDisruptionBudgets: a drain of nodes takes one pod of a component at a time.

use crds::names::{self, Component};
use serde_json::json;

use super::metadata;
use crate::platform::object::{Kind, Object};
use crate::platform::validate::Platform;

/// The budget of a component.
pub fn build(platform: &Platform, component: Component) -> Object {
    let name = names::component(&platform.name, component);
    let manifest = json!({
        "metadata": metadata::owned(platform, component, &name),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": metadata::selector(platform, component)}},
    });
    Object::new(Kind::PodDisruptionBudget, name, manifest)
}
