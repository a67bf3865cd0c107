//! Parsed types: what has passed through here needs no second check. No input or output.

pub mod account;
pub mod audit;
pub mod conversation;
pub mod event;
pub mod membership;
pub mod memory;
pub mod page;
pub mod plan;
pub mod principal;
pub mod resource;
pub mod schedule;
pub mod settings;
pub mod sync;
pub mod tariff;
pub mod task;
pub mod token;
pub mod webhook;
pub mod workroom;

/// A value that a person gave and that is not acceptable, in words for that person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unacceptable(pub String);

/// Text of a bounded length without control characters; white space around it does not count.
pub(crate) fn line(text: &str, most: usize) -> Result<String, Unacceptable> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Unacceptable("must not be empty".to_owned()));
    }
    if text.chars().count() > most {
        return Err(Unacceptable(format!("must have at most {most} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(Unacceptable("must not contain control characters".to_owned()));
    }
    Ok(text.to_owned())
}
