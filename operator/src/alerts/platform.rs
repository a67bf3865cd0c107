//! Rules of one platform, with the thresholds of its spec.

use std::collections::BTreeMap;

use crds::names::Component;
use serde_json::Value;

use super::{Alert, Severity, group};
use crate::platform::validate::{Database, Platform};

/// Fewest requests in five minutes of which a share or a percentile says anything.
const ENOUGH: u32 = 100;

/// Fewest lookups in a quarter of an hour of which the cache's hit rate says anything.
const ENOUGH_LOOKUPS: u32 = 1_000;

/// All groups of a platform.
pub fn groups(platform: &Platform) -> Vec<Value> {
    let labels = BTreeMap::from([
        ("namespace", platform.namespace.as_str()),
        ("platform", platform.name.as_str()),
    ]);
    vec![group(
        "tanka-alerts",
        &alerts(platform),
        &labels,
        &platform.runbooks,
    )]
}

/// All alerts of a platform.
pub fn alerts(platform: &Platform) -> Vec<Alert> {
    let rules = Rules::new(platform);
    let mut alerts = rules.requests();
    alerts.extend(rules.capacity());
    alerts.extend(rules.database());
    alerts.extend(rules.connections());
    if let Database::Managed(postgres) = &platform.database {
        alerts.extend(rules.patroni(postgres.instances));
    }
    alerts.extend(rules.redis());
    alerts.push(rules.cache());
    alerts
}

struct Rules<'a> {
    platform: &'a Platform,
    /// What every selector begins with.
    of: String,
}

impl<'a> Rules<'a> {
    fn new(platform: &'a Platform) -> Self {
        let of = format!(
            r#"namespace="{}",platform="{}""#,
            platform.namespace, platform.name
        );
        Self { platform, of }
    }

    fn alert(
        &self,
        name: &'static str,
        severity: Severity,
        hold: &'static str,
        expr: String,
        texts: (&str, &str),
    ) -> Alert {
        let Platform {
            namespace,
            name: platform,
            ..
        } = self.platform;
        Alert {
            name,
            expr,
            hold,
            severity,
            summary: format!("{namespace}/{platform}: {}", texts.0),
            description: texts.1.to_owned(),
        }
    }

