//! Objects, one file per kind of object. Builders are pure and total: what they need was validated before.

pub mod alerts;
pub mod api_config;
pub mod api_deployment;
pub mod api_service;
pub mod dashboards;
pub mod hpa;
pub mod http_route;
pub mod ingress;
pub mod metadata;
pub mod migration_job;
pub mod monitoring;
pub mod network_policies;
pub mod pdb;
pub mod pod;
pub mod pod_monitors;
pub mod postgres_access;
pub mod postgres_patroni;
pub mod postgres_services;
pub mod postgres_statefulset;
pub mod redis_service;
pub mod redis_statefulset;
pub mod secrets;
pub mod service_account;
