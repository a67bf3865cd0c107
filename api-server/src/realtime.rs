//! Real-time events. The outbox table is the truth; Redis only makes it fast. Every channel's events have positions without
//! gaps, so what is missing is always noticed, and fetched from the table.

pub mod budget;
pub mod connection;
pub mod cursor;
pub mod gather;
pub mod hub;
pub mod listener;
pub mod pace;
pub mod patience;
pub mod protocol;
pub mod queue;
pub mod registry;
pub mod room;
pub mod socket;
pub mod stream;
pub mod subscription;
pub mod wire;

pub use hub::Hub;
pub use registry::Registry;
