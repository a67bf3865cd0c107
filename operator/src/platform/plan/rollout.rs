//! Which pod of a replicated component is replaced next: replicas before the primary, one at a time, and none while another one is
//! not well. PostgreSQL and Redis share it; what "well" means is theirs.

use crate::planted::{self, Bug};

/// A member as a rollout sees it.
#[expect(clippy::struct_excessive_bools, reason = "each is an observation of its own")]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Name of its pod.
    pub name: String,
    /// Identity of its pod.
    pub uid: String,
    /// Its place in the StatefulSet.
    pub ordinal: i32,
    /// Whether its pod is not what the StatefulSet describes now.
    pub outdated: bool,
    /// Whether it serves, and is in step with the primary or is the primary.
    pub well: bool,
    /// Whether its containers cannot run: deleting it takes nothing away from anybody.
    pub broken: bool,
    /// Whether it is on its way out.
    pub leaving: bool,
}

/// All members of a component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Members whose pods exist.
    pub members: Vec<Member>,
    /// The pod that has the primary's role, if any has.
    pub primary: Option<String>,
    /// Members that there should be.
    pub wanted: usize,
}

/// What a rollout does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Every pod is what it should be.
    Done,
    /// Something must happen first that nobody has to do anything for, or that somebody else must do.
    Wait,
    /// Replace this pod.
    Replace(Member),
    /// Only the primary is left: its role must go to another member first.
    HandOver(Member),
}

impl Fleet {
    /// Whether all members are there and well.
    pub fn is_whole(&self) -> bool {
        self.members.len() == self.wanted && self.members.iter().all(|member| member.well && !member.leaving)
    }

    /// How many pods are what they should be.
    pub fn current(&self) -> usize {
        self.members
            .iter()
            .filter(|member| !member.outdated && !member.leaving)
            .count()
    }

    fn is_primary(&self, member: &Member) -> bool {
        self.primary.as_ref() == Some(&member.name)
    }

