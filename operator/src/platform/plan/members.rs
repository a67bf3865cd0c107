//! How many members a component has on its way to the number that is wanted. Growing is free; of what goes, nothing may be needed.

use super::rollout::Fleet;

/// Where the number of members stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Members {
    /// Ask for this many.
    Ask(i32),
    /// The primary is among those that go: its role must go first to one that stays. Until then, this many.
    MovePrimary(i32),
    /// Those that stay are not all well: this many stay, until they are.
    Hold(i32),
}

impl Members {
    /// The number to ask for now.
    pub const fn number(&self) -> i32 {
        match self {
            Self::Ask(number) | Self::MovePrimary(number) | Self::Hold(number) => *number,
        }
    }
}

/// Decides, from the number that is wanted and the one that the StatefulSet has. `stride` is how many may go at once.
pub fn decide(wanted: i32, live: Option<i32>, fleet: &Fleet, stride: i32) -> Members {
    let Some(live) = live.filter(|live| *live > wanted) else {
        return Members::Ask(wanted);
    };
    let staying = || fleet.members.iter().filter(|member| member.ordinal < wanted);
    let well = staying().filter(|member| member.well).count();
    let primary = fleet
        .members
        .iter()
        .find(|member| fleet.primary.as_ref() == Some(&member.name));
    // One that goes is waited for, so that the others have taken notice before the next one goes.
    let going = fleet
        .members
        .iter()
        .any(|member| member.leaving || member.ordinal >= live);
    match primary {
        Some(primary) if primary.ordinal >= wanted && !going => Members::MovePrimary(live),
        Some(primary)
            if primary.ordinal < wanted && well == usize::try_from(wanted).unwrap_or(0) && !going =>
        {
            Members::Ask(wanted.max(live - stride))
        }
        _ => Members::Hold(live),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::platform::plan::rollout::Member;

    fn fleet(size: i32, primary: i32, sick: &[i32]) -> Fleet {
        Fleet {
            members: (0..size)
                .map(|ordinal| Member {
                    name: format!("p-{ordinal}"),
                    ordinal,
                    well: !sick.contains(&ordinal),
                    ..Member::default()
                })
                .collect(),
            primary: Some(format!("p-{primary}")),
            wanted: usize::try_from(size).unwrap(),
        }
    }

    #[test]
    fn members_go_one_by_one_and_never_the_primary() {
        assert_eq!(decide(3, None, &Fleet::default(), 1), Members::Ask(3));
        assert_eq!(decide(5, Some(3), &fleet(3, 0, &[]), 1), Members::Ask(5));
        assert_eq!(decide(1, Some(3), &fleet(3, 0, &[]), 1), Members::Ask(2));
        assert_eq!(decide(1, Some(2), &fleet(2, 0, &[]), 1), Members::Ask(1));
        assert_eq!(decide(1, Some(3), &fleet(3, 2, &[]), 1), Members::MovePrimary(3));
        assert_eq!(
            decide(1, Some(2), &fleet(3, 0, &[]), 1),
            Members::Hold(2),
            "p-2 is still there"
        );
        assert_eq!(
            decide(3, Some(5), &fleet(5, 0, &[1]), 1),
            Members::Hold(5),
            "p-1 would be missed"
        );
        assert_eq!(
            decide(3, Some(5), &fleet(5, 0, &[4]), 1),
            Members::Ask(4),
            "p-4 goes anyway"
        );
    }

    proptest! {
        /// The primary's pod, and a member that is needed for the majority of those that stay, are never taken away.
        #[test]
        fn what_goes_is_never_needed(wanted in 1_i32..6, live in 1_i32..6, primary in 0_i32..6, sick in prop::collection::vec(0_i32..6, 0..4)) {
            let fleet = fleet(live, primary, &sick);
            let members = decide(wanted, Some(live), &fleet, 1);
            let number = members.number();
            prop_assert!(number >= wanted.min(live) && (number >= live || number == live - 1));
            if number < live {
                prop_assert!(primary < wanted);
                prop_assert!((0..wanted).all(|ordinal| !sick.contains(&ordinal)));
            }
        }
    }
}
