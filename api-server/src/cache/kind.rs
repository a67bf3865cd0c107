//! What is cached, and what it belongs to. An entity is the unit of invalidation: whatever was computed from it goes at once.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crds::config::CacheTtl;
use uuid::Uuid;

/// Kinds of entries: a closed set, and so a label of metrics. The number in the name is the version of the stored form; a release
/// that changes the form counts it up, and pods of two releases do not read each other's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Validated access tokens.
    Tokens,
    /// Permissions of a person.
    Permissions,
    /// A person's profile.
    UserProfile,
    /// Lists of memories.
    Memories,
    /// The plan catalogue.
    Plans,
    /// Recommendations.
    Recommendations,
    /// Analyses of usage.
    UsageAnalysis,
}

/// All kinds.
pub const KINDS: [Kind; 7] = [
    Kind::Tokens,
    Kind::Permissions,
    Kind::UserProfile,
    Kind::Memories,
    Kind::Plans,
    Kind::Recommendations,
    Kind::UsageAnalysis,
];

impl Kind {
    /// The name in keys, metrics and addresses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Permissions => "permissions",
            Self::UserProfile => "user_profile",
            Self::Memories => "memories",
            Self::Plans => "plan_catalog",
            Self::Recommendations => "recommendations",
            Self::UsageAnalysis => "usage_analysis",
        }
    }

    /// Version of the stored form.
    pub const fn version(self) -> u8 {
        1
    }

    /// Whether entries of this kind belong to one person.
    pub const fn is_personal(self) -> bool {
        !matches!(self, Self::Plans)
    }

    /// How long an entry may be served if nothing invalidates it.
    pub const fn ttl(self, ttl: &CacheTtl) -> Duration {
        match self {
            Self::Tokens => ttl.tokens,
            Self::Permissions => ttl.permissions,
            Self::UserProfile => ttl.user_profile,
            Self::Memories => ttl.memories,
            Self::Plans => ttl.plans,
            Self::Recommendations => ttl.recommendations,
            Self::UsageAnalysis => ttl.usage_analysis,
        }
        .get()
    }

    /// Place in [`KINDS`].
    pub fn index(self) -> usize {
        KINDS.iter().position(|kind| *kind == self).unwrap_or(0)
    }
}

/// A text that names nothing in the cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names nothing that is cached")]
pub struct Unknown(pub String);

impl FromStr for Kind {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        KINDS
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| Unknown(text.to_owned()))
    }
}

/// What an entry was computed from. The tenant is a part of it, so that nothing of one tenant can answer another (F21, F49).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entity {
    /// The kind of entries.
    pub kind: Kind,
    /// The tenant; none for what belongs to the whole platform.
    pub tenant: Option<Uuid>,
    /// The person, or whatever the kind is counted by; none for the only one of its tenant.
    pub id: Option<Uuid>,
}

impl Entity {
    /// Of one person.
    pub const fn of_person(kind: Kind, tenant: Uuid, person: Uuid) -> Self {
        Self {
            kind,
            tenant: Some(tenant),
            id: Some(person),
        }
    }

    /// Of the whole platform.
    pub const fn of_platform(kind: Kind) -> Self {
        Self {
            kind,
            tenant: None,
            id: None,
        }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:v{}:", self.kind.as_str(), self.kind.version())?;
        for (id, end) in [(self.tenant, ":"), (self.id, "")] {
            match id {
                Some(id) => write!(f, "{}{end}", id.simple())?,
                None => write!(f, "-{end}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Entity {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let unknown = || Unknown(text.to_owned());
        let mut parts = text.split(':');
        let mut part = || parts.next().ok_or_else(unknown);
        let kind: Kind = part()?.parse()?;
        if part()? != format!("v{}", kind.version()) {
            return Err(unknown());
        }
        let id = |text: &str| match text {
            "-" => Ok(None),
            id => Uuid::try_parse(id).map(Some).map_err(|_| unknown()),
        };
        let entity = Self {
            kind,
            tenant: id(part()?)?,
            id: id(part()?)?,
        };
        if parts.next().is_some() {
            return Err(unknown());
        }
        Ok(entity)
    }
}

/// What an invalidation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Everything computed from one entity.
    Entity(Entity),
    /// Everything of a kind.
    Kind(Kind),
}

impl Target {
    /// The kind in question.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Entity(entity) => entity.kind,
            Self::Kind(kind) => kind,
        }
    }

    /// Everything that belongs to one person (T27).
    pub fn person(tenant: Uuid, person: Uuid) -> Vec<Self> {
        KINDS
            .into_iter()
            .filter(|kind| kind.is_personal())
            .map(|kind| Self::Entity(Entity::of_person(kind, tenant, person)))
            .collect()
    }
}

impl From<Entity> for Target {
    fn from(entity: Entity) -> Self {
        Self::Entity(entity)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entity(entity) => entity.fmt(f),
            Self::Kind(kind) => f.write_str(kind.as_str()),
        }
    }
}

impl FromStr for Target {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        if text.contains(':') {
            text.parse().map(Self::Entity)
        } else {
            text.parse().map(Self::Kind)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_back() {
        let (tenant, person) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut targets = Target::person(tenant, person);
        targets.extend(KINDS.map(Target::Kind));
        targets.push(Entity::of_platform(Kind::Plans).into());
        for target in targets {
            assert_eq!(target.to_string().parse(), Ok(target));
        }
        for wrong in [
            "",
            "memories:",
            "memories:v2:-:-",
            "memories:v1:-:x",
            "memories:v1:-:-:-",
            "all",
        ] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_differ() {
        for (index, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind.index(), index);
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
    }
}
