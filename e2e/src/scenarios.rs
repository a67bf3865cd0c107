//! Named end-to-end scenarios. They share a cluster of three nodes; each plays in a namespace of its own, waits by condition, says in
//! one line what it measured, and leaves nothing behind. What is known about a failure is kept in the state folder.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures::future::LocalBoxFuture;

use crate::cluster::Cluster;
use crate::demo;
use crate::kubernetes::Kubernetes;
use crate::paths::Paths;
use crate::stage::Steps;

pub mod args;
pub mod deletion;
pub mod drift;
pub mod edge;
pub mod evidence;
pub mod external;
pub mod failover;
pub mod frozen;
pub mod ground;
pub mod isolation;
pub mod neighbours;
pub mod operator;
pub mod outages;
pub mod scaling;
pub mod specs;
pub mod status;
pub mod subject;
pub mod upgrade;
pub mod visitor;

use self::args::ScenariosCommand;
use self::ground::Ground;

/// Cluster of the scenarios: nobody else's.
pub const CLUSTER: &str = "tanka-scenarios";
/// Nodes of it, so that one can be lost.
const NODES: u8 = 3;
/// A scenario that takes longer hangs.
const DEADLINE: Duration = Duration::from_mins(15);

/// One scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What it is called on the command line; also its namespace.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub shows: &'static str,
    /// Whether `make test` plays it, on a cluster of one node.
    pub quick: bool,
    /// The scenario itself.
    pub play: for<'a> fn(&'a Ground<'a>) -> LocalBoxFuture<'a, Result<()>>,
}

/// All scenarios, in the order in which they are played.
pub fn all() -> Vec<Scenario> {
    [
        status::SCENARIOS,
        outages::SCENARIOS,
        external::SCENARIOS,
        edge::SCENARIOS,
        drift::SCENARIOS,
        operator::SCENARIOS,
        neighbours::SCENARIOS,
        deletion::SCENARIOS,
        isolation::SCENARIOS,
        scaling::SCENARIOS,
        upgrade::SCENARIOS,
        failover::SCENARIOS,
    ]
    .concat()
}

/// Those whose names begin with one of the texts.
pub fn choose(names: &[String], quick: bool) -> Result<Vec<Scenario>> {
    let known = all();
    for name in names {
        ensure!(
            known.iter().any(|scenario| scenario.name.starts_with(name)),
            "no scenario is called {name}; `cargo e2e scenarios --list` prints all"
        );
    }
    let wanted = |scenario: &Scenario| {
        (names.is_empty() || names.iter().any(|name| scenario.name.starts_with(name)))
            && (scenario.quick || !quick)
    };
    Ok(known.into_iter().filter(wanted).collect())
}

/// Starts the cluster, plays, and takes the cluster down unless it is to be kept.
pub async fn run(paths: &Paths, scenarios: &[Scenario], command: &ScenariosCommand) -> Result<()> {
    let cluster = if command.as_is {
        Cluster::build(paths, CLUSTER).await?
    } else {
        let mut steps = Steps::default();
        demo::prepare_nodes(paths, &mut steps, CLUSTER, NODES).await?.0
    };
    let mut outcome = Ok(());
    for _ in 0..command.times {
        outcome = play(paths, &cluster, scenarios).await;
        if outcome.is_err() {
            break;
        }
    }
    if !command.keep && !command.as_is {
        cluster.down().await?;
    }
    outcome
}

/// Plays scenarios one after the other, also after one has failed, and says at the end which did.
pub async fn play(paths: &Paths, cluster: &Cluster, scenarios: &[Scenario]) -> Result<()> {
    let kubernetes = Kubernetes::connect(cluster).await?;
    let mut failed = Vec::new();
    for scenario in scenarios {
        let begun = Instant::now();
        let ground = Ground::open(cluster, &kubernetes, scenario.name).await?;
        let outcome = tokio::time::timeout(DEADLINE, (scenario.play)(&ground))
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("it hangs")));
        let mut line = format!("{} ({:.0} s)", scenario.name, begun.elapsed().as_secs_f64());
        for figure in ground.figures() {
            let _ = write!(line, "; {figure}");
        }
        match outcome {
            Ok(()) => eprintln!("ok      {line}"),
            Err(error) => {
                let folder = evidence::keep(&paths.state, &ground).await?;
                eprintln!(
                    "FAILED  {line}\n        {error:#}\n        see {}",
                    folder.display()
                );
                failed.push(scenario.name);
            }
        }
        ground.close().await?;
    }
    if !failed.is_empty() {
        bail!(
            "{} of {} scenarios failed: {}",
            failed.len(),
            scenarios.len(),
            failed.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_can_name_a_namespace() {
        let names: BTreeSet<_> = all().iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().len());
        for name in names {
            assert!(
                name.len() <= 40 && name.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
                "{name}"
            );
        }
    }

    #[test]
    fn a_name_that_no_scenario_has_is_refused() {
        assert!(choose(&["no-such".to_owned()], false).is_err());
        assert!(!choose(&["status".to_owned()], false).unwrap().is_empty());
    }
}
