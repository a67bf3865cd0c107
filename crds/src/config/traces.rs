//! Where traces go.

use garde::Validate;
use serde::{Deserialize, Serialize};

/// Traces over OTLP. Without an address nothing is traced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Traces {
    /// Address of a collector that takes OTLP over http/protobuf, such as `http://collector:4318`; `/v1/traces` is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[garde(inner(length(max = 512)), custom(collector()))]
    pub endpoint: Option<String>,
    /// How many of a hundred requests are traced, unless the caller has decided it.
    #[garde(range(max = 100))]
    pub sample_percent: u32,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample_percent: 100,
        }
    }
}

fn collector() -> impl FnOnce(&Option<String>, &()) -> garde::Result {
    |endpoint, ()| {
        if endpoint
            .as_ref()
            .is_none_or(|endpoint| endpoint.starts_with("http://"))
        {
            Ok(())
        } else {
            Err(garde::Error::new(
                "must begin with http://: spans go to a collector beside the servers",
            ))
        }
    }
}
