//! The scenarios, as `e2e/load/scenarios.json` lists them for k6 and for us.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::paths::Paths;

/// What happens in a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Does {
    /// Signing up, logging in, asking who one is.
    Accounts,
    /// Conversations, memories, search.
    Conversations,
    /// Workrooms and files.
    Workrooms,
    /// Plans and recommendations.
    Plans,
    /// Syncs.
    Syncs,
}

impl Does {
    /// What it is called in a report.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Accounts => "signup, login, who am I",
            Self::Conversations => "conversations, memories, search, messages",
            Self::Workrooms => "workrooms, messages, files",
            Self::Plans => "plans, recommendations, profiles",
            Self::Syncs => "syncs",
        }
    }

    /// The script of k6.
    pub const fn script(self) -> &'static str {
        match self {
            Self::Accounts => "accounts.js",
            Self::Conversations | Self::Workrooms | Self::Plans | Self::Syncs => "users.js",
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stage {
    seconds: u64,
    users: usize,
}

/// Seconds after the beginning.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Away {
    /// The end of it.
    pub from: u64,
    /// The new beginning.
    pub until: u64,
}

/// A scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What happens.
    pub does: Does,
    from: usize,
    stages: Vec<Stage>,
    /// Goals in milliseconds.
    #[serde(default)]
    pub p95: Option<u64>,
    /// As above.
    #[serde(default)]
    pub p99: Option<u64>,
    /// When all members of Redis are killed, and when they start again.
    #[serde(default)]
    pub redis_away: Option<Away>,
}

impl Scenario {
    /// Users at the most.
    pub fn users(&self) -> usize {
        let stages = self.stages.iter().map(|stage| stage.users);
        stages.chain([self.from]).max().unwrap_or_default()
    }

    /// How long it takes.
    pub fn length(&self) -> Duration {
        Duration::from_secs(self.stages.iter().map(|stage| stage.seconds).sum())
    }
}

/// Where the scripts are.
pub fn folder(paths: &Paths) -> std::path::PathBuf {
    paths.repo.join("e2e/load")
}

/// The scenarios of these names, in their order, or all.
pub fn choose(folder: &Path, names: &[String]) -> Result<Vec<(String, Scenario)>> {
    let file = folder.join("scenarios.json");
    let text =
        std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    let mut all: BTreeMap<String, Scenario> =
        serde_json::from_str(&text).with_context(|| format!("{} is not right", file.display()))?;
    if names.is_empty() {
        // The fewest users first: what follows finds a larger database.
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by_key(|(_, scenario)| scenario.users());
        return Ok(all);
    }
    let known = all.keys().cloned().collect::<Vec<_>>().join(", ");
    let mut chosen = Vec::new();
    for name in names {
        let Some(scenario) = all.remove(name) else {
            bail!("there is no scenario {name:?} (or it is named twice); there are {known}")
        };
        chosen.push((name.clone(), scenario));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenarios(names: &[&str]) -> Result<Vec<(String, Scenario)>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("load");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        choose(&folder, &names)
    }

    /// The users and times that are asked for: T10, J36 to J39, C28 to C30, R45.
    #[test]
    fn every_load_that_was_asked_for_is_there() {
        let all = scenarios(&[]).unwrap();
        for (name, users, seconds) in [
            ("smoke", 1, 30),
            ("load", 100, 120),
            ("stress", 500, 180),
            ("spike", 500, 100),
            ("hundred", 100, 60),
            ("thousand", 1_000, 120),
            ("normal", 1_000, 600),
            ("peak", 10_000, 300),
            ("burst", 5_000, 60),
            ("baseline", 1_000, 70),
            ("usual", 5_000, 70),
            ("target", 10_000, 80),
            ("beyond", 15_000, 80),
            ("syncs", 100, 60),
            ("redis", 400, 60),
        ] {
            let (_, scenario) = all.iter().find(|(known, _)| known == name).unwrap();
            assert_eq!(
                (scenario.users(), scenario.length().as_secs()),
                (users, seconds),
                "{name}"
            );
        }
    }

    #[test]
    fn unknown_names_are_refused_with_those_there_are() {
        let error = scenarios(&["nonsense"]).unwrap_err().to_string();
        assert!(
            error.contains("\"nonsense\"") && error.contains("smoke"),
            "{error}"
        );
        assert_eq!(scenarios(&["spike", "load"]).unwrap()[0].0, "spike");
    }
}
