//! The API server against a real PostgreSQL (a primary and two replicas) and a real Redis with Sentinels.
//! `cargo e2e services run -- cargo test -p api-server` starts them and runs this.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod app;
mod approximate;
mod auth;
mod cache;
mod cache_operation;
mod channels;
mod commands;
mod connections;
mod contract;
mod conversations;
mod edge;
mod events_stream;
mod external;
mod faults;
mod frames;
mod github;
mod ground;
mod indexes;
mod isolation;
mod jobs;
mod large_files;
mod lifecycle;
mod limit_scripts;
mod limits;
mod migrating;
mod named_metrics;
mod objects;
mod outcome;
mod outside;
mod parsers;
mod people;
mod permissions;
mod plans;
mod process;
mod realtime;
mod recovery;
mod redis_cluster;
mod replicas;
mod resources;
mod rolling;
mod search;
mod services;
mod socket;
mod socket_limits;
mod statements;
mod sync_crash;
mod syncs;
mod tenancy;
mod tls;
mod traces;
mod webhooks;
mod workrooms;
