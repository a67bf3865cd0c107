//! The services that a test finds in its environment, and how it disturbs them.

use std::fs::File;
use std::process::Command;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};

/// A variable of the environment. A test without services fails and says what to run; it is never skipped.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `cargo e2e services run -- cargo test -p api-server`")
    })
}

/// Addresses of all PostgreSQL instances, the primary first.
pub fn instances() -> Vec<(String, u16)> {
    let all = format!(
        "{},{}",
        variable("TANKA_TEST_PG_PRIMARY"),
        variable("TANKA_TEST_PG_REPLICAS")
    );
    all.split(',')
        .map(|address| {
            let (host, port) = address.rsplit_once(':').unwrap();
            (host.to_owned(), port.parse().unwrap())
        })
        .collect()
}

/// How a role connects to an instance.
pub fn options(user: &str, instance: usize) -> PgConnectOptions {
    let password = match user {
        "postgres" => "TANKA_TEST_PG_SUPERUSER_PASSWORD",
        "tanka_owner" => "TANKA_TEST_PG_OWNER_PASSWORD",
        _ => "TANKA_TEST_PG_APP_PASSWORD",
    };
    let (host, port) = &instances()[instance];
    PgConnectOptions::new_without_pgpass()
        .host(host)
        .port(*port)
        .username(user)
        .password(&variable(password))
        .database(&variable("TANKA_TEST_PG_DATABASE"))
}

/// A session of a role.
pub async fn connect(user: &str, instance: usize) -> PgConnection {
    options(user, instance).connect().await.unwrap()
}

/// Acts on a service: `kill`, `start`, `pause`, `resume`, `restart`.
pub fn control(action: &str, service: &str) {
    let status = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--package",
            "e2e",
            "--",
            "services",
            "ctl",
            action,
            service,
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .unwrap();
    assert!(status.success(), "services ctl {action} {service}");
}

/// Keeps tests that disturb services away from all others, also from those in other processes.
pub struct Access {
    _file: File,
}

impl Access {
    /// Beside other tests.
    pub async fn shared() -> Self {
        Self::take(File::lock_shared).await
    }

    /// Alone.
    pub async fn alone() -> Self {
        Self::take(File::lock).await
    }

    async fn take(lock: fn(&File) -> std::io::Result<()>) -> Self {
        let path = std::env::temp_dir().join(format!(
            "tanka-test-services-{}.lock",
            variable("TANKA_TEST_PG_PRIMARY").replace(':', "-")
        ));
        tokio::task::spawn_blocking(move || {
            let file = File::create(path).unwrap();
            lock(&file).unwrap();
            Self { _file: file }
        })
        .await
        .unwrap()
    }
}
