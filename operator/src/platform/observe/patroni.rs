//! What Patroni says about its cluster.

use serde::Deserialize;

/// Answer of `GET /cluster`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Cluster {
    /// All members that Patroni knows.
    #[serde(default)]
    pub members: Vec<Member>,
    /// Whether the leader itself said that it takes writes. The others name it as soon as it holds the lock, which is before it has
    /// been promoted.
    #[serde(skip)]
    pub writable: bool,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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
            {"name": "a-2", "role": "replica", "state": "starting", "lag": "unknown"}], "scope": "a"}"#;
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
    }
}
