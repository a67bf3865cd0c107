//! How many connections each API pod may open: one budget, divided, so that all pods together never exhaust PostgreSQL.

use crate::platform::build::postgres_patroni;
use crate::platform::validate::{Database, Platform};

/// Connections kept back for replication, Patroni, migrations, monitoring and people.
const RESERVED: u32 = 13;
/// Pods beyond the maximum while a new release rolls out.
const SURGE: u32 = 1;
/// What PostgreSQL allows when somebody else runs it and we cannot know better.
const EXTERNAL_MAX_CONNECTIONS: u32 = 100;
/// Fewer make no sense: one for the primary, one for a replica.
const FEWEST: u32 = 2;

/// Connections of one pod, primary and replicas together.
pub fn size(platform: &Platform) -> u32 {
    let api = &platform.spec.api;
    let max_connections = match &platform.database {
        Database::Managed(managed) => postgres_patroni::max_connections(managed),
        Database::External(_) => EXTERNAL_MAX_CONNECTIONS,
    };
    let pods = if api.autoscaling.enabled {
        api.autoscaling.max_replicas
    } else {
        api.replicas
    };
    share(
        max_connections,
        u32::try_from(pods).unwrap_or(1),
        u32::try_from(api.database.pool_size).unwrap_or(FEWEST),
    )
}

/// 80 % of what PostgreSQL allows, less the reserve, divided by the most pods that can run, and at most what was asked for.
fn share(max_connections: u32, pods: u32, asked: u32) -> u32 {
    let budget = (max_connections * 4 / 5).saturating_sub(RESERVED);
    asked.min(budget / (pods + SURGE)).max(FEWEST)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::default(200, 10, 8, 8)]
    #[case::stock_postgres(100, 10, 8, 6)]
    #[case::many_pods(200, 100, 8, 2)]
    #[case::one_pod(200, 1, 8, 8)]
    fn the_budget_is_divided(
        #[case] max_connections: u32,
        #[case] pods: u32,
        #[case] asked: u32,
        #[case] expected: u32,
    ) {
        assert_eq!(share(max_connections, pods, asked), expected);
    }
}
