//! PostgreSQL and Redis: where they are, and how they are used.

use std::path::PathBuf;

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// PostgreSQL: every instance, primary and replicas alike. Which one is the primary is found by asking them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Database {
    /// All instances; order does not matter.
    #[garde(length(min = 1, max = 16), dive)]
    pub instances: Vec<Instance>,
    /// Database name, for instances that are given by host.
    #[serde(default = "default_database")]
    #[garde(length(min = 1, max = 63))]
    pub name: String,
    /// Login role, for instances that are given by host.
    #[serde(default = "default_user")]
    #[garde(length(min = 1, max = 63))]
    pub user: String,
    /// File that holds the role's password, for instances that are given by host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub password_file: Option<PathBuf>,
    /// File with the certificate of the authority that signs those of the instances, in PEM. With it connections are encrypted and names
    /// are checked, whatever URLs say. Without it only URLs with `sslmode=verify-full` are, against public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub ca_file: Option<PathBuf>,
    /// Connections of this process, primary and replicas together.
    #[serde(default = "default_pool_size")]
    #[garde(range(min = 2, max = 100))]
    pub pool_size: u32,
    /// How long a request waits for a connection before it is refused with 503.
    #[serde(default = "default_acquire_timeout")]
    #[garde(skip)]
    pub acquire_timeout: Span,
    /// A replica that is further behind than this serves nothing.
    #[serde(default = "default_max_replica_lag")]
    #[garde(skip)]
    pub max_replica_lag: Span,
    /// How long a read with a consistency token waits for a replica before it goes to the primary.
    #[serde(default = "default_read_your_writes_timeout")]
    #[garde(skip)]
    pub read_your_writes_timeout: Span,
    /// Statements that take longer are logged.
    #[serde(default = "default_slow_query_threshold")]
    #[garde(skip)]
    pub slow_query_threshold: Span,
}

/// One PostgreSQL instance: either by `host`, or by a file that holds its connection URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Instance {
    /// Shown in `X-Served-By`, logs and metrics, so it must be unique and from a bounded set.
    #[garde(length(min = 1, max = 63))]
    pub name: String,
    /// DNS name or address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(custom(one_address(self.url_file.as_ref())))]
    pub host: Option<String>,
    /// TCP port.
    #[serde(default = "default_postgres_port")]
    #[garde(skip)]
    pub port: u16,
    /// File that holds a `postgres://` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub url_file: Option<PathBuf>,
}

fn one_address(url_file: Option<&PathBuf>) -> impl FnOnce(&Option<String>, &()) -> garde::Result + '_ {
    move |host, ()| match (host, url_file) {
        (Some(_), None) | (None, Some(_)) => Ok(()),
        _ => Err(garde::Error::new("give either host or urlFile")),
    }
}

/// Redis: by Sentinels, or by a file that holds one URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redis {
    /// Sentinels, each as `host:port`; any one of them is enough to find the primary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[garde(length(max = 9), custom(one_redis(self.url_file.as_ref())))]
    pub sentinels: Vec<String>,
    /// Name under which the Sentinels know the primary.
    #[serde(default = "default_master_name")]
    #[garde(length(min = 1, max = 63))]
    pub master_name: String,
    /// File that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub password_file: Option<PathBuf>,
    /// File that holds a `redis://` URL, or a `rediss://` URL for TLS: of a primary, or of any server of a Redis Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub url_file: Option<PathBuf>,
    /// File with the certificate of the authority that signs Redis' own, in PEM. Without it those of the system are believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(custom(beside_url(self.url_file.as_ref())))]
    pub ca_file: Option<PathBuf>,
}

fn beside_url(url_file: Option<&PathBuf>) -> impl FnOnce(&Option<PathBuf>, &()) -> garde::Result + '_ {
    move |ca_file, ()| {
        if ca_file.is_some() && url_file.is_none() {
            Err(garde::Error::new(
                "goes with urlFile: Sentinels are asked without TLS",
            ))
        } else {
            Ok(())
        }
    }
}

fn one_redis(url_file: Option<&PathBuf>) -> impl FnOnce(&Vec<String>, &()) -> garde::Result + '_ {
    move |sentinels, ()| {
        if sentinels.is_empty() == url_file.is_some() {
            Ok(())
        } else {
            Err(garde::Error::new("give either sentinels or urlFile"))
        }
    }
}

fn default_database() -> String {
    "tanka".to_owned()
}

fn default_user() -> String {
    "tanka_app".to_owned()
}

fn default_master_name() -> String {
    "tanka".to_owned()
}

const fn default_postgres_port() -> u16 {
    5432
}

const fn default_pool_size() -> u32 {
    8
}

const fn default_acquire_timeout() -> Span {
    Span::from_secs(2)
}

const fn default_max_replica_lag() -> Span {
    Span::from_secs(1)
}

const fn default_read_your_writes_timeout() -> Span {
    Span::from_millis(20)
}

const fn default_slow_query_threshold() -> Span {
    Span::from_millis(100)
}
