//! Alerting rules: those of a platform, with its own thresholds, and those of the operator itself.
//!
//! A rule of a platform looks only at what that platform's own pods say, so that it also works where a Prometheus sees one namespace
//! alone. What only the operator knows (conditions, Redis' quorum) is in the operator's rules.

pub mod operator;
pub mod platform;

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Where runbooks are, unless the operator is told otherwise.
pub const RUNBOOKS: &str = "https://tanka.dev/docs/runbooks";

/// How soon somebody should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Now: users notice.
    Critical,
    /// Today: users will notice if nothing is done.
    Warning,
    /// Worth knowing.
    Info,
}

impl Severity {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// An alerting rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Its name, also that of its runbook.
    pub name: &'static str,
    /// When it is true, in PromQL.
    pub expr: String,
    /// For how long it must be true.
    pub hold: &'static str,
    /// How soon somebody should look.
    pub severity: Severity,
    /// What is the matter, in one line.
    pub summary: String,
    /// What it means, with the measured value.
    pub description: String,
}

/// A group of rules as Prometheus reads it. `labels` are added to every alert.
pub fn group(name: &str, alerts: &[Alert], labels: &BTreeMap<&str, &str>, runbooks: &str) -> Value {
    let base = runbooks.trim_end_matches('/');
    let rules = alerts.iter().map(|alert| {
        let mut labels: BTreeMap<&str, &str> = labels.clone();
        labels.insert("severity", alert.severity.as_str());
        json!({
            "alert": alert.name,
            "expr": alert.expr,
            "for": alert.hold,
            "labels": labels,
            "annotations": {
                "summary": alert.summary,
                "description": alert.description,
                "runbook_url": format!("{base}/{}.md", alert.name),
            },
        })
    });
    json!({"name": name, "rules": rules.collect::<Vec<_>>()})
}

/// A file of rules, as `promtool check rules` reads it.
///
/// # Errors
/// Never for groups that this module has made.
pub fn file(groups: &[Value]) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(&json!({"groups": groups}))
}

#[cfg(test)]
mod tests;
