//! `make dev`: the API alone, on a real PostgreSQL with replicas and Redis with Sentinels on loopback, for people who work on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::signal::ctrl_c;

use crate::paths::Paths;
use crate::process::Call;
use crate::services::Platform;

/// Long enough to compile everything.
const COMPILE_DEADLINE: Duration = Duration::from_mins(30);
/// Long enough for all migrations.
const MIGRATE_DEADLINE: Duration = Duration::from_mins(2);

/// Runs until it is interrupted; then everything is gone.
pub async fn run(paths: &Paths) -> Result<()> {
    Call::new("cargo", COMPILE_DEADLINE)
        .args(["build", "-p", "api-server", "--bins"])
        .dir(&paths.repo)
        .run()
        .await?;
    let program = paths.target.join("debug/tanka-api");
    let platform = Platform::start(paths).await?;
    let outcome = serve(&Folder::new(paths, platform.environment()?)?, &program).await;
    platform.stack.tear_down().await?;
    outcome
}

async fn serve(folder: &Folder, program: &PathBuf) -> Result<()> {
    folder.migrate(program).await?;
    let config = folder.config(&json!({}))?;
    let pepper = folder.pepper()?;
    eprintln!(
        "the API is at http://127.0.0.1:8000, its metrics and checks at http://127.0.0.1:9000; Ctrl-C ends it"
    );
    eprintln!("edit {} to see it reloaded", config.display());
    let mut child = Command::new(program)
        .args([
            "--log-format",
            "text",
            "serve",
            "--listen",
            "127.0.0.1:8000",
            "--ops-listen",
            "127.0.0.1:9000",
            "--config",
        ])
        .arg(&config)
        .arg("--pepper-file")
        .arg(&pepper)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("failed to start the API")?;
    tokio::select! {
        status = child.wait() => {
            let status = status?;
            ensure!(status.success(), "the API ended: {status}");
        }
        _ = ctrl_c() => {
            // The terminal has interrupted the API too; it drains.
            child.wait().await?;
        }
    }
    Ok(())
}

/// Files of a server on services of loopback.
pub struct Folder {
    path: PathBuf,
    variables: BTreeMap<&'static str, String>,
}

impl Folder {
    /// A folder for what the services say of themselves.
    pub fn new(paths: &Paths, variables: Vec<(&'static str, String)>) -> Result<Self> {
        let path = paths.state.join("dev");
        std::fs::create_dir_all(&path).with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Self {
            path,
            variables: variables.into_iter().collect(),
        })
    }

    fn variable(&self, name: &str) -> Result<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .with_context(|| format!("the services gave no {name}"))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path)
    }

    /// Makes the tables.
    pub async fn migrate(&self, program: &Path) -> Result<()> {
        let primary = self.variable("TANKA_TEST_PG_PRIMARY")?;
        let (host, port) = primary.split_once(':').context("the primary has no port")?;
        let password = self.write("owner-password", self.variable("TANKA_TEST_PG_OWNER_PASSWORD")?)?;
        Call::new(program, MIGRATE_DEADLINE)
            .args(["migrate", "--host", host, "--port", port, "--password-file"])
            .arg(&password)
            .run()
            .await
    }

    /// The file of a pepper. Any will do where all data ends with the process.
    pub fn pepper(&self) -> Result<PathBuf> {
        self.write("pepper", "a pepper for development, which is not a secret at all")
    }

    /// `tanka.yaml` with the addresses of the services and other sections; JSON is YAML.
    pub fn config(&self, sections: &Value) -> Result<PathBuf> {
        let replicas = self.variable("TANKA_TEST_PG_REPLICAS")?.split(',');
        let instances: Vec<Value> = std::iter::once(self.variable("TANKA_TEST_PG_PRIMARY")?)
            .chain(replicas)
            .enumerate()
            .filter_map(|(index, address)| {
                let (host, port) = address.split_once(':')?;
                Some(json!({"name": format!("postgres-{index}"), "host": host, "port": port.parse::<u16>().ok()?}))
            })
            .collect();
        let sentinels: Vec<_> = self.variable("TANKA_TEST_REDIS_SENTINELS")?.split(',').collect();
        let mut config = json!({
            "database": {
                "instances": instances,
                "passwordFile": self.write("app-password", self.variable("TANKA_TEST_PG_APP_PASSWORD")?)?,
            },
            "redis": {
                "sentinels": sentinels,
                "passwordFile": self.write("redis-password", self.variable("TANKA_TEST_REDIS_PASSWORD")?)?,
            },
        });
        for (name, section) in sections.as_object().into_iter().flatten() {
            config[name] = section.clone();
        }
        self.write("tanka.yaml", &format!("{config:#}\n"))
    }
}
