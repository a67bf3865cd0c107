//! Two tiers before PostgreSQL: this process, then Redis. Neither is ever right on its own: every entry belongs to an entity, every
//! entity has a version, a committed write replaces the version, and whatever carries an older one is not served and not stored.
//! The table `cache_invalidations` is the truth about what was replaced; Redis only makes it fast. Nothing here knows SQL or HTTP.

pub mod breaker;
pub mod counts;
pub mod entry;
pub mod flight;
pub mod key;
pub mod kind;
pub mod local;
pub mod news;
pub mod shared;
pub mod stats;
pub mod tiers;
pub mod warm;

pub use key::Key;
pub use kind::{Entity, Kind, Target};
pub use tiers::{Cache, Cached, Found, Source};
