//! What a campaign came to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::fault::Injection;
use crate::stage::Report;

/// What a campaign came to.
#[derive(Default)]
pub struct Tally {
    /// Runs by workload.
    pub workloads: BTreeMap<&'static str, usize>,
    /// Runs by kind of fault.
    pub kinds: BTreeMap<String, usize>,
    /// Runs in which the fault found nothing to strike.
    pub missed: Vec<String>,
    /// What failed: workload, kind of fault, and what was wrong.
    pub failures: Vec<(&'static str, String, String)>,
    /// How long each run took from the beginning of the workload to its end.
    pub times: Vec<Duration>,
    /// How long all took.
    pub took: Duration,
}

impl Tally {
    /// Takes in a run.
    pub fn add(&mut self, workload: &'static str, injection: &Injection, report: Result<Report, String>) {
        *self.workloads.entry(workload).or_default() += 1;
        *self.kinds.entry(injection.kind()).or_default() += 1;
        let failures = match report {
            Ok(report) => {
                if !report.fired && !matches!(injection, Injection::Probe(_)) {
                    self.missed.push(format!("{workload}: {injection}"));
                }
                self.times.push(report.took);
                report.failures
            }
            Err(failure) => vec![failure],
        };
        if !failures.is_empty() {
            let what = format!("{injection}\n    {}", failures.join("\n    "));
            println!("FAILED {workload}: {what}");
            self.failures.push((workload, injection.kind(), what));
        }
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let failed = |check: &dyn Fn(&(&'static str, String, String)) -> bool| {
            self.failures.iter().filter(|failure| check(failure)).count()
        };
        let _ = writeln!(text, "\n{:<36} {:>6} {:>7}", "workload", "runs", "failed");
        for (name, count) in &self.workloads {
            let _ = writeln!(
                text,
                "{name:<36} {count:>6} {:>7}",
                failed(&|failure| failure.0 == *name)
            );
        }
        let _ = writeln!(text, "\n{:<36} {:>6} {:>7}", "fault", "runs", "failed");
        for (kind, count) in &self.kinds {
            let _ = writeln!(
                text,
                "{kind:<36} {count:>6} {:>7}",
                failed(&|failure| failure.1 == *kind)
            );
        }
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "an index"
            )]
            let index = ((times.len() as f64 - 1.0) * share).max(0.0) as usize;
            times.get(index).copied().unwrap_or_default().as_secs_f64()
        };
        let runs: usize = self.workloads.values().sum();
        let _ = writeln!(
            text,
            "\n{runs} runs in {:.0} s, {} failed; {} faults found nothing to strike\nfrom the change to its end: p50 {:.1} s, p99 {:.1} s, longest {:.1} s",
            self.took.as_secs_f64(),
            self.failures.len(),
            self.missed.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
        text
    }
}
