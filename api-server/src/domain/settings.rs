//! What a person prefers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Unacceptable, line};

/// Colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// As the device has it.
    #[default]
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

impl Theme {
    /// The name that is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// Reads a stored name; one of a newer release shows as the default.
    pub fn stored(text: &str) -> Self {
        match text {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::System,
        }
    }
}

/// What a person prefers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Language, as BCP 47 writes it: `en`, `de-CH`.
    pub locale: String,
    /// Time zone, as the IANA database names it: `Europe/Zurich`.
    pub timezone: String,
    /// Colours.
    pub theme: Theme,
    /// Whether mail may be sent.
    pub email_notifications: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            locale: "en".to_owned(),
            timezone: "UTC".to_owned(),
            theme: Theme::System,
            email_notifications: true,
        }
    }
}

/// Reads a language.
pub fn locale(text: &str) -> Result<String, Unacceptable> {
    let text = line(text, 35)?;
    let sound = text.len() >= 2
        && text.split('-').enumerate().all(|(index, part)| {
            let letters = part.bytes().all(|b| b.is_ascii_alphabetic());
            (1..=8).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric())
                && (index > 0 || (letters && part.len() >= 2))
        });
    if sound {
        Ok(text)
    } else {
        Err(Unacceptable(
            "must be a language tag such as en or de-CH".to_owned(),
        ))
    }
}

/// Reads the name of a time zone.
pub fn timezone(text: &str) -> Result<String, Unacceptable> {
    let text = line(text, 64)?;
    let sound = text.split('/').all(|part| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+'))
    });
    if sound {
        Ok(text)
    } else {
        Err(Unacceptable(
            "must be a time zone such as UTC or Europe/Zurich".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("en", true)]
    #[case("de-CH", true)]
    #[case("zh-Hant-TW", true)]
    #[case("e", false)]
    #[case("1n", false)]
    #[case("en-", false)]
    #[case("english language", false)]
    fn languages_are_tags(#[case] text: &str, #[case] good: bool) {
        assert_eq!(locale(text).is_ok(), good);
    }

    #[rstest]
    #[case("UTC", true)]
    #[case("America/Argentina/Buenos_Aires", true)]
    #[case("Etc/GMT+3", true)]
    #[case("../etc/passwd", false)]
    #[case("Europe//Zurich", false)]
    fn time_zones_have_names(#[case] text: &str, #[case] good: bool) {
        assert_eq!(timezone(text).is_ok(), good);
    }
}
