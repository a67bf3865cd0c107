//! Regions of tariffs.

use crate::domain::Unacceptable;

/// A region, such as `DE` or `US-CA`: 1 to 32 letters, digits and hyphens, in capitals.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Region(String);

impl Region {
    /// Any case is accepted.
    pub fn parse(text: &str) -> Result<Self, Unacceptable> {
        let text = text.trim().to_ascii_uppercase();
        let sound =
            (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if sound {
            Ok(Self(text))
        } else {
            Err(Unacceptable(
                "must have 1 to 32 letters, digits and hyphens, such as DE or US-CA".to_owned(),
            ))
        }
    }

    /// The region.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