    /// What clients notice: latency, errors, absence.
    fn requests(&self) -> Vec<Alert> {
        let of = &self.of;
        let thresholds = &self.platform.spec.monitoring.alerts.thresholds;
        let enough = format!("sum(increase(http_requests_total{{{of}}}[5m])) >= {ENOUGH}");
        let slow = thresholds.latency_p99.get().as_secs_f64();
        let errors = &thresholds.error_ratio;
        vec![
            self.alert(
                "HighLatency",
                Severity::Warning,
                "5m",
                // A password takes as long as its hash is meant to take.
                format!(
                    r#"histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket{{{of},endpoint!="/api/v1/auth/login"}}[5m]))) > {slow} and {enough}"#
                ),
                (
                    "one request in a hundred is slow",
                    "The 99th percentile of the response time over five minutes is {{ $value | humanizeDuration }}.",
                ),
            ),
            self.alert(
                "HighErrorRate",
                Severity::Critical,
                "5m",
                format!(
                    r#"sum(rate(http_requests_total{{{of},status=~"5.."}}[5m])) / sum(rate(http_requests_total{{{of}}}[5m])) > {errors} and {enough}"#
                ),
                (
                    "requests fail",
                    "{{ $value | humanizePercentage }} of the requests of the last five minutes were answered with a server error.",
                ),
            ),
            self.alert(
                "ApiDown",
                Severity::Critical,
                "2m",
                format!(r#"(sum(up{{{of},component="api"}}) or vector(0)) == 0"#),
                ("no API pod answers", "Prometheus reaches no API pod of the platform, or does not know of any."),
            ),
            self.alert(
                "ConfigRefused",
                Severity::Warning,
                "5m",
                format!("min(tanka_config_last_reload_successful{{{of}}}) == 0"),
                (
                    "the API goes on with an old configuration",
                    "At least one API pod has refused its configuration file and keeps the one before.",
                ),
            ),
        ]
    }

    /// What is about to run out.
    fn capacity(&self) -> Vec<Alert> {
        let of = &self.of;
        let api = &self.platform.spec.api;
        let sockets = api.websocket.max_connections;
        let mut alerts = vec![
            self.alert(
                "LoginsRefused",
                Severity::Warning,
                "5m",
                format!("sum(rate(tanka_password_hashing_shed_total{{{of}}}[5m])) > 0.1"),
                (
                    "people cannot log in because too many try at once",
                    "{{ $value | humanize }} logins a second are refused because password hashing is saturated.",
                ),
            ),
            self.alert(
                "ConnectionsRefused",
                Severity::Critical,
                "2m",
                format!("sum(rate(tanka_http_connections_refused_total{{{of}}}[5m])) > 0"),
                (
                    "the API refuses connections",
                    "{{ $value | humanize }} connections a second are refused because an API pod has as many as it may have.",
                ),
            ),
            self.alert(
                "WebSocketsNearLimit",
                Severity::Warning,
                "10m",
                format!("max(tanka_websocket_connections{{{of}}}) / {sockets} > 0.9"),
                (
                    "an API pod has almost as many WebSockets as it may have",
                    "One pod holds {{ $value | humanizePercentage }} of the WebSockets that it may hold.",
                ),
            ),
        ];
        if api.autoscaling.enabled {
            let most = api.autoscaling.max_replicas;
            alerts.push(self.alert(
                "ApiAtMaximum",
                Severity::Warning,
                "15m",
                format!(r#"count(up{{{of},component="api"}} == 1) >= {most}"#),
                (
                    "the autoscaler can add no more pods",
                    "The API has run with its maximum of {{ $value }} pods for 15 minutes.",
                ),
            ));
        }
        alerts
    }

    /// PostgreSQL as the API sees it, whoever runs it.
    #[expect(clippy::too_many_lines, reason = "a list")]
    fn database(&self) -> Vec<Alert> {
        let of = &self.of;
        let lag = self
            .platform
            .spec
            .monitoring
            .alerts
            .thresholds
            .replica_lag
            .get()
            .as_secs_f64();
        let no_primary = if matches!(self.platform.database, Database::Managed(_)) {
            format!("sum(patroni_primary{{{of}}}) < 1 or max(tanka_database_instance_primary{{{of}}}) < 1")
        } else {
            format!("max(tanka_database_instance_primary{{{of}}}) < 1")
        };
        vec![
            self.alert(
                "PostgresNoPrimary",
                Severity::Critical,
                "1m",
                no_primary,
                ("nothing can be written", "No PostgreSQL instance takes writes."),
            ),
            self.alert(
                "PostgresInstanceDown",
                Severity::Warning,
                "2m",
                format!("max by (server) (tanka_database_instance_up{{{of}}}) == 0"),
                (
                    "PostgreSQL {{ $labels.server }} does not answer",
                    "No API pod reaches the PostgreSQL instance {{ $labels.server }}.",
                ),
            ),
            self.alert(
                "PostgresReplicaLag",
                Severity::Warning,
                "2m",
                format!("max by (server) (tanka_database_replica_lag_seconds{{{of}}}) > {lag}"),
                (
                    "replica {{ $labels.server }} is behind",
                    "What {{ $labels.server }} would serve is {{ $value | humanizeDuration }} old. Reads go elsewhere meanwhile.",
                ),
            ),
            self.alert(
                "WritesFailing",
                Severity::Critical,
                "2m",
                format!(
                    r#"sum(rate(tanka_database_writes_total{{{of},outcome=~"unavailable|unknown"}}[5m])) / sum(rate(tanka_database_writes_total{{{of}}}[5m])) > 0.01 and sum(increase(tanka_database_writes_total{{{of}}}[5m])) >= {ENOUGH}"#
                ),
                (
                    "writes fail although they were tried again",
                    "{{ $value | humanizePercentage }} of the writes found no primary, or do not know whether they took place.",
                ),
            ),
            self.alert(
                "SlowQueries",
                Severity::Warning,
                "10m",
                format!(
                    "sum(rate(tanka_database_slow_operations_total{{{of}}}[5m])) / (sum(rate(tanka_database_reads_total{{{of}}}[5m])) + sum(rate(tanka_database_writes_total{{{of}}}[5m]))) > 0.05 and sum(increase(tanka_database_slow_operations_total{{{of}}}[5m])) >= 20"
                ),
                (
                    "many database operations are slow",
                    "{{ $value | humanizePercentage }} of the database operations take longer than the slow query threshold.",
                ),
            ),
        ]
    }

    /// Connections to PostgreSQL, on both ends.
    fn connections(&self) -> Vec<Alert> {
        let of = &self.of;
        let ratio = &self.platform.spec.monitoring.alerts.thresholds.connection_ratio;
        vec![
            self.alert(
                "DatabaseConnectionsHigh",
                Severity::Warning,
                "5m",
                format!(
                    "max by (server) (tanka_database_connections{{{of}}}) / max by (server) (tanka_database_connections_limit{{{of}}}) > {ratio}"
                ),
                (
                    "PostgreSQL {{ $labels.server }} has few connections left",
                    "{{ $value | humanizePercentage }} of the connections that {{ $labels.server }} allows are in use.",
                ),
            ),
            self.alert(
                "ConnectionPoolExhausted",
                Severity::Warning,
                "5m",
                format!(
                    "histogram_quantile(0.99, sum by (le) (rate(tanka_database_acquire_duration_seconds_bucket{{{of}}}[5m]))) > 0.1 and sum(increase(tanka_database_acquire_duration_seconds_count{{{of}}}[5m])) >= {ENOUGH}"
                ),
                (
                    "requests wait for a database connection",
                    "One operation in a hundred waits longer than {{ $value | humanizeDuration }} for a connection of its pod's pool.",
                ),
            ),
        ]
    }

    /// PostgreSQL as Patroni sees it.
    fn patroni(&self, instances: i32) -> Vec<Alert> {
        let of = &self.of;
        let replicas = instances - 1;
        let timeline = format!("max(patroni_postgres_timeline{{{of}}}");
        let mut alerts = vec![
            self.alert(
                "PostgresFailover",
                Severity::Info,
                "0m",
                format!("{timeline}) > {timeline} offset 15m)"),
                (
                    "PostgreSQL has a new primary",
                    "The primary changed within the last 15 minutes; the timeline is now {{ $value }}.",
                ),
            ),
            self.alert(
                "PostgresFailsafeActive",
                Severity::Warning,
                "1m",
                format!("max(patroni_failsafe_mode_is_active{{{of}}}) == 1"),
                (
                    "PostgreSQL runs without the Kubernetes API",
                    "Patroni cannot reach the Kubernetes API. The primary goes on, but nobody can take over from it.",
                ),
            ),
            self.alert(
                "PostgresRestartPending",
                Severity::Info,
                "1h",
                format!("max by (pod) (patroni_pending_restart{{{of}}}) == 1"),
                (
                    "{{ $labels.pod }} waits for a restart",
                    "A parameter of PostgreSQL was changed that takes effect when {{ $labels.pod }} is restarted.",
                ),
            ),
        ];
        if replicas > 0 {
            alerts.push(self.alert(
                "PostgresReplicaNotStreaming",
                Severity::Warning,
                "5m",
                format!("sum(patroni_postgres_streaming{{{of}}}) < {replicas}"),
                (
                    "a PostgreSQL replica does not stream",
                    &format!("{{{{ $value }}}} of {replicas} replicas stream from the primary."),
                ),
            ));
        }
        alerts
    }

    /// Redis as the API sees it, whoever runs it.
    fn redis(&self) -> Vec<Alert> {
        let of = &self.of;
        vec![
            self.alert(
                "RedisDown",
                Severity::Warning,
                "1m",
                format!("max(tanka_redis_up{{{of}}}) == 0"),
                (
                    "no API pod reaches Redis",
                    "The API works without Redis, but slower: caches are cold and events are polled from PostgreSQL.",
                ),
            ),
            self.alert(
                "EventsDelayed",
                Severity::Warning,
                "2m",
                format!("min(tanka_realtime_subscribed{{{of}}}) == 0"),
                (
                    "events come late to some clients",
                    "At least one API pod gets no events from Redis and polls PostgreSQL for them.",
                ),
            ),
        ]
    }

    /// Whether the cache keeps load from the database.
    fn cache(&self) -> Alert {
        let of = &self.of;
        let ratio = &self.platform.spec.monitoring.alerts.thresholds.cache_hit_ratio;
        let lookups = format!("sum(increase(tanka_cache_lookups_total{{{of}}}[15m]))");
        self.alert(
            "CacheHitRateLow",
            Severity::Warning,
            "15m",
            format!(
                r#"sum(increase(tanka_cache_lookups_total{{{of},outcome=~"hit_.*"}}[15m])) / {lookups} < {ratio} and {lookups} >= {ENOUGH_LOOKUPS}"#
            ),
            (
                "the cache answers too little",
                "{{ $value | humanizePercentage }} of the lookups of the last quarter of an hour were answered by the cache.",
            ),
        )
    }
}

/// Names of the components whose pods the rules look at.
pub const SCRAPED: [Component; 2] = [Component::Api, Component::Postgres];

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::platform::fixtures::{external, platform};

    fn find(spec: Value, name: &str) -> Option<Alert> {
        alerts(&platform(spec))
            .into_iter()
            .find(|alert| alert.name == name)
    }

    #[test]
    fn the_rules_of_a_platform() {
        insta::assert_yaml_snapshot!(groups(&platform(json!({}))));
    }

    #[rstest]
    #[case("HighLatency", json!({"latencyP99": "300ms"}), "> 0.3 and")]
    #[case("HighErrorRate", json!({"errorRatio": "0.001"}), "> 0.001 and")]
    #[case("DatabaseConnectionsHigh", json!({"connectionRatio": "0.9"}), "> 0.9")]
    #[case("PostgresReplicaLag", json!({"replicaLag": "250ms"}), "> 0.25")]
    #[case("CacheHitRateLow", json!({"cacheHitRatio": "0.5"}), "< 0.5 and")]
    fn thresholds_come_from_the_spec(#[case] name: &str, #[case] thresholds: Value, #[case] words: &str) {
        let alert = find(
            json!({"monitoring": {"alerts": {"thresholds": thresholds}}}),
            name,
        )
        .unwrap();
        assert!(alert.expr.contains(words), "{}", alert.expr);
    }

    #[test]
    fn what_the_platform_does_not_have_is_not_watched() {
        assert_eq!(find(external(), "PostgresReplicaNotStreaming"), None);
        assert_eq!(find(external(), "ApiAtMaximum"), None);
        let single = json!({"postgres": {"managed": {"instances": 1, "synchronous": "Async"}}});
        assert_eq!(find(single, "PostgresReplicaNotStreaming"), None);
        assert!(
            !find(external(), "PostgresNoPrimary")
                .unwrap()
                .expr
                .contains("patroni")
        );
    }

    /// F13, F14: no quantile without rate and `sum by (le)`, no share without a sum on both sides.
    #[test]
    fn quantiles_and_shares_are_of_sums_of_rates() {
        for alert in alerts(&platform(json!({}))) {
            if alert.expr.contains("_bucket{") {
                assert!(alert.expr.contains("sum by (le) (rate("), "{}", alert.expr);
            }
            if alert.expr.contains(" / sum(") {
                assert!(
                    alert.expr.contains("increase("),
                    "{} has no least traffic",
                    alert.name
                );
            }
        }
    }

    /// F12, F44: no rule splits by a tenant, a person or a path.
    #[test]
    fn nothing_is_split_by_what_grows() {
        for alert in alerts(&platform(json!({}))) {
            for label in ["tenant", "user", "path"] {
                assert!(!alert.expr.contains(label), "{}", alert.expr);
            }
        }
    }
}
