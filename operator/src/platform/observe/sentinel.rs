//! What the Sentinels say about Redis.

/// The view of one Sentinel that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentinel {
    /// Name of the primary's pod, or its address where it is not one of our names.
    pub primary: String,
    /// `None` when enough Sentinels agree that a failover is possible; else Sentinel's own words.
    pub quorum_problem: Option<String>,
    /// Whether the primary counts as up.
    pub primary_up: bool,
    /// Replicas whose link to the primary is up.
    pub linked_replicas: usize,
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

    #[rstest]
    #[case("acme-redis-0.acme-redis.ns.svc", "acme-redis-0")]
    #[case("10.0.0.7", "10.0.0.7")]
    fn a_stable_name_becomes_the_pods(#[case] address: &str, #[case] expected: &str) {
        assert_eq!(pod_name(address), expected);
    }
}
