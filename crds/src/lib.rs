//! The contract between the operator and everything else: the `TankaPlatform` custom resource, the names and
//! labels of what it makes, and the schema of `tanka.yaml`, which the operator writes and the API server reads.

pub mod conditions;
pub mod config;
pub mod kstatus;
pub mod names;
pub mod platform;
pub mod units;

pub use platform::{TankaPlatform, TankaPlatformSpec, TankaPlatformStatus};
