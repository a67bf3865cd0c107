//! What Patroni says about its cluster.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Answer of `GET /cluster`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Cluster {
    /// All members that Patroni knows.
    #[serde(default)]
    pub members: Vec<Member>,
    /// Whether the leader itself said that it takes writes. The others name it as soon as it holds the lock, which is before it has
    /// been promoted.
    #[serde(skip)]
    pub writable: bool,
    /// Whether somebody has paused Patroni by hand.
    #[serde(default, rename = "pause")]
    pub paused: bool,
    /// Answer of `GET /config`: what Patroni keeps in its store.
    #[serde(skip)]
    pub config: Option<Value>,
}

/// A member of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Member {
    /// Name of its pod.
    pub name: String,
    /// `leader`, `replica`, `sync_standby`, `quorum_standby` and the like.
    pub role: String,
    /// `running`, `streaming`, `starting` and the like.
    pub state: String,
    /// Timeline of its data.
    #[serde(default)]
    pub timeline: Option<i64>,
    /// Bytes behind the primary; Patroni writes a word where it does not know.
    #[serde(default, deserialize_with = "number_or_word")]
    pub lag: Option<i64>,
    /// Whether it must be restarted before it runs with what is configured.
    #[serde(default)]
    pub pending_restart: bool,
    /// The parameters that it must be restarted for.
    #[serde(default, rename = "pending_restart_reason")]
    pub pending: BTreeMap<String, Change>,
    /// When somebody has it restarted, if somebody asked for that.
    #[serde(default)]
    pub scheduled_restart: Option<Value>,
}

/// A parameter that waits for a restart.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Change {
    /// The value that the instance runs with.
    #[serde(default)]
    pub old_value: Value,
    /// The value that is configured.
    #[serde(default)]
    pub new_value: Value,
}

/// Parameters that a replica must not have lower than its primary, or it stops to replay.
const NEVER_BELOW_PRIMARY: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

impl Member {
    /// Whether commits may wait for this replica.
    pub fn in_quorum(&self) -> bool {
        matches!(self.role.as_str(), "quorum_standby" | "sync_standby")
    }

    /// Parameters that wait for a restart and are lowered, of those that the primary has to lower first.
    pub fn lowered(&self) -> impl Iterator<Item = &str> {
        let falls = |change: &Change| match (number(&change.old_value), number(&change.new_value)) {
            (Some(old), Some(new)) => new < old,
            _ => false,
        };
        self.pending
            .iter()
            .filter(move |(name, change)| NEVER_BELOW_PRIMARY.contains(&name.as_str()) && falls(change))
            .map(|(name, _)| name.as_str())
    }
}

/// Patroni writes numbers as such or as text.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn number_or_word<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(serde_json::Value::deserialize(deserializer)?.as_i64())
}

impl Cluster {
    /// The member that holds the lock.
    pub fn leader(&self) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| member.role == "leader" && member.state == "running")
    }

    /// The member that takes writes.
    pub fn primary(&self) -> Option<&Member> {
        self.leader().filter(|_| self.writable)
    }

    /// Members that follow the primary as it goes, on its timeline.
    pub fn streaming(&self) -> impl Iterator<Item = &Member> {
        let timeline = self.leader().and_then(|leader| leader.timeline);
        self.members.iter().filter(move |member| {
            member.role != "leader" && member.state == "streaming" && member.timeline == timeline
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_patroni_is_read() {
        let text = r#"{"members": [
            {"name": "a-0", "role": "leader", "state": "running", "timeline": 2, "api_url": "http://10.0.0.1:8008/patroni"},
            {"name": "a-1", "role": "quorum_standby", "state": "streaming", "timeline": 2, "lag": 0},
            {"name": "a-2", "role": "replica", "state": "starting", "lag": "unknown", "pending_restart": true,
             "pending_restart_reason": {"max_connections": {"old_value": "300", "new_value": "200"}, "shared_buffers": {"old_value": "128MB", "new_value": "64MB"}}}],
            "scope": "a"}"#;
        let cluster: Cluster = serde_json::from_str(text).unwrap();
        assert_eq!(cluster.leader().unwrap().name, "a-0");
        assert_eq!(cluster.primary(), None);
        assert_eq!(
            cluster
                .streaming()
                .map(|member| member.name.as_str())
                .collect::<Vec<_>>(),
            ["a-1"]
        );
        assert_eq!(cluster.members[2].lag, None);
        assert!(cluster.members[2].pending_restart && !cluster.members[1].pending_restart);
        assert_eq!(
            cluster.members[2].lowered().collect::<Vec<_>>(),
            ["max_connections"]
        );
    }
}
