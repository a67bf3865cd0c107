//! What was tried lately outside of applying objects: questions of pace, so that nothing is asked for twice at once or without end.

use std::collections::BTreeMap;
use std::time::Duration;

/// Pause before a command is tried again; it doubles with each try.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// The commands of one platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commands {
    /// The one that Patroni is carrying out right now. There is never a second one.
    pub running: Option<String>,
    /// Those that were tried, by name.
    pub tried: BTreeMap<String, Tried>,
}

/// A command that was tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    /// How often, without a success that was remembered.
    pub times: u32,
    /// How long ago it was last.
    pub ago: Duration,
    /// What was answered, when it did not succeed.
    pub failure: Option<String>,
}

impl Commands {
    /// Whether it is time to try a command, for the first time or again.
    pub fn may(&self, name: &str) -> bool {
        self.running.is_none()
            && self
                .tried
                .get(name)
                .is_none_or(|tried| tried.ago >= pause(tried.times))
    }

    /// How often a command was tried lately.
    pub fn times(&self, name: &str) -> u32 {
        self.tried.get(name).map_or(0, |tried| tried.times)
    }

    /// Why a command failed when it was last tried.
    pub fn failure(&self, name: &str) -> Option<&str> {
        self.tried.get(name)?.failure.as_deref()
    }
}

fn pause(times: u32) -> Duration {
    let doublings = times.saturating_sub(1).min(8);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(times: u32, seconds: u64) -> Commands {
        let entry = Tried {
            times,
            ago: Duration::from_secs(seconds),
            failure: None,
        };
        Commands {
            running: None,
            tried: [("parameters".to_owned(), entry)].into(),
        }
    }

    #[test]
    fn a_command_is_tried_again_later_each_time() {
        assert!(Commands::default().may("parameters"));
        assert!(!tried(1, 4).may("parameters") && tried(1, 5).may("parameters"));
        assert!(!tried(3, 19).may("parameters") && tried(3, 20).may("parameters"));
        assert!(!tried(90, 59).may("parameters") && tried(90, 60).may("parameters"));
    }

    #[test]
    fn there_is_never_a_second_one() {
        let busy = Commands {
            running: Some("switchover".to_owned()),
            ..Commands::default()
        };
        assert!(!busy.may("parameters"));
    }
}
