//! The decision which instance serves a read. Pure: what is known comes in, the choice goes out.

use std::time::Duration;

use super::position::Position;

/// What an instance is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Accepts writes.
    Primary,
    /// Replays what the primary writes.
    Replica,
}

impl Role {
    /// For headers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// An instance that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// What it is.
    pub role: Role,
    /// How far it has replayed, or written.
    pub position: Position,
    /// Upper bound of the age of what it would serve; unknown until it was compared with a primary.
    pub lag: Option<Duration>,
    /// Operations of this process that it is serving.
    pub busy: u32,
}

/// What the read asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The reader's own last write.
    pub at_least: Option<Position>,
    /// Greatest age that may be served.
    pub max_lag: Duration,
    /// Whether there is time left to wait for a replica.
    pub patient: bool,
    /// Whether only the primary will do.
    pub primary_only: bool,
}

/// Why an instance was chosen; a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A replica that is fresh enough.
    Fresh,
    /// The read asked for the primary.
    Asked,
    /// No replica is fresh.
    NoReplica,
    /// No replica had the reader's own write in time.
    Behind,
    /// There is no primary, and how old the replica is cannot be told.
    Unverified,
}

impl Reason {
    /// For metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Asked => "asked",
            Self::NoReplica => "no_replica",
            Self::Behind => "behind",
            Self::Unverified => "unverified",
        }
    }
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Use the instance with this index.
    Use {
        /// Index among the candidates.
        index: usize,
        /// Why.
        reason: Reason,
    },
    /// A replica will have the reader's write in a moment.
    Wait,
    /// Nobody can serve it now.
    Nobody,
}

/// Chooses among instances; `None` marks one that does not answer. `turn` breaks ties between equally busy replicas.
pub fn choose(instances: &[Option<Candidate>], need: &Need, turn: usize) -> Choice {
    let primary = primary(instances);
    if need.primary_only {
        return primary.map_or(Choice::Nobody, |index| Choice::Use {
            index,
            reason: Reason::Asked,
        });
    }
    let fresh = |candidate: &Candidate| {
        candidate.role == Role::Replica && candidate.lag.is_some_and(|lag| lag <= need.max_lag)
    };
    let covered = |candidate: &Candidate| {
        need.at_least
            .is_none_or(|wanted| candidate.position.covers(wanted))
    };
    if let Some(index) = least_busy(instances, turn, |candidate| {
        fresh(candidate) && covered(candidate)
    }) {
        return Choice::Use {
            index,
            reason: Reason::Fresh,
        };
    }
    let someone_is_fresh = instances.iter().flatten().any(fresh);
    if someone_is_fresh && (need.patient || primary.is_none()) {
        return Choice::Wait;
    }
    if let Some(index) = primary {
        let reason = if someone_is_fresh {
            Reason::Behind
        } else {
            Reason::NoReplica
        };
        return Choice::Use { index, reason };
    }
    let last_resort = |candidate: &Candidate| candidate.lag.is_none() && covered(candidate);
    least_busy(instances, turn, last_resort).map_or(Choice::Nobody, |index| Choice::Use {
        index,
        reason: Reason::Unverified,
    })
}

/// The instance that accepts writes. During a failover two may say so; the later timeline is right.
pub fn primary(instances: &[Option<Candidate>]) -> Option<usize> {
    let says_primary = |candidate: &Option<Candidate>| candidate.filter(|c| c.role == Role::Primary);
    instances
        .iter()
        .enumerate()
        .filter_map(|(index, candidate)| Some((says_primary(candidate)?.position, index)))
        .max()
        .map(|(_, index)| index)
}

