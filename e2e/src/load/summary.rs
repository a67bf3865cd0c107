//! What k6 has found in one run of a scenario, and how two runs compare.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Times in milliseconds.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Figures {
    /// Answers.
    pub count: f64,
    /// The mean.
    pub avg: f64,
    /// Half of them came within it.
    pub p50: f64,
    /// 95 of 100.
    pub p95: f64,
    /// 99 of 100.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// `summary.json`.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Summary {
    /// All requests.
    pub all: Figures,
    /// Requests of each kind.
    pub steps: BTreeMap<String, Figures>,
    /// Over the whole run.
    pub requests_per_second: f64,
    /// Times that a script did its part.
    pub iterations: f64,
    /// The share of requests that failed.
    pub error_rate: f64,
    /// Requests that were told when to come again.
    pub refused: f64,
    /// Beginnings that found no free place.
    pub dropped: f64,
    /// Messages that were acknowledged.
    pub acknowledged: f64,
    /// Writes of which nobody knows whether they took place.
    pub unknown: f64,
    /// Own writes that were not seen.
    pub stale: f64,
    /// Thresholds that were not met.
    pub missed: Vec<String>,
}

impl Summary {
    /// Of the folder of a run.
    pub fn read(folder: &Path) -> Result<Self> {
        let file = folder.join("summary.json");
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("k6 left no {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not right", file.display()))
    }

    /// One line.
    pub fn line(&self) -> String {
        let mut line = format!(
            "{:.0} requests/s; p50 {:.1}, p95 {:.1}, p99 {:.1} ms, slowest {:.0}; {} % errors",
            self.requests_per_second,
            self.all.p50,
            self.all.p95,
            self.all.p99,
            self.all.max,
            self.error_rate * 100.0,
        );
        let rest = [
            (self.refused, "told to come again"),
            (self.dropped, "not begun in time"),
            (self.stale, "own writes not seen"),
        ];
        for (count, what) in rest.into_iter().filter(|(count, _)| *count > 0.0) {
            let _ = write!(line, ", {count} {what}");
        }
        line
    }

    /// How this run compares with an earlier one, a line for each kind of request that both have.
    pub fn beside(&self, earlier: &Self) -> String {
        let mut lines = String::new();
        for (step, now) in &self.steps {
            if let Some(then) = earlier.steps.get(step) {
                let ratio = |now: f64, then: f64| format!("{now:.1} ms, {:.2} times {then:.1}", now / then);
                let _ = writeln!(
                    lines,
                    "  {step}: p50 {}; p95 {}; p99 {}",
                    ratio(now.p50, then.p50),
                    ratio(now.p95, then.p95),
                    ratio(now.p99, then.p99),
                );
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(p95: f64) -> Summary {
        let figures = Figures {
            count: 10.0,
            avg: 1.0,
            p50: 1.0,
            p95,
            p99: 9.0,
            max: 9.5,
        };
        Summary {
            all: figures.clone(),
            steps: BTreeMap::from([("login".to_owned(), figures)]),
            requests_per_second: 10.0,
            iterations: 10.0,
            error_rate: 0.0,
            refused: 3.0,
            dropped: 0.0,
            acknowledged: 0.0,
            unknown: 0.0,
            stale: 0.0,
            missed: Vec::new(),
        }
    }

    /// J48.
    #[test]
    fn a_second_run_is_compared_with_the_first() {
        let text = summary(4.0).beside(&summary(8.0));
        assert!(
            text.contains("login") && text.contains("p95 4.0 ms, 0.50 times 8.0"),
            "{text}"
        );
        assert!(summary(4.0).line().ends_with("0 % errors, 3 told to come again"));
    }
}
