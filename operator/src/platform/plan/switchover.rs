//! Who takes the primary's role over, when it is handed over on purpose.

use crate::platform::observe::patroni::Cluster;

/// The best of the candidates: in the quorum, and least behind. Only those that stream on the primary's timeline are asked.
pub fn candidate(cluster: &Cluster, synchronous: bool, eligible: impl Fn(&str) -> bool) -> Option<String> {
    cluster
        .streaming()
        .filter(|member| eligible(&member.name) && (!synchronous || member.in_quorum()))
        .min_by_key(|member| (member.lag.unwrap_or(i64::MAX), member.name.clone()))
        .map(|member| member.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::observe::patroni::Member;

    fn member(name: &str, role: &str, timeline: i64, lag: i64) -> Member {
        Member {
            name: name.to_owned(),
            role: role.to_owned(),
            state: if role == "leader" { "running" } else { "streaming" }.to_owned(),
            timeline: Some(timeline),
            lag: Some(lag),
            ..Member::default()
        }
    }

    #[test]
    fn the_least_behind_of_the_quorum_is_chosen() {
        let cluster = Cluster {
            members: vec![
                member("p-0", "leader", 3, 0),
                member("p-1", "quorum_standby", 3, 64),
                member("p-2", "quorum_standby", 3, 0),
                member("p-3", "replica", 3, 0),
                member("p-4", "quorum_standby", 2, 0),
            ],
            writable: true,
            ..Cluster::default()
        };
        assert_eq!(candidate(&cluster, true, |_| true).as_deref(), Some("p-2"));
        assert_eq!(
            candidate(&cluster, true, |name| name == "p-1").as_deref(),
            Some("p-1")
        );
        assert_eq!(
            candidate(&cluster, true, |name| name == "p-3" || name == "p-4"),
            None
        );
        assert_eq!(
            candidate(&cluster, false, |name| name == "p-3").as_deref(),
            Some("p-3")
        );
    }
}
