//! Labels, selectors and owner references.

use std::collections::BTreeMap;

use crds::names::{self, Component};
use serde_json::{Value, json};

use crate::platform::validate::Platform;

/// Labels by which a component's pods are found. They can never change, since selectors cannot.
pub fn selector(platform: &Platform, component: Component) -> Value {
    json!({
        names::NAME_LABEL: names::PART_OF,
        names::INSTANCE_LABEL: platform.name,
        names::COMPONENT_LABEL: component.as_str(),
    })
}

/// All labels of an object.
pub fn labels(platform: &Platform, component: Component) -> Value {
    let mut labels = stable_labels(platform, component);
    labels[names::VERSION_LABEL] = json!(platform.version);
    labels
}

/// Labels of pods and volumes: all but the version, so that a new release alone restarts nothing that it does not concern.
pub fn stable_labels(platform: &Platform, component: Component) -> Value {
    let mut labels = selector(platform, component);
    labels[names::PART_OF_LABEL] = json!(names::PART_OF);
    labels[names::MANAGED_BY_LABEL] = json!(names::MANAGED_BY);
    labels[names::PLATFORM_LABEL] = json!(platform.name);
    labels
}

/// Metadata of an object that goes when the platform goes.
pub fn owned(platform: &Platform, component: Component, name: &str) -> Value {
    let mut metadata = outliving(platform, component, name);
    metadata["ownerReferences"] = json!([owner(platform)]);
    metadata
}

/// Metadata of an object that watches the platform, with labels of the user's by which others find it. Ours win.
pub fn labelled(platform: &Platform, name: &str, additions: &BTreeMap<String, String>) -> Value {
    let mut metadata = owned(platform, Component::Monitoring, name);
    let own = metadata["labels"].take();
    metadata["labels"] = json!(additions);
    if let (Some(labels), Value::Object(own)) = (metadata["labels"].as_object_mut(), own) {
        labels.extend(own);
    }
    metadata
}

/// Metadata of an object that outlives the platform: it carries labels but no owner.
pub fn outliving(platform: &Platform, component: Component, name: &str) -> Value {
    json!({"name": name, "namespace": platform.namespace, "labels": labels(platform, component)})
}

/// The reference by which Kubernetes deletes an object together with its platform.
pub fn owner(platform: &Platform) -> Value {
    json!({
        "apiVersion": "tanka.dev/v1alpha1",
        "kind": "TankaPlatform",
        "name": platform.name,
        "uid": platform.uid,
        "controller": true,
        "blockOwnerDeletion": false,
    })
}