fn least_busy(
    instances: &[Option<Candidate>],
    turn: usize,
    accept: impl Fn(&Candidate) -> bool,
) -> Option<usize> {
    let count = instances.len();
    (0..count)
        .map(|step| (turn.wrapping_add(step)) % count)
        .filter_map(|index| Some((instances[index].as_ref().filter(|c| accept(c))?.busy, index)))
        .min_by_key(|(busy, _)| *busy)
        .map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NEED: Need = Need {
        at_least: None,
        max_lag: Duration::from_secs(1),
        patient: true,
        primary_only: false,
    };

    fn at(role: Role, lsn: u64, lag_ms: u64) -> Candidate {
        Candidate {
            role,
            position: Position { timeline: 1, lsn },
            lag: Some(Duration::from_millis(lag_ms)),
            busy: 0,
        }
    }

    fn needs(lsn: u64) -> Need {
        Need {
            at_least: Some(Position { timeline: 1, lsn }),
            ..NEED
        }
    }

    #[test]
    fn fresh_replicas_take_turns() {
        let fleet = [
            at(Role::Primary, 9, 0),
            at(Role::Replica, 9, 0),
            at(Role::Replica, 9, 0),
        ]
        .map(Some);
        let served: Vec<_> = (0..6).map(|turn| choose(&fleet, &NEED, turn)).collect();
        for index in [1, 2] {
            assert!(served.contains(&Choice::Use {
                index,
                reason: Reason::Fresh
            }));
        }
    }

    #[test]
    fn the_less_busy_replica_is_preferred() {
        let mut fleet = [at(Role::Replica, 9, 0), at(Role::Replica, 9, 0)].map(Some);
        fleet[0].as_mut().unwrap().busy = 3;
        for turn in 0..4 {
            assert_eq!(
                choose(&fleet, &NEED, turn),
                Choice::Use {
                    index: 1,
                    reason: Reason::Fresh
                }
            );
        }
    }

    #[test]
    fn a_lagging_replica_serves_nothing() {
        let fleet = [at(Role::Primary, 9, 0), at(Role::Replica, 9, 1_001)].map(Some);
        assert_eq!(
            choose(&fleet, &NEED, 0),
            Choice::Use {
                index: 0,
                reason: Reason::NoReplica
            }
        );
    }

    #[test]
    fn own_writes_are_waited_for_and_then_read_from_the_primary() {
        let fleet = [at(Role::Primary, 9, 0), at(Role::Replica, 7, 0)].map(Some);
        assert_eq!(choose(&fleet, &needs(8), 0), Choice::Wait);
        let impatient = Need {
            patient: false,
            ..needs(8)
        };
        assert_eq!(
            choose(&fleet, &impatient, 0),
            Choice::Use {
                index: 0,
                reason: Reason::Behind
            }
        );
        assert_eq!(
            choose(&fleet, &needs(7), 0),
            Choice::Use {
                index: 1,
                reason: Reason::Fresh
            }
        );
    }

    #[test]
    fn without_a_primary_fresh_replicas_go_on() {
        let fleet = [None, Some(at(Role::Replica, 7, 0))];
        assert_eq!(
            choose(&fleet, &NEED, 0),
            Choice::Use {
                index: 1,
                reason: Reason::Fresh
            }
        );
        let only_primary = Need {
            primary_only: true,
            ..NEED
        };
        assert_eq!(choose(&fleet, &only_primary, 0), Choice::Nobody);
    }

    #[test]
    fn of_two_primaries_the_later_timeline_is_right() {
        let mut fleet = [at(Role::Primary, 900, 0), at(Role::Primary, 9, 0)].map(Some);
        fleet[1].as_mut().unwrap().position.timeline = 2;
        assert_eq!(primary(&fleet), Some(1));
    }

    fn candidate() -> impl Strategy<Value = Option<Candidate>> {
        let role = prop_oneof![Just(Role::Primary), Just(Role::Replica)];
        let lag = proptest::option::of((0_u64..3_000).prop_map(Duration::from_millis));
        proptest::option::of((role, 1_u32..4, 0_u64..20, lag, 0_u32..5).prop_map(
            |(role, timeline, lsn, lag, busy)| Candidate {
                role,
                position: Position { timeline, lsn },
                lag,
                busy,
            },
        ))
    }

    proptest! {
        #[test]
        fn what_is_chosen_may_serve(
            fleet in proptest::collection::vec(candidate(), 1..6),
            wanted in proptest::option::of((1_u32..4, 0_u64..20)),
            patient: bool, primary_only: bool, turn: usize,
        ) {
            let at_least = wanted.map(|(timeline, lsn)| Position { timeline, lsn });
            let need = Need { at_least, patient, primary_only, ..NEED };
            match choose(&fleet, &need, turn) {
                Choice::Use { index, reason } => {
                    let chosen = fleet[index].unwrap();
                    if chosen.role == Role::Replica {
                        prop_assert!(!primary_only);
                        prop_assert!(need.at_least.is_none_or(|wanted| chosen.position.covers(wanted)));
                        prop_assert!(chosen.lag.is_none_or(|lag| lag <= need.max_lag));
                        prop_assert!(chosen.lag.is_some() || reason == Reason::Unverified);
                    }
                }
                Choice::Wait => prop_assert!(need.at_least.is_some()),
                Choice::Nobody => prop_assert!(primary(&fleet).is_none()),
            }
        }
    }
}
