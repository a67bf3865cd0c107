//! What the Sentinels say about Redis.

use std::collections::{BTreeMap, BTreeSet};

/// What the Sentinels see, the newest opinion first, and what the primary itself says of its replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sentinel {
    /// Name of the primary's pod, or its address where it is not one of our names.
    pub primary: String,
    /// `None` when enough Sentinels agree that a failover is possible; else Sentinel's own words.
    pub quorum_problem: Option<String>,
    /// Whether the primary counts as up.
    pub primary_up: bool,
    /// Replicas whose link to the primary is up, as the Sentinel with the newest opinion sees it.
    pub linked: BTreeSet<String>,
    /// Pods whose Sentinel does not answer, names another primary, or does not know all replicas that this one knows: it could not
    /// fail over to one that it does not know.
    pub blind: BTreeSet<String>,
    /// Replicas that the primary itself counts as online and heard of within two seconds.
    pub in_step: BTreeSet<String>,
}

/// The view of one Sentinel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Grows with every failover.
    pub epoch: u64,
    /// Whom it takes for the primary.
    pub primary: String,
    /// Whether it takes it for up.
    pub primary_up: bool,
    /// Why it could not have a failover decided; `None` when it could.
    pub quorum_problem: Option<String>,
    /// Replicas that it has heard of lately and could promote.
    pub replicas: BTreeSet<String>,
}

/// Adds the views of all members' Sentinels up, by the name of their pods. `None` when none answers.
pub fn merge(views: &BTreeMap<String, Option<View>>, in_step: BTreeSet<String>) -> Option<Sentinel> {
    let newest = views
        .values()
        .flatten()
        .max_by_key(|view| (view.epoch, view.replicas.len()))?;
    let sees_all = |view: &View| view.primary == newest.primary && newest.replicas.is_subset(&view.replicas);
    Some(Sentinel {
        primary: newest.primary.clone(),
        quorum_problem: newest.quorum_problem.clone(),
        primary_up: newest.primary_up,
        linked: newest.replicas.clone(),
        blind: views
            .iter()
            .filter(|(_, view)| !view.as_ref().is_some_and(sees_all))
            .map(|(pod, _)| pod.clone())
            .collect(),
        in_step,
    })
}

/// Replicas that are online and not behind, out of the primary's `INFO replication`.
pub fn online_replicas(info: &str) -> BTreeSet<String> {
    let fields = |line: &str| -> BTreeMap<String, String> {
        line.split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    info.lines()
        .filter_map(|line| {
            let (key, value) = line.trim().split_once(':')?;
            let number = key.strip_prefix("slave")?;
            number
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| fields(value))
        })
        .filter(|replica| replica.get("state").is_some_and(|state| state == "online"))
        .filter(|replica| {
            let lag = replica.get("lag").and_then(|lag| lag.parse::<u64>().ok());
            lag.is_some_and(|lag| lag <= 2)
        })
        .filter_map(|replica| replica.get("ip").map(|address| pod_name(address)))
        .collect()
}

/// The pod's name out of a stable DNS name: `acme-redis-0.acme-redis.ns.svc` is `acme-redis-0`.
pub fn pod_name(address: &str) -> String {
    let first = address.split('.').next().unwrap_or(address);
    let is_ip = address
        .chars()
        .all(|c| c.is_ascii_digit() || c == '.' || c == ':');
    if is_ip {
        address.to_owned()
    } else {
        first.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn only_replicas_that_are_online_and_not_behind_count() {
        let info = "role:master\r\nconnected_slaves:3\r\nslave0:ip=acme-redis-1.acme-redis.ns.svc,port=6379,state=online,offset=9,lag=0\r\n\
            slave1:ip=acme-redis-2.acme-redis.ns.svc,port=6379,state=wait_bgsave,offset=0,lag=0\r\n\
            slave2:ip=acme-redis-3.acme-redis.ns.svc,port=6379,state=online,offset=2,lag=7\r\nslave_expires_tracked_keys:0\r\n";
        assert_eq!(online_replicas(info), BTreeSet::from(["acme-redis-1".to_owned()]));
    }

    /// FC29: a Sentinel that does not know a replica could not promote it.
    #[test]
    fn a_sentinel_that_knows_fewer_replicas_is_blind() {
        let view = |epoch, primary: &str, replicas: &[&str]| {
            Some(View {
                epoch,
                primary: primary.to_owned(),
                primary_up: true,
                quorum_problem: None,
                replicas: replicas.iter().map(|name| (*name).to_owned()).collect(),
            })
        };
        let views = BTreeMap::from([
            ("r-0".to_owned(), view(2, "r-1", &["r-0", "r-2"])),
            ("r-1".to_owned(), view(2, "r-1", &["r-2"])),
            ("r-2".to_owned(), view(1, "r-0", &["r-0", "r-2"])),
            ("r-3".to_owned(), None),
        ]);
        let seen = merge(&views, BTreeSet::new()).unwrap();
        assert_eq!((seen.primary.as_str(), seen.linked.len()), ("r-1", 2));
        assert_eq!(seen.blind, ["r-1", "r-2", "r-3"].map(str::to_owned).into());
    }

    #[rstest]
    #[case("acme-redis-0.acme-redis.ns.svc", "acme-redis-0")]
    #[case("10.0.0.7", "10.0.0.7")]
    fn a_stable_name_becomes_the_pods(#[case] address: &str, #[case] expected: &str) {
        assert_eq!(pod_name(address), expected);
    }
}
