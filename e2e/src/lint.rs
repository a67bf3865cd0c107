//! `make lint`: what is checked without running anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::paths::Paths;
use crate::process::Call;
use crate::stage::Steps;
use crate::suite::shell;

/// Crates that must not enter the graph, and why.
const BANNED: [(&str, &str); 6] = [
    ("openssl", "one TLS stack"),
    ("native-tls", "one TLS stack"),
    ("ring", "one provider of cryptography, aws-lc-rs"),
    ("chrono", "one library for time, jiff"),
    ("serde_yaml", "no longer kept"),
    ("rand_core_06", "superseded"),
];
/// Licences that go with ours.
const LICENCES: [&str; 13] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "0BSD",
    "MIT-0",
];

/// Runs all checks.
pub async fn run(paths: &Paths) -> Result<()> {
    let mut steps = Steps::default();
    steps
        .run(
            "format",
            shell(
                paths,
                "cargo fmt --all --check && test -z \"$(gofmt -l e2e/cluster)\"",
            ),
        )
        .await?;
    steps
        .run(
            "clippy",
            shell(
                paths,
                "cargo clippy --quiet --workspace --all-targets -- -D warnings",
            ),
        )
        .await?;
    steps
        .run("go vet", shell(paths, "cd e2e/cluster && go vet ./..."))
        .await?;
    steps
        .run("banned crates and licences", dependencies(paths))
        .await?;
    steps
        .run("unused dependencies", async { unused(&paths.repo) })
        .await
}

/// What `deny.toml` says, as far as it can be checked without a network.
async fn dependencies(paths: &Paths) -> Result<()> {
    let deadline = std::time::Duration::from_mins(5);
    let text = Call::new("cargo", deadline)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .dir(&paths.repo)
        .output()
        .await?;
    let metadata: Value = serde_json::from_str(&text)?;
    let nodes: BTreeSet<&str> = metadata["resolve"]["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| node["id"].as_str())
        .collect();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        if !package["id"].as_str().is_some_and(|id| nodes.contains(id)) {
            continue;
        }
        let name = package["name"].as_str().unwrap_or_default();
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            wrong.push(format!("{name} is in the graph ({why})"));
        }
        let licence = package["license"].as_str().unwrap_or("none");
        if !allowed(licence) {
            wrong.push(format!("{name} has the licence {licence}"));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!("{}", wrong.join("\n"))
    }
}

/// Whether an SPDX expression can be satisfied with the licences that go with ours.
fn allowed(expression: &str) -> bool {
    let known = |licence: &str| LICENCES.contains(&licence.trim_matches(['(', ')', ' ']));
    expression
        .split(" AND ")
        .all(|part| part.split(" OR ").flat_map(|choice| choice.split('/')).any(known))
}

/// Dependencies that a member declares and none of its sources mentions.
fn unused(repo: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for member in ["crds", "operator", "api-server", "e2e"] {
        let manifest = fs::read_to_string(repo.join(member).join("Cargo.toml"))?;
        let mut sources = String::new();
        read_sources(&repo.join(member), &mut sources)?;
        for name in manifest.lines().filter_map(dependency) {
            if !sources.contains(&name.replace('-', "_")) {
                wrong.push(format!("{member} declares {name} and does not use it"));
            }
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!("{}", wrong.join("\n"))
    }
}

/// The crate that a line of a manifest declares, in the forms that this workspace uses.
fn dependency(line: &str) -> Option<&str> {
    let name = line
        .split_once(".workspace")
        .or_else(|| line.split_once(" = { workspace"))?
        .0;
    let package_field = ["version", "edition", "rust-version", "license", "publish"].contains(&name);
    (!package_field && !name.contains(' ')).then_some(name)
}

fn read_sources(folder: &Path, into: &mut String) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    for entry in entries {
        let path: PathBuf = entry?.path();
        if path.is_dir() {
            read_sources(&path, into)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_weighed() {
        assert!(allowed("MIT OR Apache-2.0"));
        assert!(allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(allowed("MIT/Apache-2.0"));
        assert!(!allowed("GPL-3.0"));
        assert!(!allowed("MIT AND GPL-3.0"));
    }

    #[test]
    fn dependencies_are_read_off_a_manifest() {
        assert_eq!(dependency("anyhow.workspace = true"), Some("anyhow"));
        assert_eq!(
            dependency("kube = { workspace = true, features = [\"cel\"] }"),
            Some("kube")
        );
        assert_eq!(dependency("version.workspace = true"), None);
    }
}
