//! The operator: turns a `TankaPlatform` into a running platform, keeps it so, and tells the truth about it.

pub mod alerts;
pub mod args;
pub mod connections;
pub mod health;
pub mod keeper;
pub mod leader;
pub mod metrics;
pub mod planted;
pub mod platform;
pub mod run;
pub mod telemetry;
