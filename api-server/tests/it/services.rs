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
    assert!(try_control(action, service), "services ctl {action} {service}");
}

fn try_control(action: &str, service: &str) -> bool {
    // The program that started them, not through Cargo: it would wait for whoever compiles.
    Command::new(variable("TANKA_TEST_CONTROLLER"))
        .args(["services", "ctl", action, service])
        .status()
        .unwrap()
        .success()
}

/// Keeps tests that disturb services away from all others, also from those in other processes.
pub struct Access {
    alone: bool,
    _file: File,
}

impl Access {
    /// Beside other tests.
    pub async fn shared() -> Self {
        Self::take(false, File::lock_shared).await
    }

    /// Alone.
    pub async fn alone() -> Self {
        Self::take(true, File::lock).await
    }

    async fn take(alone: bool, lock: fn(&File) -> std::io::Result<()>) -> Self {
        let name = format!(
            "tanka-test-services-{}.lock",
            variable("TANKA_TEST_PG_PRIMARY").replace(':', "-")
        );
        let path = std::env::temp_dir().join(name);
        tokio::task::spawn_blocking(move || {
            let file = File::create(path).unwrap();
            lock(&file).unwrap();
            Self { alone, _file: file }
        })
        .await
        .unwrap()
    }
}

impl Drop for Access {
    /// A test that fails in the middle must not leave broken services to the next one.
    fn drop(&mut self) {
        if self.alone && std::thread::panicking() {
            let healed = std::thread::spawn(heal).join();
            eprintln!(
                "services after a failed test: {}",
                if healed.is_ok() { "restored" } else { "broken" }
            );
        }
    }
}

fn heal() {
    for service in [
        "pg-primary",
        "pg-replica-1",
        "pg-replica-2",
        "redis-0",
        "redis-1",
        "redis-2",
        "cluster-0",
    ] {
        // What runs already refuses to be started.
        let _ = try_control("resume", service);
        let _ = try_control("start", service);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for replica in 1..instances().len() {
            let mut connection = crate::app::until_some("a replica is back", async || {
                options("postgres", replica).connect().await.ok()
            })
            .await;
            sqlx::query("SELECT pg_wal_replay_resume()")
                .execute(&mut connection)
                .await
                .unwrap();
        }
    });
}
