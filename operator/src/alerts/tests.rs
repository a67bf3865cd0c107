use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::alerts;
use crate::metrics::{Cause, Metrics};
use crate::platform::build::dashboards::COMMITTED;
use crate::platform::fixtures::platform;
use crate::platform::object::Kind;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap()
}

fn names() -> BTreeSet<String> {
    let of_platform = alerts::platform::alerts(&platform(serde_json::json!({})));
    let all = of_platform.into_iter().chain(alerts::operator::alerts());
    all.map(|alert| alert.name.to_owned()).collect()
}

#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let pages: BTreeSet<String> = fs::read_dir(repository().join("docs/runbooks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|page| page != "README.md")
        .map(|page| page.trim_end_matches(".md").to_owned())
        .collect();
    assert_eq!(pages, names());
    for name in names() {
        let page = read(&format!("docs/runbooks/{name}.md"));
        for part in [
            &format!("# {name}\n"),
            "## Meaning",
            "## Impact",
            "## Diagnosis",
            "## Remedy",
        ] {
            assert!(page.contains(part), "{name} lacks {part:?}");
        }
    }
}

/// T14: each alert is seen to fire, and to be silent where it should be. The tests themselves are run by promtool.
#[test]
fn every_alert_is_tested_both_ways() {
    let text = format!(
        "{}{}",
        read("config/alerts/platform.test.yaml"),
        read("config/alerts/operator.test.yaml")
    );
    for name in names() {
        let cases: Vec<&str> = text
            .split("  - name: ")
            .filter(|case| case.contains(&format!("ALERTS{{alertname=\"{name}\"")))
            .collect();
        let fires = cases.iter().any(|case| case.contains("exp_samples: [{"));
        let silent = cases.iter().any(|case| case.contains("exp_samples: []"));
        assert!(fires && silent, "{name}: fires {fires}, silent {silent}");
    }
}

/// Names of metrics in PromQL: whatever stands before a brace.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let ends = text.match_indices('{').map(|(end, _)| &text[..end]);
    ends.map(|before| {
        let start = before
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .map_or(0, |at| at + 1);
        before[start..].to_owned()
    })
    .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
    .collect()
}

fn committed() -> String {
    let mut text = [
        "config/alerts/platform.yaml",
        "config/alerts/operator.yaml",
        "config/dashboards/operator.json",
    ]
    .map(read)
    .join("\n");
    for (_, dashboard) in COMMITTED {
        text.push_str(dashboard);
    }
    text
}

/// Every metric belongs to a component whose own test shows that it is there: the API's in its integration tests, Patroni's in the
/// tests of the images, ours here.
#[test]
fn rules_and_dashboards_name_only_metrics_that_exist() {
    let metrics = Metrics::default();
    metrics.write(Kind::Ingress, Cause::Differs);
    metrics.failover(1);
    drop(metrics.reconcile());
    let exposed = metrics.encode();
    let ours = [
        "tanka_operator_",
        "tanka_reconcile_",
        "tanka_apiserver_writes",
        "tanka_postgres_failover",
    ];
    for name in metrics_in(&committed()) {
        if ours.iter().any(|prefix| name.starts_with(prefix)) {
            let is_there = exposed
                .lines()
                .any(|line| line.split(['{', ' ']).next() == Some(&name));
            assert!(is_there, "{name} is not exposed by the operator");
        } else {
            let others = ["http_request", "tanka_", "patroni_"];
            let known = name == "up" || others.iter().any(|prefix| name.starts_with(prefix));
            assert!(known, "nobody exposes {name}");
        }
    }
}

/// F25: shares and rates are made of counters by whoever asks; no gauge holds a percentage.
#[test]
fn no_metric_is_a_percentage() {
    for name in metrics_in(&committed()) {
        assert!(!name.contains("percent") && !name.ends_with("_ratio"), "{name}");
    }
}

#[test]
fn dashboards_can_be_read_and_every_panel_asks_something() {
    let operator = read("config/dashboards/operator.json");
    let all = COMMITTED.iter().map(|(name, text)| (*name, (*text).to_owned()));
    for (name, text) in all.chain([("operator", operator)]) {
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        assert!(!panels.is_empty(), "{name}");
        for panel in panels {
            let targets = panel["targets"].as_array().unwrap();
            assert!(
                targets.iter().all(|target| target["expr"].is_string()),
                "{name}: {}",
                panel["title"]
            );
        }
    }
}
