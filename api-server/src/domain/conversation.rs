//! Conversations and messages.

use super::{Unacceptable, line};

/// Title of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Title(String);

impl Title {
    /// One line of at most 200 characters.
    pub fn parse(text: &str) -> Result<Self, Unacceptable> {
        line(text, 200).map(Self)
    }

    /// The title.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Text of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content(String);

/// Characters of one message, the same number that the table allows. An event that carries it stays far below
/// the size at which Redis cuts subscribers off.
pub const LONGEST_CONTENT: usize = 32_768;

impl Content {
    /// Any text that is not blank. PostgreSQL cannot store the character NUL.
    pub fn parse(text: &str) -> Result<Self, Unacceptable> {
        if text.trim().is_empty() {
            return Err(Unacceptable("must not be empty".to_owned()));
        }
        if text.chars().count() > LONGEST_CONTENT {
            return Err(Unacceptable(format!(
                "must have at most {LONGEST_CONTENT} characters"
            )));
        }
        if text.contains('\0') {
            return Err(Unacceptable("must not contain the character NUL".to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("line one\nline two", true)]
    #[case("  \n ", false)]
    #[case("nul\0", false)]
    fn content_is_text_with_something_in_it(#[case] text: &str, #[case] good: bool) {
        assert_eq!(Content::parse(text).is_ok(), good);
    }

    #[test]
    fn length_counts_characters() {
        assert!(Content::parse(&"é".repeat(LONGEST_CONTENT)).is_ok());
        assert!(Content::parse(&"é".repeat(LONGEST_CONTENT + 1)).is_err());
        assert!(Title::parse(&"é".repeat(200)).is_ok());
        assert!(Title::parse("a\tb").is_err());
    }
}
