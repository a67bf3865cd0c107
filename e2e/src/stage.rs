//! Progress for people: one line a step with its time; on a terminal with a moving display while it runs.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// How long a step took.
#[derive(Debug, Clone, Serialize)]
pub struct Timing {
    /// Its title.
    pub step: String,
    /// Seconds.
    pub seconds: f64,
}

/// Steps, one after the other.
#[derive(Debug)]
pub struct Steps {
    started: Instant,
    timings: Vec<Timing>,
    terminal: bool,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            timings: Vec::new(),
            terminal: std::io::stderr().is_terminal(),
        }
    }
}

impl Steps {
    /// Runs a step and says how long it took. A failure names the step.
    pub async fn run<T>(&mut self, title: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let display = self.terminal.then(|| moving(title));
        if display.is_none() {
            eprintln!("[{:>6.1} s] {title} ...", self.started.elapsed().as_secs_f64());
        }
        let outcome = work.await;
        if let Some(display) = display {
            display.finish_and_clear();
        }
        let took = begun.elapsed();
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        eprintln!(
            "[{:>6.1} s] {title}: {verdict} ({:.1} s)",
            self.started.elapsed().as_secs_f64(),
            took.as_secs_f64()
        );
        self.timings.push(Timing {
            step: title.to_owned(),
            seconds: round(took),
        });
        outcome.with_context(|| format!("the step that failed: {title}"))
    }

    /// Time since the first step.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// All steps so far.
    pub fn timings(&self) -> &[Timing] {
        &self.timings
    }

    /// A table of all steps.
    pub fn table(&self) -> String {
        let width = self
            .timings
            .iter()
            .map(|timing| timing.step.chars().count())
            .max()
            .unwrap_or(0);
        let mut lines: Vec<String> = self
            .timings
            .iter()
            .map(|timing| format!("  {:<width$}  {:>7.1} s", timing.step, timing.seconds))
            .collect();
        lines.push(format!(
            "  {:<width$}  {:>7.1} s",
            "all",
            self.started.elapsed().as_secs_f64()
        ));
        lines.join("\n")
    }
}

fn moving(title: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(title.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// To a tenth of a second: more is noise.
fn round(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_names_its_step() {
        let mut steps = Steps::default();
        let outcome: Result<()> = steps.run("boots", async { anyhow::bail!("no disk") }).await;
        assert!(format!("{:#}", outcome.unwrap_err()).contains("boots: no disk"));
        assert_eq!(steps.timings().len(), 1);
    }
}
