//! The table that a run prints, and the raw output that it keeps.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::steal::Ticks;
use crate::paths::Paths;

/// One figure and what is wanted of it.
#[derive(Debug)]
struct Row {
    what: String,
    found: String,
    goal: String,
    met: Option<bool>,
    /// Hundredths of the processor's time that others had meanwhile.
    stolen: u64,
}

/// Everything that a run has found.
#[derive(Debug)]
pub struct Report {
    folder: PathBuf,
    rows: Vec<Row>,
    raw: Vec<Value>,
    counted: (Instant, Ticks),
    stolen: u64,
}

impl Report {
    /// A report of a benchmark, whose output goes to a folder of this moment, below the state folder, which Git ignores.
    #[expect(
        clippy::disallowed_methods,
        reason = "the rim: a run is named after its moment"
    )]
    pub fn new(paths: &Paths, benchmark: &str, machine: &str) -> Result<Self> {
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let folder = paths.state.join("results").join(benchmark).join(now);
        fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        Ok(Self {
            folder,
            rows: Vec::new(),
            raw: vec![json!({"machine": machine})],
            counted: (Instant::now(), Ticks::read()),
            stolen: 0,
        })
    }

    /// Adds a figure, and prints it.
    pub fn row(&mut self, what: &str, found: &str, goal: &str, met: Option<bool>) {
        println!("{what}: {found}{}", verdict(goal, met));
        let stolen = self.stolen();
        self.rows.push(Row {
            what: what.to_owned(),
            found: found.to_owned(),
            goal: goal.to_owned(),
            met,
            stolen,
        });
        self.raw
            .push(json!({"row": what, "found": found, "goal": goal, "met": met, "stolen_percent": stolen}));
        let _ = self.keep();
    }

    /// What others had since the row before. Several rows can come from one measurement.
    fn stolen(&mut self) -> u64 {
        let (at, before) = self.counted;
        if at.elapsed() > Duration::from_secs(1) {
            let now = Ticks::read();
            self.stolen = now.stolen_since(before);
            self.counted = (Instant::now(), now);
        }
        self.stolen
    }

    /// Where everything is kept.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps something that is in no row.
    pub fn raw(&mut self, value: Value) {
        self.raw.push(value);
    }

    /// Prints the table, and writes it beside the raw output.
    pub fn finish(&self) -> Result<()> {
        println!("\n{}", self.table());
        self.keep()?;
        println!("raw output: {}", self.folder.display());
        Ok(())
    }

    fn keep(&self) -> Result<()> {
        fs::write(self.folder.join("table.md"), self.table())?;
        let lines: Vec<String> = self.raw.iter().map(Value::to_string).collect();
        fs::write(self.folder.join("raw.jsonl"), lines.join("\n") + "\n")?;
        Ok(())
    }

    fn table(&self) -> String {
        let mut table = String::from(
            "| what | found | goal | met | of the processor, others had |\n|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let met = match row.met {
                Some(true) => "yes",
                Some(false) => "no",
                None => "",
            };
            let _ = writeln!(
                table,
                "| {} | {} | {} | {met} | {} % |",
                row.what, row.found, row.goal, row.stolen
            );
        }
        table
    }
}

fn verdict(goal: &str, met: Option<bool>) -> String {
    match met {
        Some(true) => format!(" (goal: {goal}; met)"),
        Some(false) => format!(" (goal: {goal}; NOT met)"),
        None => String::new(),
    }
}
