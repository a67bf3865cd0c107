//! k6, which speaks to nobody but the server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::catalogue::{Does, Scenario};
use super::summary::Summary;
use crate::tools::Tools;

/// Beyond the time of a scenario: compiling its script, setting up, its last answers.
const SPARE: Duration = Duration::from_mins(3);

/// What plays scenarios.
pub struct Player<'a> {
    /// Where k6 is.
    pub tools: &'a Tools,
    /// Where the scripts are.
    pub scripts: PathBuf,
    /// Where results go, each into a folder with the scenario's name.
    pub results: &'a Path,
    /// Who exists.
    pub people: PathBuf,
    /// Where the API is.
    pub api: String,
}

impl Player<'_> {
    /// Plays one, prints k6's report, and answers its summary. A goal that is missed is in it.
    pub async fn play(&self, name: &str, scenario: &Scenario) -> Result<Summary> {
        let results = self.results.join(name);
        std::fs::create_dir_all(&results)?;
        let call = self.tools.k6(scenario.length() + SPARE).args([
            "run",
            "--quiet",
            "--no-color",
            "--address",
            "127.0.0.1:0",
        ]);
        let call = if scenario.does == Does::Accounts {
            // So few requests that each can be kept.
            let file = results.join("results.json.gz");
            call.arg("--out").arg(format!("json={}", file.display()))
        } else {
            call
        };
        let ran = call
            .env("SCENARIO", name)
            .env("API", &self.api)
            .env("PEOPLE", &self.people)
            .env("RESULTS", &results)
            .arg(self.scripts.join(scenario.does.script()))
            .output()
            .await;
        // A missed threshold is a failure to k6; its summary says which. Without one it has really failed.
        match (Summary::read(&results), ran) {
            (Ok(summary), Ok(report)) => {
                println!("{report}");
                Ok(summary)
            }
            (Ok(summary), Err(missed)) => {
                println!("{missed:#}");
                Ok(summary)
            }
            (Err(_), Err(failed)) => Err(failed),
            (Err(unread), Ok(_)) => Err(unread),
        }
    }
}
