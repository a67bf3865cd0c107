//! Rules about the operator itself, and about what only it knows of its platforms.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Alert, Severity, group};

/// What tells platforms apart. Not `namespace`: that is where the operator runs.
const BY: &str = "by (platform_namespace, platform)";
/// How a platform is called in texts.
const WHO: &str = "{{ $labels.platform_namespace }}/{{ $labels.platform }}";

/// All groups.
pub fn groups(runbooks: &str) -> Vec<Value> {
    vec![
        group("tanka-operator", &process(), &BTreeMap::new(), runbooks),
        group("tanka-platforms", &platforms(), &BTreeMap::new(), runbooks),
    ]
}

/// The same for prometheus-operator, with what scrapes the operator.
pub fn manifests(runbooks: &str) -> [Value; 2] {
    let labels = json!({"app.kubernetes.io/name": "tanka-operator", "app.kubernetes.io/part-of": "tanka"});
    [
        json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "tanka-operator", "namespace": "tanka-system", "labels": labels},
            "spec": {"groups": groups(runbooks)},
        }),
        json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PodMonitor",
            "metadata": {"name": "tanka-operator", "namespace": "tanka-system", "labels": labels},
            "spec": {
                "selector": {"matchLabels": {"app.kubernetes.io/name": "tanka-operator"}},
                "podMetricsEndpoints": [{"port": "http", "path": "/metrics", "interval": "15s"}],
            },
        }),
    ]
}

/// All alerts.
pub fn alerts() -> Vec<Alert> {
    let mut alerts = process();
    alerts.extend(platforms());
    alerts
}

fn alert(
    name: &'static str,
    severity: Severity,
    hold: &'static str,
    expr: &str,
    texts: (&str, &str),
) -> Alert {
    Alert {
        name,
        expr: expr.to_owned(),
        hold,
        severity,
        summary: texts.0.to_owned(),
        description: texts.1.to_owned(),
    }
}

/// The process.
#[expect(clippy::too_many_lines, reason = "a list")]
fn process() -> Vec<Alert> {
    vec![
        alert(
            "TankaOperatorDown",
            Severity::Critical,
            "5m",
            "absent(tanka_operator_leader{})",
            (
                "the Tanka operator is gone",
                "Prometheus reaches no operator. Platforms go on and fail over by themselves, but nothing is repaired or changed.",
            ),
        ),
        alert(
            "TankaOperatorWithoutLeader",
            Severity::Critical,
            "2m",
            "sum by (namespace) (tanka_operator_leader{}) == 0",
            (
                "no Tanka operator leads",
                "Operators run in {{ $labels.namespace }}, but none of them holds the Lease.",
            ),
        ),
        alert(
            "TankaOperatorTwoLeaders",
            Severity::Critical,
            "1m",
            "sum by (namespace) (tanka_operator_leader{}) > 1",
            (
                "several Tanka operators lead",
                "{{ $value }} operators in {{ $labels.namespace }} take themselves for the leader.",
            ),
        ),
        alert(
            "TankaReconcileFailing",
            Severity::Warning,
            "10m",
            "sum(increase(tanka_reconcile_failures_total{}[10m])) > 5",
            (
                "the Tanka operator fails at its platforms",
                "{{ $value | humanize }} looks at platforms failed within ten minutes: the Kubernetes API refuses or fails.",
            ),
        ),
        alert(
            "TankaReconcileSlow",
            Severity::Warning,
            "15m",
            "histogram_quantile(0.99, sum by (le) (rate(tanka_reconcile_duration_seconds_bucket{}[10m]))) > 5 and sum(increase(tanka_reconcile_duration_seconds_count{}[10m])) >= 100",
            (
                "the Tanka operator is slow",
                "One look at a platform in a hundred takes longer than {{ $value | humanizeDuration }}.",
            ),
        ),
        alert(
            "TankaOperatorWritesTooMuch",
            Severity::Warning,
            "30m",
            "sum by (kind) (rate(tanka_apiserver_writes_total{}[10m])) > 1",
            (
                "the Tanka operator writes without end",
                "It writes {{ $value | humanize }} times a second objects of kind {{ $labels.kind }}. At rest it writes nothing; somebody undoes what it does.",
            ),
        ),
        alert(
            "TankaFailoverSlow",
            Severity::Warning,
            "0m",
            r#"sum(increase(tanka_postgres_failover_downtime_seconds_count{}[1h])) - sum(increase(tanka_postgres_failover_downtime_seconds_bucket{le=~"30(\\.0)?"}[1h])) > 0.5"#,
            (
                "a PostgreSQL failover took longer than 30 seconds",
                "Within the last hour a platform was without a primary for longer than 30 seconds.",
            ),
        ),
    ]
}

