//! `make lint`: what is checked without running anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::paths::Paths;
use crate::process::Call;
use crate::stage::Steps;
use crate::suite::shell;

/// With the flags of the build, so that Kubernetes is not compiled a second time.
const GO_VET: &str = "cd e2e/cluster && CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false' go vet ./internal/... ./cmd/tanka-cluster ./cmd/node-agent";
/// Long enough to read the whole graph.
const TREE_DEADLINE: Duration = Duration::from_mins(5);

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
    steps.run("go vet", shell(paths, GO_VET)).await?;
    steps
        .run("banned crates and licences", dependencies(paths))
        .await?;
    steps
        .run("unused dependencies", async { unused(&paths.repo) })
        .await
}

/// The parts of `deny.toml` that can be checked without a network.
#[derive(Debug, Deserialize)]
struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Named>,
    skip: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    reason: String,
}

async fn dependencies(paths: &Paths) -> Result<()> {
    let rules: Rules = toml::from_str(&fs::read_to_string(paths.repo.join("deny.toml"))?)
        .context("failed to read deny.toml")?;
    // What is built for production: the graph of tests has its own, and `cargo metadata` counts features that nobody has switched on.
    let graph = Call::new("cargo", TREE_DEADLINE)
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}|{l}",
        ])
        .dir(&paths.repo)
        .output()
        .await?;
    let wrong = violations(&rules, &graph);
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!("{}", wrong.into_iter().collect::<Vec<_>>().join("\n"))
    }
}

/// What in the graph breaks the rules. Each line is `name vVERSION …|LICENCE`.
fn violations(rules: &Rules, graph: &str) -> BTreeSet<String> {
    let mut wrong = BTreeSet::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (package, licence) in graph.lines().filter_map(|line| line.split_once('|')) {
        let mut words = package.split_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            continue;
        };
        versions.entry(name).or_default().insert(version);
        if let Some(banned) = rules.bans.deny.iter().find(|banned| banned.name == name) {
            wrong.insert(format!("{name} is in the graph: {}", banned.reason));
        }
        let licence = licence.trim_end_matches(" (*)");
        if !allowed(&rules.licenses.allow, licence) {
            wrong.insert(format!("{name} has the licence {licence:?}"));
        }
    }
    let skipped = |name: &str| rules.bans.skip.iter().any(|skipped| skipped.name == name);
    let twice = versions
        .into_iter()
        .filter(|(name, found)| found.len() > 1 && !skipped(name));
    wrong.extend(twice.map(|(name, found)| format!("{name} is in the graph more than once: {found:?}")));
    wrong
}

/// Whether an SPDX expression can be satisfied with what is allowed.
fn allowed(licences: &BTreeSet<String>, expression: &str) -> bool {
    let known = |licence: &str| licences.contains(licence.trim_matches(['(', ')', ' ']));
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
        bail!("{}", wrong.into_iter().collect::<Vec<_>>().join("\n"))
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
        let licences = ["MIT", "Apache-2.0", "Unicode-3.0"].map(str::to_owned).into();
        assert!(allowed(&licences, "MIT OR GPL-3.0"));
        assert!(allowed(&licences, "(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(allowed(&licences, "MIT/Apache-2.0"));
        assert!(!allowed(&licences, "GPL-3.0"));
        assert!(!allowed(&licences, "MIT AND GPL-3.0"));
    }

    #[test]
    fn what_breaks_the_rules_is_named() {
        let rules: Rules = toml::from_str(
            "[licenses]\nallow = [\"MIT\"]\n[bans]\ndeny = [{name = \"ring\", reason = \"one provider\"}]\nskip = [{name = \"syn\", reason = \"majors\"}]",
        )
        .unwrap();
        let graph = "ring v1|MIT\nsyn v1|MIT\nsyn v2|MIT (*)\nrand v1|MIT\nrand v2|MIT\nodd v1|GPL-3.0";
        let wrong = violations(&rules, graph);
        assert_eq!(wrong.len(), 3, "{wrong:?}");
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
