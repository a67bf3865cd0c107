//! The Tanka API: accounts, conversations, messages and real-time events, on PostgreSQL with replicas and on Redis.
//! Layers: `http` -> `domain` -> `store` (SQL) / `realtime`; `routing` decides which PostgreSQL instance serves what.

pub mod access;
pub mod admin;
pub mod app;
pub mod args;
pub mod cache;
pub mod check;
pub mod clock;
pub mod command;
pub mod config;
pub mod domain;
pub mod entropy;
pub mod hashing;
pub mod http;
pub mod jobs;
pub mod keys;
pub mod launch;
pub mod lifecycle;
pub mod limits;
pub mod metrics;
pub mod migrate;
pub mod objects;
pub mod outbound;
pub mod realtime;
pub mod redis_link;
pub mod routing;
pub mod run;
pub mod search;
pub mod server;
pub mod store;
pub mod sweep;
pub mod syncs;
pub mod tally;
pub mod telemetry;
pub mod trust;
pub mod webhooks;
