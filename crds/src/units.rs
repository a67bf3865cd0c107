//! Durations (`250ms`, `1m30s`, `30d`) and sizes (`64Mi`) as people write them in YAML.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is neither a duration nor a size of the accepted form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a sum of whole numbers with a unit each.
    #[error("`{0}` is not a duration: write whole numbers with a unit, such as 250ms, 30s, 5m, 1h30m or 30d")]
    Duration(String),
    /// Not a whole number with an optional binary unit.
    #[error("`{0}` is not a size: write a whole number of bytes or one with Ki, Mi, Gi or Ti, such as 64Mi")]
    Size(String),
}

/// A span of time, written as `250ms`, `30s`, `15m`, `1h30m` or `30d`. Resolution: one millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Span {
    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// A span of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The same span for the standard library and tokio.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// Whole seconds, rounded up, so that a derived Kubernetes field never undercuts the span.
    pub fn ceil_seconds(self) -> i64 {
        i64::try_from(self.0.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let invalid = || UnitError::Duration(text.to_owned());
        let mut rest = text;
        let mut millis: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
            let (number, tail) = rest.split_at(digits);
            let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, next) = tail.split_at(unit_len);
            let scale = DURATION_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(invalid)?
                .1;
            let number: u64 = number.parse().map_err(|_| invalid())?;
            millis = number
                .checked_mul(scale)
                .and_then(|part| millis.checked_add(part))
                .ok_or_else(invalid)?;
            rest = next;
        }
        if text.is_empty() {
            Err(invalid())
        } else {
            Ok(Self::from_millis(millis))
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in DURATION_UNITS {
            if rest >= scale {
                write!(f, "{}{unit}", rest / scale)?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

/// A number of bytes, written as `1048576`, `128Ki`, `64Mi` or `10Gi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

const SIZE_UNITS: [(&str, u64); 4] = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];

impl Size {
    /// A size in whole mebibytes.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// A size in whole kibibytes.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// Bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let invalid = || UnitError::Size(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale = match unit {
            "" => 1,
            _ => {
                SIZE_UNITS
                    .iter()
                    .find(|(name, _)| *name == unit)
                    .ok_or_else(invalid)?
                    .1
            }
        };
        let number: u64 = number.parse().map_err(|_| invalid())?;
        number.checked_mul(scale).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZE_UNITS
            .iter()
            .find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale))
        {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Serialises through `Display`, reads through `FromStr`, and describes itself by a pattern.
macro_rules! textual {
    ($type:ty, $name:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern, "maxLength": 32})
            }
        }
    };
}

textual!(Span, "Span", "^([0-9]{1,9}(ms|s|m|h|d))+$");
textual!(Size, "Size", "^[0-9]{1,15}(Ki|Mi|Gi|Ti)?$");

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("250ms", 250, "250ms")]
    #[case("1m30s", 90_000, "1m30s")]
    #[case("90s", 90_000, "1m30s")]
    #[case("30d", 2_592_000_000, "30d")]
    #[case("0s", 0, "0s")]
    fn durations_are_read_and_written(#[case] text: &str, #[case] millis: u64, #[case] canonical: &str) {
        let span: Span = text.parse().unwrap();
        assert_eq!(span, Span::from_millis(millis));
        assert_eq!(span.to_string(), canonical);
    }

    #[rstest]
    #[case("")]
    #[case("5")]
    #[case("s")]
    #[case("1.5s")]
    #[case("-1s")]
    #[case("1w")]
    #[case("99999999999999999999d")]
    fn what_is_no_duration_is_refused(#[case] text: &str) {
        assert_eq!(text.parse::<Span>(), Err(UnitError::Duration(text.to_owned())));
    }

    #[rstest]
    #[case("64Mi", 64 << 20, "64Mi")]
    #[case("1024Ki", 1 << 20, "1Mi")]
    #[case("1500", 1_500, "1500")]
    fn sizes_are_read_and_written(#[case] text: &str, #[case] bytes: u64, #[case] canonical: &str) {
        let size: Size = text.parse().unwrap();
        assert_eq!(size.bytes(), bytes);
        assert_eq!(size.to_string(), canonical);
    }

    #[rstest]
    #[case("")]
    #[case("Mi")]
    #[case("64MB")]
    #[case("64 Mi")]
    #[case("99999999999999999Ti")]
    fn what_is_no_size_is_refused(#[case] text: &str) {
        assert_eq!(text.parse::<Size>(), Err(UnitError::Size(text.to_owned())));
    }
}