/// Conditions of platforms: whatever the spec asks for, these say whether it is so.
#[expect(clippy::too_many_lines, reason = "a list")]
fn platforms() -> Vec<Alert> {
    let holds = |condition: &str, extra: &str, value: u8| {
        format!(r#"max {BY} (tanka_platform_condition{{condition="{condition}"{extra}}}) == {value}"#)
    };
    let stalled = r#"max by (platform_namespace, platform, reason) (tanka_platform_condition{condition="Stalled"}) == 1"#;
    let about = |name, severity, hold, expr: &str, summary: &str, description: &str| {
        alert(
            name,
            severity,
            hold,
            expr,
            (&format!("{WHO}: {summary}"), description),
        )
    };
    vec![
        about(
            "TankaPlatformNotReady",
            Severity::Critical,
            "5m",
            &holds("Ready", "", 0),
            "the platform does not work",
            "A write, a replica read, a Redis round trip or an API answer fails. The condition Ready names the first thing that is wrong.",
        ),
        about(
            "TankaPlatformStalled",
            Severity::Warning,
            "5m",
            stalled,
            "somebody has to act",
            "The operator cannot go on by itself: {{ $labels.reason }}. The condition Stalled says what to do.",
        ),
        about(
            "TankaPlatformReconciling",
            Severity::Warning,
            "1h",
            &holds("Reconciling", "", 1),
            "the platform does not reach its spec",
            "For an hour something has not been as the spec asks. The condition Reconciling says what.",
        ),
        about(
            "TankaDeepCheckFailing",
            Severity::Critical,
            "2m",
            &holds("Ready", r#",reason="ProbeFailed""#, 0),
            "the API's own check fails",
            "All parts look healthy, but a write, a replica read or a Redis round trip through the API fails.",
        ),
        about(
            "TankaMigrationFailed",
            Severity::Critical,
            "1m",
            &holds("MigrationsApplied", r#",reason="MigrationFailed""#, 0),
            "a migration failed",
            "The schema could not be brought to the new release. The old release goes on serving.",
        ),
        about(
            "TankaRedisWithoutQuorum",
            Severity::Critical,
            "2m",
            &holds("CacheReady", r#",reason="NoQuorum""#, 0),
            "Redis cannot fail over",
            "Too few Sentinels agree: if the primary of Redis is lost now, nobody takes over.",
        ),
        about(
            "TankaCertificateMissing",
            Severity::Warning,
            "15m",
            &holds(
                "IngressReady",
                r#",reason=~"SecretMissing|CertificatePending""#,
                0,
            ),
            "there is no certificate",
            "The certificate of the host does not exist. Clients get the controller's own, which they should not trust.",
        ),
        about(
            "TankaIngressNotReady",
            Severity::Warning,
            "15m",
            &holds("IngressReady", "", 0),
            "clients may not get in",
            "The way in is not as it should be. The condition IngressReady says why.",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_the_operator() {
        insta::assert_yaml_snapshot!(groups(crate::alerts::RUNBOOKS));
    }
}
