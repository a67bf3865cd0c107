//! Memories: typed notes of a person, and how they are looked for.

use super::conversation::LONGEST_CONTENT;
use super::{Unacceptable, line};

/// Characters of a question.
const LONGEST_QUESTION: usize = 1_000;
/// Words of a question that count; more make it slower, not better.
const MOST_WORDS: usize = 24;
/// Memories that one search answers at most.
pub const MOST_FOUND: u16 = 100;
/// Memories that it answers when nobody says.
pub const DEFAULT_FOUND: u16 = 10;

/// What kind of note it is; a word of the client's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryType(String);

impl MemoryType {
    /// One line of at most 50 characters.
    pub fn parse(text: &str) -> Result<Self, Unacceptable> {
        line(text, 50).map(Self)
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for MemoryType {
    fn default() -> Self {
        Self("note".to_owned())
    }
}

/// Text of a memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note(String);

impl Note {
    /// Any text that is not blank, within what the table allows.
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

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    text: String,
}

impl Question {
    /// Any text with something in it.
    pub fn parse(text: &str) -> Result<Self, Unacceptable> {
        let text = text.replace(char::is_control, " ");
        let text = line(&text, LONGEST_QUESTION)?;
        Ok(Self { text })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its words as a `tsquery`, each also as the beginning of a longer one: `project` finds `projects`. Empty if it has none. What is
    /// no letter or digit separates words, so nothing of the question has a meaning in the query's syntax.
    pub fn any_word(&self) -> String {
        let lower = self.text.to_lowercase();
        let words = lower
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .take(MOST_WORDS)
            .map(|word| format!("'{word}':*"));
        words.collect::<Vec<_>>().join(" | ")
    }
}

/// How many memories a search answers.
pub fn found_limit(limit: Option<u16>) -> Result<u16, Unacceptable> {
    let limit = limit.unwrap_or(DEFAULT_FOUND);
    if (1..=MOST_FOUND).contains(&limit) {
        Ok(limit)
    } else {
        Err(Unacceptable(format!("must be between 1 and {MOST_FOUND}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_become_prefixes() {
        let question = Question::parse("  What's the Project-Plan?  ").unwrap();
        assert_eq!(
            question.any_word(),
            "'what':* | 's':* | 'the':* | 'project':* | 'plan':*"
        );
        assert_eq!(Question::parse("?!").unwrap().any_word(), "");
        assert!(Question::parse(" \n ").is_err());
    }

    proptest! {
        #[test]
        fn no_question_escapes_its_quotes(text in "\\PC{1,80}") {
            if let Ok(question) = Question::parse(&text) {
                for word in question.any_word().split(" | ").filter(|word| !word.is_empty()) {
                    let inner = word.strip_prefix('\'').unwrap().strip_suffix("':*").unwrap();
                    prop_assert!(inner.chars().all(char::is_alphanumeric), "{word}");
                }
            }
        }
    }
}
