//! How many connections each API pod may open: one budget, divided, so that all pods together never exhaust PostgreSQL.

use crate::platform::build::postgres_patroni;
use crate::platform::validate::{Database, Platform};

/// Connections kept back for replication, Patroni, migrations, monitoring and people.
const RESERVED: u32 = 13;
/// Pods beyond the maximum while a new release rolls out.
const SURGE: u32 = 1;
/// What PostgreSQL allows when somebody else runs it and we cannot know better.
const EXTERNAL_MAX_CONNECTIONS: u32 = 100;
/// What a pod needs of each instance: one connection to watch it, one for requests.
const FEWEST: u32 = 2;

/// Connections of one pod, to all instances together. A pod shares them out equally, since any instance may be the primary next.
pub fn size(platform: &Platform) -> u32 {
    let api = &platform.spec.api;
    let (max_connections, instances) = match &platform.database {
        Database::Managed(managed) => (
            postgres_patroni::max_connections(managed),
            u32::try_from(managed.instances).unwrap_or(1),
        ),
        Database::External(external) => (
            EXTERNAL_MAX_CONNECTIONS,
            1 + u32::try_from(external.replica_secret_refs.len()).unwrap_or(0),
        ),
    };
    let pods = if api.autoscaling.enabled {
        api.autoscaling.max_replicas
    } else {
        api.replicas
    };
    share(
        max_connections,
        instances,
        u32::try_from(pods).unwrap_or(1),
        u32::try_from(api.database.pool_size).unwrap_or(FEWEST),
    )
}

/// At most what was asked for, and of each instance at most its part of 80 % of what PostgreSQL allows, less the reserve. A rule of the
/// definition sees to it that there are at least two for each pod.
fn share(max_connections: u32, instances: u32, pods: u32, asked: u32) -> u32 {
    let budget = (max_connections * 4 / 5).saturating_sub(RESERVED);
    let most = budget / (pods + SURGE) * instances;
    asked.min(most).max(FEWEST * instances)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::default(200, 3, 10, 9, 9)]
    #[case::asked_for_more(200, 3, 10, 100, 39)]
    #[case::one_instance(200, 1, 10, 100, 13)]
    #[case::stock_postgres(100, 1, 10, 9, 6)]
    #[case::many_pods(200, 3, 72, 9, 6)]
    #[case::too_few_asked_for(200, 5, 3, 4, 10)]
    fn the_budget_is_divided(
        #[case] max_connections: u32,
        #[case] instances: u32,
        #[case] pods: u32,
        #[case] asked: u32,
        #[case] expected: u32,
    ) {
        assert_eq!(share(max_connections, instances, pods, asked), expected);
    }

    proptest! {
        /// What the API makes of a share: one connection to watch each instance, the rest equally.
        #[test]
        fn no_instance_is_ever_asked_for_more_than_it_has(
            max_connections in 50_u32..2_000, instances in prop_oneof![Just(1_u32), Just(3), Just(5)], pods in 1_u32..200, asked in 2_u32..100,
        ) {
            let budget = (max_connections * 4 / 5).saturating_sub(RESERVED);
            // The rule of the definition.
            prop_assume!(budget >= FEWEST * (pods + SURGE));
            let share = share(max_connections, instances, pods, asked);
            let on_one_instance = share.div_ceil(instances);
            prop_assert!(on_one_instance * (pods + SURGE) + RESERVED <= max_connections);
        }
    }
}
