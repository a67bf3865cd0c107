//! Whose token this is, without asking the database each time, and never longer than a second after that changed.

pub mod cache;
pub mod watch;

pub use cache::Tokens;
