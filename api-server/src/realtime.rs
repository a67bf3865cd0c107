//! Real-time events. The outbox table is the truth; Redis only makes it fast. Every channel's events have positions without
//! gaps, so what is missing is always noticed, and fetched from the table.

pub mod hub;
pub mod queue;
pub mod room;
pub mod socket;
pub mod subscription;

pub use hub::Hub;