    /// Decides.
    pub fn next(&self) -> Step {
        let outdated = || self.members.iter().filter(|member| member.outdated);
        if outdated().next().is_none() {
            return Step::Done;
        }
        if self.members.iter().any(|member| member.leaving) {
            return Step::Wait;
        }
        let last = |members: &mut dyn Iterator<Item = &Member>| members.max_by_key(|m| m.ordinal).cloned();
        // What does not run keeps nobody up. Were it waited for, a wrong image could not be corrected.
        if let Some(broken) = last(&mut outdated().filter(|m| m.broken && !self.is_primary(m))) {
            return Step::Replace(broken);
        }
        if let ([only], 1) = (self.members.as_slice(), self.wanted) {
            return Step::Replace(only.clone());
        }
        if !(self.is_whole() || planted::is(Bug::TwoAtOnce)) || self.primary.is_none() {
            return Step::Wait;
        }
        if let Some(replica) = last(&mut outdated().filter(|member| !self.is_primary(member))) {
            return Step::Replace(replica);
        }
        last(&mut outdated()).map_or(Step::Wait, Step::HandOver)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fleet(outdated: [bool; 3], well: [bool; 3], broken: [bool; 3], primary: Option<usize>) -> Fleet {
        let name = |ordinal: usize| format!("acme-postgres-{ordinal}");
        Fleet {
            members: (0..3)
                .map(|ordinal| Member {
                    name: name(ordinal),
                    uid: format!("uid-{ordinal}"),
                    ordinal: i32::try_from(ordinal).unwrap(),
                    outdated: outdated[ordinal],
                    well: well[ordinal],
                    broken: broken[ordinal],
                    leaving: false,
                })
                .collect(),
            primary: primary.map(name),
            wanted: 3,
        }
    }

    fn replaced(step: &Step) -> Option<i32> {
        match step {
            Step::Replace(member) => Some(member.ordinal),
            _ => None,
        }
    }

    const WELL: [bool; 3] = [true; 3];
    const NONE: [bool; 3] = [false; 3];

    #[test]
    fn replicas_go_first_and_the_primary_last() {
        let step = |outdated| fleet(outdated, WELL, NONE, Some(2)).next();
        assert_eq!(replaced(&step([true; 3])), Some(1));
        assert_eq!(replaced(&step([true, false, true])), Some(0));
        assert!(matches!(step([false, false, true]), Step::HandOver(member) if member.ordinal == 2));
        assert_eq!(step(NONE), Step::Done);
    }

    #[test]
    fn a_new_pod_that_does_not_become_well_stops_the_rollout() {
        let stuck = fleet(
            [true, true, false],
            [true, true, false],
            [false, false, true],
            Some(0),
        );
        assert_eq!(stuck.next(), Step::Wait);
    }

    #[test]
    fn it_goes_on_by_itself_when_the_spec_is_corrected() {
        let corrected = fleet([true; 3], [true, true, false], [false, false, true], Some(0));
        assert_eq!(replaced(&corrected.next()), Some(2));
    }

    #[test]
    fn a_single_instance_just_restarts() {
        let mut single = fleet([true, false, false], NONE, NONE, None);
        single.members.truncate(1);
        single.wanted = 1;
        assert_eq!(replaced(&single.next()), Some(0));
    }

    fn members() -> impl Strategy<Value = Vec<Member>> {
        let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
        prop::collection::vec(flags, 1..6).prop_map(|all| {
            all.into_iter()
                .enumerate()
                .map(|(i, (outdated, well, broken, leaving))| Member {
                    name: format!("p-{i}"),
                    uid: format!("u-{i}"),
                    ordinal: i32::try_from(i).unwrap(),
                    outdated,
                    well: well && !broken && !leaving,
                    broken,
                    leaving,
                })
                .collect()
        })
    }

    proptest! {
        /// However the world looks: never two members down at once, never the primary while there are others, and never what is
        /// as it should be.
        #[test]
        fn no_step_takes_a_second_member_down(members in members(), primary in 0_usize..7, wanted in 1_usize..6) {
            let primary = members.get(primary).filter(|member| member.well).map(|member| member.name.clone());
            let fleet = Fleet { members: members.clone(), primary: primary.clone(), wanted };
            let others_are_well = |chosen: &Member| {
                members.len() == wanted && members.iter().all(|m| m.name == chosen.name || m.well)
            };
            match fleet.next() {
                Step::Done => prop_assert!(members.iter().all(|member| !member.outdated)),
                Step::Wait => {}
                Step::Replace(chosen) => {
                    prop_assert!(chosen.outdated);
                    prop_assert!(members.iter().all(|member| !member.leaving));
                    prop_assert!(!chosen.well || others_are_well(&chosen), "{:?} of {:?}", chosen, fleet);
                    prop_assert!(wanted == 1 || primary.as_deref() != Some(&chosen.name));
                    prop_assert!(chosen.broken || members.len() == 1 || (primary.is_some() && chosen.well));
                }
                Step::HandOver(chosen) => {
                    prop_assert_eq!(primary.as_deref(), Some(chosen.name.as_str()));
                    prop_assert!(members.len() > 1 && members.iter().all(|member| member.well));
                    prop_assert!(members.iter().all(|m| m.name == chosen.name || !m.outdated));
                }
            }
        }

        /// From any healthy start, steps that succeed end with every pod replaced once and the role handed over at most once.
        #[test]
        fn a_rollout_ends(size in prop::sample::select(vec![1_usize, 3, 5]), start in 0_usize..5) {
            let mut primary = start % size;
            let mut outdated = vec![true; size];
            let (mut replaced, mut handed) = (0, 0);
            for _ in 0..20 {
                let fleet = Fleet {
                    members: (0..size).map(|i| Member {
                        name: format!("p-{i}"), uid: format!("u-{i}"), ordinal: i32::try_from(i).unwrap(),
                        outdated: outdated[i], well: true, broken: false, leaving: false,
                    }).collect(),
                    primary: Some(format!("p-{primary}")),
                    wanted: size,
                };
                match fleet.next() {
                    Step::Done => break,
                    Step::Wait => prop_assert!(false, "nothing is in the way of {:?}", fleet),
                    Step::Replace(member) => { outdated[usize::try_from(member.ordinal).unwrap()] = false; replaced += 1; }
                    Step::HandOver(_) => { primary = (primary + 1) % size; handed += 1; }
                }
            }
            prop_assert_eq!((replaced, outdated.iter().any(|o| *o)), (size, false));
            prop_assert!(handed <= 1);
        }
    }
}
