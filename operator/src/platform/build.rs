//! Objects, one file per kind of object. Builders are pure and total: what they need was validated before.

pub mod api_config;
pub mod api_deployment;
pub mod api_service;
pub mod hpa;
pub mod ingress;
pub mod metadata;
pub mod migration_job;
pub mod network_policies;
pub mod pdb;
pub mod pod;
pub mod postgres_access;
pub mod postgres_patroni;
pub mod postgres_services;
pub mod postgres_statefulset;
pub mod redis_service;
pub mod redis_statefulset;
pub mod secrets;
