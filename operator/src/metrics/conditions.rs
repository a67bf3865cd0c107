//! Conditions of platforms as gauges, read off the watched platforms whenever somebody asks: nothing to keep up to date, and nothing
//! left over from a platform that is gone.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::platform::cache::Guarded;

/// The stores of platforms.
pub struct Conditions(pub Vec<Store<Guarded>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    platform_namespace: String,
    platform: String,
    condition: String,
    reason: String,
}

impl fmt::Debug for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Conditions")
    }
}

impl Collector for Conditions {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let platforms = self.0.iter().flat_map(Store::state);
        let mut series = platforms.flat_map(|platform| gauges(&platform)).peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let help = "1 while a condition of a platform is true, 0 while it is not, with its reason";
        let mut family = encoder.encode_descriptor("platform_condition", help, None, MetricType::Gauge)?;
        for (labels, holds) in series {
            ConstGauge::new(i64::from(holds)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// The gauges of one platform. One that cannot be read has none.
fn gauges(object: &Guarded) -> Vec<(Labels, bool)> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let Ok(platform) = &object.0 else {
        return Vec::new();
    };
    let conditions = platform.status.iter().flat_map(|status| &status.conditions);
    conditions
        .map(
            |Condition {
                 type_,
                 reason,
                 status,
                 ..
             }| {
                let labels = Labels {
                    platform_namespace: namespace.clone(),
                    platform: name.clone(),
                    condition: type_.clone(),
                    reason: reason.clone(),
                };
                (labels, status == "True")
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::metrics::Metrics;
    use crate::platform::fixtures::stored;

    #[test]
    fn conditions_come_and_go_with_their_platform() {
        let mut platform = stored(json!({}));
        platform.status.get_or_insert_default().conditions = vec![Condition {
            type_: "Ready".to_owned(),
            status: "False".to_owned(),
            reason: "NoPrimary".to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        }];
        let guarded = kube::core::DeserializeGuard(Ok(platform));
        let mut writer = reflector::store::Writer::<Guarded>::default();
        let metrics = Metrics::default();
        metrics.watch(vec![writer.as_reader()], Vec::new());
        assert!(!metrics.encode().contains("platform_condition"));
        writer.apply_watcher_event(&Event::Apply(guarded.clone()));
        let line = r#"tanka_platform_condition{platform_namespace="shop",platform="acme",condition="Ready",reason="NoPrimary"} 0"#;
        assert!(metrics.encode().contains(line), "{}", metrics.encode());
        writer.apply_watcher_event(&Event::Delete(guarded));
        assert!(!metrics.encode().contains("platform_condition{"));
    }
}
