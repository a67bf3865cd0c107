//! Background work as people see it, and what follows when it fails.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Copies records from a source.
    Sync,
    /// Tells an endpoint of an event.
    Webhook,
}

/// All kinds that this release can do.
pub const KINDS: [TaskKind; 2] = [TaskKind::Sync, TaskKind::Webhook];

impl TaskKind {
    /// The name that is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Webhook => "webhook",
        }
    }
}

/// A name that is no kind.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no kind of job")]
pub struct UnknownKind(String);

impl FromStr for TaskKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        KINDS
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// It waits for a worker, or for its next attempt.
    Queued,
    /// A worker is at it.
    Running,
    /// It is done.
    Succeeded,
    /// It was given up; it can be tried again by hand.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
}

/// All of them.
const STATUSES: [TaskStatus; 5] = [
    TaskStatus::Queued,
    TaskStatus::Running,
    TaskStatus::Succeeded,
    TaskStatus::Failed,
    TaskStatus::Cancelled,
];

impl TaskStatus {
    /// The name that is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A name that is no status.
#[derive(Debug, thiserror::Error)]
#[error("must be queued, running, succeeded, failed or cancelled")]
pub struct UnknownStatus;

impl FromStr for TaskStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        STATUSES
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(UnknownStatus)
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The other side cannot do it now; it may have said when to ask again.
    #[error("{cause}")]
    Unavailable {
        /// Why, without secrets.
        cause: String,
        /// When to ask again.
        after: Option<Duration>,
    },
    /// It makes no sense to the other side, or what it answers makes none to us.
    #[error("{0}")]
    Refused(String),
    /// No attempt will ever work.
    #[error("{0}")]
    Hopeless(String),
}

impl Failure {
    /// Unavailable, without a time.
    pub fn unavailable(cause: impl Into<String>) -> Self {
        Self::Unavailable {
            cause: cause.into(),
            after: None,
        }
    }
}

/// How often and in what pauses something is tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// First pause; each one is longer than the one before by the same factor.
    pub first: Duration,
    /// By how much.
    pub factor: u32,
    /// Longest pause.
    pub longest: Duration,
    /// Attempts while the other side is away; without a number it is tried for ever.
    pub unavailable: Option<u32>,
    /// Attempts of what is refused.
    pub refused: u32,
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Again after a pause.
    Retry(Duration),
    /// Not again.
    GiveUp,
}

/// Longest pause that another side may ask for.
const LONGEST_ASKED: Duration = Duration::from_hours(24);

/// Decides what follows a failure of an attempt, counted from 1.
pub fn after(patience: Patience, attempt: u32, failure: &Failure) -> Next {
    let growth = patience.factor.saturating_pow(attempt.saturating_sub(1));
    let pause = patience.first.saturating_mul(growth).min(patience.longest);
    let (most, pause) = match failure {
        Failure::Unavailable { after, .. } => {
            let asked = after.map_or(pause, |asked| asked.min(LONGEST_ASKED));
            (patience.unavailable, asked.max(pause))
        }
        Failure::Refused(_) => (Some(patience.refused), pause),
        Failure::Hopeless(_) => return Next::GiveUp,
    };
    if most.is_some_and(|most| attempt >= most) {
        Next::GiveUp
    } else {
        Next::Retry(pause)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience {
        first: Duration::from_secs(5),
        factor: 4,
        longest: Duration::from_hours(1),
        unavailable: Some(6),
        refused: 3,
    };

    fn asks(seconds: u64) -> Failure {
        Failure::Unavailable {
            cause: String::new(),
            after: Some(Duration::from_secs(seconds)),
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_the_other_side_may_ask_for_longer_ones() {
        let away = Failure::unavailable("away");
        assert_eq!(after(PATIENCE, 1, &away), Next::Retry(Duration::from_secs(5)));
        assert_eq!(after(PATIENCE, 3, &away), Next::Retry(Duration::from_secs(80)));
        assert_eq!(after(PATIENCE, 5, &away), Next::Retry(Duration::from_secs(1_280)));
        assert_eq!(
            after(PATIENCE, 1, &asks(30)),
            Next::Retry(Duration::from_secs(30))
        );
        assert_eq!(
            after(PATIENCE, 3, &asks(30)),
            Next::Retry(Duration::from_secs(80))
        );
        assert_eq!(after(PATIENCE, 1, &asks(u64::MAX)), Next::Retry(LONGEST_ASKED));
    }

    #[test]
    fn each_kind_of_failure_has_its_end() {
        assert_eq!(after(PATIENCE, 6, &Failure::unavailable("")), Next::GiveUp);
        assert_eq!(
            after(PATIENCE, 2, &Failure::Refused(String::new())),
            Next::Retry(Duration::from_secs(20))
        );
        assert_eq!(after(PATIENCE, 3, &Failure::Refused(String::new())), Next::GiveUp);
        assert_eq!(
            after(PATIENCE, 1, &Failure::Hopeless(String::new())),
            Next::GiveUp
        );
        let patient = Patience {
            unavailable: None,
            ..PATIENCE
        };
        assert_eq!(
            after(patient, 100_000, &Failure::unavailable("")),
            Next::Retry(PATIENCE.longest)
        );
    }

    proptest! {
        #[test]
        fn no_pause_is_longer_than_its_bound(attempt in any::<u32>(), seconds in any::<u64>()) {
            if let Next::Retry(pause) = after(PATIENCE, attempt, &asks(seconds)) {
                prop_assert!(pause >= PATIENCE.first && pause <= LONGEST_ASKED);
            }
        }
    }

    #[test]
    fn names_are_read_back() {
        for status in STATUSES {
            assert_eq!(status.as_str().parse::<TaskStatus>().ok(), Some(status));
        }
        for kind in KINDS {
            assert_eq!(kind.as_str().parse::<TaskKind>().ok(), Some(kind));
        }
    }
}
