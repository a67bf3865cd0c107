//! Objects as the caches keep them: what is asked of all of them, and the whole as compressed text. A tree of JSON takes several times
//! its text, the text three times what it takes compressed, and most objects are looked at only now and then.

use std::borrow::Cow;

use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::reflector::Lookup;
use serde_json::Value;

use crate::platform::object::Kind;
use crds::names;

/// An object as compressed text.
#[derive(Debug, Clone)]
pub struct Packed {
    namespace: Option<Box<str>>,
    name: Box<str>,
    uid: Option<Box<str>>,
    version: Option<Box<str>>,
    platform: Option<Box<str>>,
    compressed: Box<[u8]>,
}

impl Packed {
    /// Packs an object.
    pub fn new(object: &DynamicObject) -> Self {
        let boxed = |text: Option<String>| text.map(String::into_boxed_str);
        Self {
            namespace: boxed(object.metadata.namespace.clone()),
            name: object.name_any().into_boxed_str(),
            uid: boxed(object.metadata.uid.clone()),
            version: boxed(object.metadata.resource_version.clone()),
            platform: platform_of(object).map(Box::from),
            // What came as JSON goes back into it.
            compressed: lz4_flex::compress_prepend_size(&serde_json::to_vec(object).unwrap_or_default())
                .into_boxed_slice(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is the one of this name in this namespace.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.namespace.as_deref() == Some(namespace) && *self.name == *name
    }

    /// The platform that it belongs to; `None` when it is not ours.
    pub fn platform(&self) -> Option<&str> {
        self.platform.as_deref()
    }

    /// Whether the text stands anywhere in it; far cheaper than to unpack it.
    pub fn mentions(&self, text: &str) -> bool {
        std::str::from_utf8(&self.json()).is_ok_and(|json| json.contains(text))
    }

    /// The object as JSON.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json()).unwrap_or_default()
    }

    /// The object.
    pub fn object(&self) -> Option<DynamicObject> {
        serde_json::from_slice(&self.json()).ok()
    }

    /// What was compressed here is whole.
    fn json(&self) -> Vec<u8> {
        lz4_flex::decompress_size_prepended(&self.compressed).unwrap_or_default()
    }
}

/// The name of the platform that an object belongs to; `None` when it is not ours.
pub fn platform_of(object: &DynamicObject) -> Option<&str> {
    let label = |name: &str| object.labels().get(name).map(String::as_str);
    let platform = label(names::PLATFORM_LABEL)?;
    (label(names::MANAGED_BY_LABEL) == Some(names::MANAGED_BY)).then_some(platform)
}

impl Lookup for Packed {
    type DynamicType = Kind;

    fn kind(kind: &Kind) -> Cow<'_, str> {
        Cow::Borrowed(kind.as_str())
    }

    fn group(kind: &Kind) -> Cow<'_, str> {
        Cow::Owned(kind.api_resource().group)
    }

    fn version(kind: &Kind) -> Cow<'_, str> {
        Cow::Owned(kind.api_resource().version)
    }

    fn plural(kind: &Kind) -> Cow<'_, str> {
        Cow::Owned(kind.api_resource().plural)
    }

    fn name(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.name))
    }

    fn namespace(&self) -> Option<Cow<'_, str>> {
        self.namespace.as_deref().map(Cow::Borrowed)
    }

    fn resource_version(&self) -> Option<Cow<'_, str>> {
        self.version.as_deref().map(Cow::Borrowed)
    }

    fn uid(&self) -> Option<Cow<'_, str>> {
        self.uid.as_deref().map(Cow::Borrowed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_lost_by_packing() {
        let value = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "acme-api", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "labels": {"app.kubernetes.io/managed-by": "tanka-operator", "tanka.dev/platform": "acme"}},
            "spec": {"ports": [{"port": 80}]}, "status": {"loadBalancer": {}},
        });
        let object: DynamicObject = serde_json::from_value(value.clone()).unwrap();
        let packed = Packed::new(&object);
        assert_eq!(packed.value(), value);
        assert_eq!(packed.platform(), Some("acme"));
        assert!(packed.mentions("loadBalancer") && !packed.mentions("shop.example.com"));
        let reference = packed.to_object_ref(Kind::Service);
        assert_eq!(
            (reference.name.as_str(), reference.namespace.as_deref()),
            ("acme-api", Some("shop"))
        );
    }
}
