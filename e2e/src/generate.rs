//! `make generate`: files that are made from code and committed: the custom resource's definition, alerting rules, the API's
//! description, and what the SQL statements were checked against.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use sqlx::Connection;
use sqlx::migrate::Migrator;

use crate::paths::Paths;
use crate::process::Call;
use crate::services::Platform;

/// Long enough to compile.
const DEADLINE: Duration = Duration::from_mins(30);

/// A generated file, the binary that prints it, and with what argument.
const GENERATED: [(&str, &str, Option<&str>); 5] = [
    ("crds/generated/tankaplatforms.tanka.dev.yaml", "crdgen", None),
    ("config/alerts/platform.yaml", "rulegen", Some("platform")),
    ("config/alerts/operator.yaml", "rulegen", Some("operator")),
    ("config/monitoring/operator.yaml", "rulegen", Some("manifests")),
    ("api-server/openapi.json", "tanka-api", Some("openapi")),
];

/// Files that are written once and needed in two places: Helm reads only what is in the chart, and Flux takes no symbolic links.
const COPIED: [(&str, &str); 3] = [
    (
        "config/operator/rbac.yaml",
        "charts/tanka-operator/files/rbac.yaml",
    ),
    (GENERATED[0].0, "charts/tanka-operator/files/crds.yaml"),
    (GENERATED[3].0, "charts/tanka-operator/files/monitoring.yaml"),
];

/// Writes the files, or with `check` fails where they differ.
pub async fn run(paths: &Paths, check: bool) -> Result<()> {
    if !check {
        // First what takes no time, for whoever has changed only that.
        copies(&paths.repo, check)?;
        sql_data(paths).await?;
    }
    // The selection that the tests are compiled with, so that nothing is compiled for this alone.
    let compile = Call::new("cargo", DEADLINE).args(["build", "--quiet", "--workspace", "--all-targets"]);
    compile.dir(&paths.repo).run().await?;
    for (file, binary, argument) in GENERATED {
        let text = Call::new(paths.target.join("debug").join(binary), DEADLINE)
            .args(argument)
            .output()
            .await?;
        let path = paths.repo.join(file);
        if check {
            let committed = fs::read_to_string(&path).with_context(|| format!("failed to read {file}"))?;
            ensure!(
                committed == text,
                "{file} is out of date: run `make generate` and commit the result"
            );
        } else {
            fs::write(&path, text).with_context(|| format!("failed to write {file}"))?;
        }
    }
    copies(&paths.repo, check)
}

fn copies(repo: &Path, check: bool) -> Result<()> {
    for (source, copy) in COPIED {
        let text = fs::read(repo.join(source)).with_context(|| format!("failed to read {source}"))?;
        if !check {
            fs::write(repo.join(copy), text).with_context(|| format!("failed to write {copy}"))?;
        } else if fs::read(repo.join(copy)).ok() != Some(text) {
            bail!("{copy} is no copy of {source}: run `make generate`, or copy it, and commit the result");
        }
    }
    Ok(())
}

/// The statements' types, asked of a real PostgreSQL with all migrations applied, while the API server is compiled.
async fn sql_data(paths: &Paths) -> Result<()> {
    let folder = paths.repo.join(".sqlx");
    let platform = Platform::start(paths).await?;
    let outcome = async {
        let url = platform
            .environment()?
            .into_iter()
            .find(|(name, _)| *name == "DATABASE_URL")
            .context("the services gave no DATABASE_URL")?
            .1;
        let mut connection = sqlx::PgConnection::connect(&url).await?;
        Migrator::new(paths.repo.join("api-server/migrations"))
            .await?
            .run(&mut connection)
            .await?;
        // The macros write their data only when they are expanded anew.
        fs::File::options()
            .append(true)
            .open(paths.repo.join("api-server/src/lib.rs"))?
            .set_modified(now())?;
        empty(&folder)?;
        Call::new("cargo", DEADLINE)
            // As in a check of everything, so that dependencies are not compiled with other features.
            .args(["check", "--workspace", "--all-targets"])
            .env("DATABASE_URL", url)
            .env("SQLX_OFFLINE", "false")
            .env("SQLX_OFFLINE_DIR", &folder)
            .dir(&paths.repo)
            .run()
            .await
    };
    let outcome = outcome.await;
    platform.stack.tear_down().await?;
    outcome
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(fs::create_dir_all(folder)?)
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the rim: cargo compares file times with the clock"
)]
fn now() -> SystemTime {
    SystemTime::now()
}
