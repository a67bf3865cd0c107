//! Who may change whose role. Pure.

use super::principal::Role;

/// A change to a person of the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The new role.
    pub role: Option<Role>,
    /// Whether the person may log in.
    pub is_active: Option<bool>,
}

/// Why a change is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Only an owner may.
    OwnersOnly,
    /// Nobody changes oneself here.
    Yourself,
    /// A tenant keeps an owner.
    LastOwner,
}

/// The person to be changed, as the table has it now.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Whether it is the one who asks.
    pub is_self: bool,
    /// Present role.
    pub role: Role,
    /// Owners of the tenant who may log in, without this person.
    pub other_owners: i64,
}

/// Decides whether somebody with a role that may manage people may make this change.
pub fn judge(actor: Role, target: Target, change: Change) -> Result<(), Refusal> {
    if target.is_self {
        return Err(Refusal::Yourself);
    }
    let touches_owner = target.role == Role::Owner || change.role == Some(Role::Owner);
    if touches_owner && actor != Role::Owner {
        return Err(Refusal::OwnersOnly);
    }
    let leaves = change.role.is_some_and(|role| role != Role::Owner) || change.is_active == Some(false);
    if target.role == Role::Owner && leaves && target.other_owners == 0 {
        return Err(Refusal::LastOwner);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Role::Admin, Role::Member, Some(Role::Viewer), None, Ok(()))]
    #[case(Role::Admin, Role::Member, Some(Role::Owner), None, Err(Refusal::OwnersOnly))]
    #[case(Role::Admin, Role::Owner, None, Some(false), Err(Refusal::OwnersOnly))]
    #[case(Role::Owner, Role::Owner, Some(Role::Member), None, Err(Refusal::LastOwner))]
    #[case(Role::Owner, Role::Owner, None, Some(false), Err(Refusal::LastOwner))]
    #[case(Role::Owner, Role::Owner, None, Some(true), Ok(()))]
    #[case(Role::Owner, Role::Admin, Some(Role::Owner), None, Ok(()))]
    fn roles_are_changed_by_those_above(
        #[case] actor: Role,
        #[case] present: Role,
        #[case] role: Option<Role>,
        #[case] is_active: Option<bool>,
        #[case] judged: Result<(), Refusal>,
    ) {
        let target = Target {
            is_self: false,
            role: present,
            other_owners: 0,
        };
        assert_eq!(judge(actor, target, Change { role, is_active }), judged);
    }

    #[test]
    fn nobody_changes_oneself() {
        let me = Target {
            is_self: true,
            role: Role::Owner,
            other_owners: 3,
        };
        let change = Change {
            role: Some(Role::Viewer),
            is_active: None,
        };
        assert_eq!(judge(Role::Owner, me, change), Err(Refusal::Yourself));
    }
}
