//! What is in the images.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use e2e::{
    images::{self, Name},
    paths::Paths,
    process::Call,
    rootfs,
};

const START_DEADLINE: Duration = Duration::from_mins(1);
/// Of the images that hold our own binaries.
const LARGEST_BYTES: u64 = 25 << 20;

async fn run_inside(root: &Path, user: &str, program: &[&str]) -> Result<String> {
    Call::new("chroot", START_DEADLINE)
        .arg(format!("--userspec={user}"))
        .arg(root)
        .args(program)
        .env(
            "PATH",
            "/usr/lib/postgresql/17/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin",
        )
        .output()
        .await
}

#[tokio::test]
async fn images_hold_programs_that_start() -> Result<()> {
    let paths = Paths::from_environment()?;
    let built = images::build(&paths, &Name::ALL).await?;
    for (name, user, program, says) in [
        (
            Name::Operator,
            "65532:65532",
            ["/usr/local/bin/tanka-operator", "--help"],
            "Usage",
        ),
        (
            Name::ApiServer,
            "65532:65532",
            ["/usr/local/bin/tanka-api", "--help"],
            "Usage",
        ),
        (
            Name::Postgres,
            "101:103",
            ["postgres", "--version"],
            "PostgreSQL) 17",
        ),
        (Name::Postgres, "101:103", ["patroni", "--version"], "patroni 4"),
        (Name::Redis, "999:999", ["redis-server", "--version"], "v=8"),
    ] {
        let root = rootfs::unpack(&paths, name, &built[&name]).await?;
        let said = run_inside(&root.path, user, &program).await?;
        ensure!(
            said.contains(says),
            "{program:?} of {} says {said}",
            name.as_str()
        );
    }
    Ok(())
}

#[tokio::test]
async fn images_of_our_binaries_are_small_and_have_no_shell() -> Result<()> {
    let paths = Paths::from_environment()?;
    for (name, image) in images::build(&paths, &[Name::Operator, Name::ApiServer]).await? {
        ensure!(
            image.compressed_bytes <= LARGEST_BYTES,
            "{} has {} bytes",
            name.as_str(),
            image.compressed_bytes
        );
        let root = rootfs::unpack(&paths, name, &image).await?;
        for shell in ["bin", "usr/bin", "usr/sbin", "sbin"] {
            ensure!(
                !root.path.join(shell).exists(),
                "{} has a folder {shell}",
                name.as_str()
            );
        }
    }
    Ok(())
}

/// What rules and dashboards ask of Patroni is what the Patroni in the image exposes.
#[tokio::test]
async fn patroni_exposes_what_rules_and_dashboards_name() -> Result<()> {
    let paths = Paths::from_environment()?;
    let built = images::build(&paths, &[Name::Postgres]).await?;
    let root = rootfs::unpack(&paths, Name::Postgres, &built[&Name::Postgres]).await?;
    let source = fs::read_to_string(root.path.join("usr/lib/python3/dist-packages/patroni/api.py"))?;
    let mut named = 0;
    for file in ["config/alerts/platform.yaml", "config/dashboards/database.json"] {
        let text = fs::read_to_string(paths.repo.join(file))?;
        for part in text.split("patroni_").skip(1) {
            let rest = part.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).next();
            let line = format!("# TYPE patroni_{} ", rest.unwrap_or_default());
            ensure!(
                source.contains(&line),
                "{file} names {line:?}, which Patroni does not have"
            );
            named += 1;
        }
    }
    ensure!(named > 5, "rules name only {named} metrics of Patroni");
    Ok(())
}

#[tokio::test]
async fn building_again_builds_nothing() -> Result<()> {
    let paths = Paths::from_environment()?;
    let first = images::build(&paths, &[Name::Redis]).await?;
    let modified = first[&Name::Redis]
        .archive
        .with_extension("json")
        .metadata()?
        .modified()?;
    let second = images::build(&paths, &[Name::Redis]).await?;
    assert_eq!(first[&Name::Redis].reference, second[&Name::Redis].reference);
    assert_eq!(
        second[&Name::Redis]
            .archive
            .with_extension("json")
            .metadata()?
            .modified()?,
        modified
    );
    Ok(())
}
