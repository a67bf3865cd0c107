//! Alerting rules and dashboards under the real promtool: every rule is read, every case in which one fires or does not is run, and
//! every question of a dashboard is one that Prometheus understands.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::paths::Paths;
use crate::process::Call;

/// The first build on a small machine.
const BUILD_DEADLINE: Duration = Duration::from_mins(30);
/// Reading and running all of it takes seconds.
const DEADLINE: Duration = Duration::from_mins(5);
/// Rule files, and beside each the cases in which its alerts fire or not.
const RULES: [&str; 2] = ["platform", "operator"];

/// Runs everything.
pub async fn run(paths: &Paths) -> Result<()> {
    let promtool = build(paths).await?;
    let folder = paths.repo.join("config/alerts");
    for name in RULES {
        let (rules, tests) = (format!("{name}.yaml"), format!("{name}.test.yaml"));
        let check = |arguments: [&str; 3]| Call::new(&promtool, DEADLINE).args(arguments).dir(&folder).run();
        check(["check", "rules", &rules]).await?;
        check(["test", "rules", &tests]).await?;
    }
    let questions = dashboards(&paths.repo.join("config/dashboards"))?;
    let file = paths.state.join("dashboards.rules.json");
    fs::write(&file, questions.to_string())?;
    Call::new(&promtool, DEADLINE)
        .args(["check", "rules"])
        .arg(&file)
        .run()
        .await
        .context("a dashboard asks what Prometheus does not understand")
}

/// Builds promtool; quick when nothing changed.
async fn build(paths: &Paths) -> Result<PathBuf> {
    let output = Call::new(paths.repo.join("e2e/promtool/build"), BUILD_DEADLINE)
        .env("TANKA_CACHE", &paths.cache)
        .output()
        .await?;
    let path = output
        .lines()
        .last()
        .context("the build of promtool printed no path")?;
    Ok(path.trim().into())
}

/// The questions of all dashboards as one file of recording rules, with Grafana's own variables filled in.
fn dashboards(folder: &Path) -> Result<Value> {
    let mut rules = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))? {
        let path = entry?.path();
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path)?)
            .with_context(|| format!("{} is not JSON", path.display()))?;
        let panels = dashboard["panels"].as_array().into_iter().flatten();
        let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
        for expression in targets.filter_map(|target| target["expr"].as_str()) {
            let expression = expression.replace("$__rate_interval", "1m");
            rules.push(json!({"record": format!("panel:{}", rules.len()), "expr": expression}));
        }
    }
    ensure!(
        rules.len() > 20,
        "the dashboards ask only {} questions",
        rules.len()
    );
    Ok(json!({"groups": [{"name": "dashboards", "rules": rules}]}))
}
