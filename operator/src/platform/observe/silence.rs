//! Since when replicas do not stream, look by look: what tells one that is on its way from one that is stuck.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::patroni::Cluster;

/// Since when which member has not been heard streaming.
pub type Since = BTreeMap<String, Timestamp>;

/// Takes in one look. Time counts only while there is a primary that takes writes: without one nobody can stream.
pub fn track(since: &mut Since, cluster: Option<&Cluster>, now: Timestamp) -> BTreeMap<String, Duration> {
    let Some(cluster) = cluster.filter(|cluster| cluster.primary().is_some()) else {
        since.clear();
        return BTreeMap::new();
    };
    let streams = |name: &str| cluster.streaming().any(|member| member.name == name);
    let silent: Vec<_> = cluster
        .members
        .iter()
        .filter(|member| member.role != "leader" && !streams(&member.name))
        .map(|member| member.name.clone())
        .collect();
    since.retain(|name, _| silent.contains(name));
    silent
        .into_iter()
        .map(|name| {
            let begun = *since.entry(name.clone()).or_insert(now);
            let age = Duration::try_from(now.duration_since(begun)).unwrap_or_default();
            (name, age)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::observe::patroni::Member;

    fn cluster(second: &str) -> Cluster {
        let member = |name: &str, role: &str, state: &str| Member {
            name: name.to_owned(),
            role: role.to_owned(),
            state: state.to_owned(),
            timeline: Some(1),
            ..Member::default()
        };
        Cluster {
            members: vec![
                member("a-0", "leader", "running"),
                member("a-1", "replica", second),
            ],
            writable: true,
            ..Cluster::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn silence_is_counted_until_the_replica_streams() {
        let mut since = Since::new();
        assert_eq!(
            track(&mut since, Some(&cluster("running")), at(10))["a-1"],
            Duration::ZERO
        );
        assert_eq!(
            track(&mut since, Some(&cluster("running")), at(40))["a-1"],
            Duration::from_secs(30)
        );
        assert!(track(&mut since, Some(&cluster("streaming")), at(41)).is_empty());
        assert_eq!(
            track(&mut since, Some(&cluster("running")), at(50))["a-1"],
            Duration::ZERO
        );
    }

    #[test]
    fn nobody_is_silent_while_there_is_no_primary() {
        let mut since = Since::new();
        track(&mut since, Some(&cluster("running")), at(10));
        let headless = Cluster {
            writable: false,
            ..cluster("running")
        };
        assert!(track(&mut since, Some(&headless), at(60)).is_empty());
        assert_eq!(
            track(&mut since, Some(&cluster("running")), at(61))["a-1"],
            Duration::ZERO
        );
    }
}
