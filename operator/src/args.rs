//! Command line and environment.

use std::net::SocketAddr;

use clap::{Args, Parser, ValueEnum};

use crate::platform::grant::Grant;
use crate::platform::validate::Release;

/// Keeps TankaPlatforms.
#[derive(Debug, Clone, Parser)]
#[command(name = "tanka-operator", version)]
pub struct Arguments {
    /// Namespaces to keep platforms in, with a comma between them; all namespaces when absent.
    #[arg(
        long,
        alias = "watch-namespace",
        env = "TANKA_WATCH_NAMESPACES",
        value_delimiter = ','
    )]
    pub watch_namespaces: Vec<String>,
    /// Namespace of the operator, for its Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "tanka-system")]
    pub namespace: String,
    /// Name of this process in the leader election: no other process may have it. Made from the process id when absent.
    #[arg(long, env = "POD_NAME", default_value_t = format!("tanka-operator-{}", std::process::id()))]
    pub identity: String,
    /// ServiceAccount of the operator, for the rights that it gives itself in namespaces that hold a platform.
    #[arg(long, env = "TANKA_SERVICE_ACCOUNT", default_value = "tanka-operator")]
    pub service_account: String,
    /// ClusterRole that it binds there. Absent: the rights are there already.
    #[arg(long, env = "TANKA_PLATFORM_ROLE")]
    pub platform_role: Option<String>,
    /// Address for health and metrics.
    #[arg(long, env = "TANKA_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Platforms that are looked at at the same time.
    #[arg(long, env = "TANKA_CONCURRENCY", default_value_t = 8)]
    pub concurrency: u16,
    /// What is logged, as a tracing filter.
    #[arg(
        long,
        env = "TANKA_LOG",
        default_value = "info,kube=warn,hyper=warn,tower=warn"
    )]
    pub log: String,
    /// Form of log lines.
    #[arg(long, env = "TANKA_LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// Where the runbooks of alerts are: a URL, to which the name of a page is added.
    #[arg(long, env = "TANKA_RUNBOOKS_URL", default_value = crate::alerts::RUNBOOKS)]
    pub runbooks_url: String,
    /// Where traces go, over http/protobuf, such as http://collector.observability.svc:4318; no traces when absent.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Images of the release.
    #[command(flatten)]
    pub images: ImageArguments,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Images of the release.
#[derive(Debug, Clone, Args)]
pub struct ImageArguments {
    /// Image of the API server.
    #[arg(long, env = "TANKA_IMAGE_API_SERVER", default_value = concat!("tanka/api-server:", env!("CARGO_PKG_VERSION")))]
    pub api_server_image: String,
    /// Image of PostgreSQL.
    #[arg(long, env = "TANKA_IMAGE_POSTGRES", default_value = concat!("tanka/postgres:", env!("CARGO_PKG_VERSION")))]
    pub postgres_image: String,
    /// Image of Redis.
    #[arg(long, env = "TANKA_IMAGE_REDIS", default_value = concat!("tanka/redis:", env!("CARGO_PKG_VERSION")))]
    pub redis_image: String,
}

impl Arguments {
    /// The release that this process belongs to.
    pub fn release(&self) -> Release {
        Release {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_server: self.images.api_server_image.clone(),
            postgres: self.images.postgres_image.clone(),
            redis: self.images.redis_image.clone(),
            runbooks: self.runbooks_url.clone(),
        }
    }

    /// The namespaces to keep platforms in; none means all.
    pub fn namespaces(&self) -> Vec<&str> {
        let named = self.watch_namespaces.iter().map(|name| name.trim());
        named.filter(|name| !name.is_empty()).collect()
    }

    /// The role that it gives itself where it works.
    pub fn grant(&self) -> Option<Grant> {
        self.platform_role.clone().map(|role| Grant {
            role,
            account: self.service_account.clone(),
            account_namespace: self.namespace.clone(),
        })
    }
}
