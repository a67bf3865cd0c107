//! `capacity`: how large a platform has to be for so many people. Pure.
//!
//! The rules are those of the requirements C32 to C34: an API pod for 5,000 people at once, a replica for 10,000, a connection for
//! 100, a Redis member for 20,000, and never fewer than survive the loss of one.

use std::fmt;

/// The most pods that a definition allows.
const MOST_PODS: u32 = 200;
/// The most members of PostgreSQL or Redis.
const MOST_MEMBERS: u32 = 5;
/// Connections that the operator keeps back, and the share of all that it deals out: four fifths.
const RESERVED: u32 = 13;
/// What PostgreSQL is given at least.
const FEWEST_CONNECTIONS: u32 = 200;

/// What is needed, and what of it a definition cannot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    peak: u32,
    average: u32,
    /// API pods at least and at most.
    pods: (u32, u32),
    /// PostgreSQL, primary and replicas together.
    instances: u32,
    /// Connections of all API pods to one instance, at the peak.
    connections: u32,
    /// Redis, primary and replicas together.
    members: u32,
    beyond: Vec<String>,
}

impl Capacity {
    /// For the people who are there at the same time at the peak, and on average.
    pub fn of(peak: u32, average: u32) -> Self {
        let mut beyond = Vec::new();
        let mut most = |wanted: u32, most: u32, what: &str| {
            if wanted > most {
                beyond.push(format!("{wanted} {what} are needed and {most} are possible"));
            }
            wanted.min(most)
        };
        let fewest_pods = most(average.div_ceil(5_000).max(2), MOST_PODS, "API pods on average");
        let peak_pods = peak.div_ceil(5_000).max(3);
        let most_pods = most((peak_pods * 3).div_ceil(2), MOST_PODS, "API pods at the most");
        let replicas = peak.div_ceil(10_000).max(1);
        let instances = most(odd(1 + replicas), MOST_MEMBERS, "instances of PostgreSQL");
        let members = most(
            odd(peak.div_ceil(20_000).max(3)),
            MOST_MEMBERS,
            "members of Redis",
        );
        Self {
            peak,
            average,
            pods: (fewest_pods, most_pods.max(fewest_pods)),
            instances,
            connections: peak.div_ceil(100),
            members,
            beyond,
        }
    }

    /// What PostgreSQL has to allow, so that the operator has as many connections to deal out as are needed, and two for each pod.
    fn max_connections(&self) -> u32 {
        let dealt = self.connections.max(2 * (self.pods.1 + 1));
        ((dealt + RESERVED) * 5).div_ceil(4).max(FEWEST_CONNECTIONS)
    }
}

/// Majorities need an odd number.
const fn odd(number: u32) -> u32 {
    number | 1
}

/// A part of a definition, for `kubectl patch --type merge --patch-file`.
impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# For {} people at once at the peak, {} on average.",
            self.peak, self.average
        )?;
        for words in &self.beyond {
            writeln!(f, "# Too many for one platform: {words}.")?;
        }
        let (min, max) = self.pods;
        write!(
            f,
            "spec:\n  api:\n    autoscaling:\n      enabled: true\n      minReplicas: {min}\n      maxReplicas: {max}\n  \
             postgres:\n    managed:\n      instances: {}\n      parameters:\n        max_connections: \"{}\"\n      \
             resources:\n        requests: {{cpu: \"4\", memory: 32Gi}}\n        limits: {{memory: 32Gi}}\n  \
             redis:\n    managed:\n      replicas: {}\n      maxMemory: 8Gi\n",
            self.instances,
            self.max_connections(),
            self.members,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C32, C33, C34.
    #[test]
    fn the_size_follows_the_people() {
        let small = Capacity::of(1_000, 100);
        assert_eq!((small.pods, small.instances, small.members), ((2, 5), 3, 3));
        let large = Capacity::of(50_000, 20_000);
        assert_eq!(large.pods, (4, 15));
        assert_eq!((large.instances, large.connections, large.members), (5, 500, 3));
        assert_eq!(
            large.beyond,
            ["7 instances of PostgreSQL are needed and 5 are possible"]
        );
        let middle = Capacity::of(30_000, 12_000);
        assert_eq!(
            (middle.pods, middle.instances, middle.beyond.len()),
            ((3, 9), 5, 0)
        );
    }

    #[test]
    fn what_is_not_possible_is_said() {
        let text = Capacity::of(2_000_000, 1_500_000).to_string();
        for words in [
            "300 API pods on average",
            "600 API pods at the most",
            "201 instances",
            "101 members",
        ] {
            assert!(text.contains(words), "{text}");
        }
        assert!(
            text.contains("minReplicas: 200\n      maxReplicas: 200\n"),
            "{text}"
        );
    }

    /// Four fifths of what PostgreSQL allows, less the reserve, is what the operator deals out to the pods and one more.
    #[test]
    fn there_are_connections_for_all_pods() {
        for peak in [1, 10_000, 30_000, 100_000, 600_000] {
            let capacity = Capacity::of(peak, peak / 3);
            let dealt = capacity.max_connections() * 4 / 5 - RESERVED;
            assert!(
                dealt >= capacity.connections && dealt / (capacity.pods.1 + 1) >= 2,
                "{capacity:?}"
            );
        }
    }
}
