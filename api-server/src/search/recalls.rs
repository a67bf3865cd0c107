//! How well approximate searches of this process have found, by the few that were compared with the exact answer.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Comparisons that are remembered.
const KEPT: usize = 100;

/// The last comparisons.
#[derive(Debug, Default)]
pub struct Recalls(Mutex<VecDeque<f64>>);

impl Recalls {
    /// Whether a search is to be compared, by a number drawn between 0 and 1: a share of all, and the first one, so that every approximate
    /// answer can tell how good it may be.
    pub fn due(&self, share: f64, drawn: f64) -> bool {
        drawn <= share || self.kept().is_empty()
    }

    /// Remembers a comparison.
    pub fn note(&self, recall: f64) {
        let mut kept = self.kept();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(recall);
    }

    /// The mean of what is remembered.
    pub fn mean(&self) -> Option<f64> {
        let kept = self.kept();
        let count = u32::try_from(kept.len()).ok().filter(|count| *count > 0)?;
        Some(kept.iter().sum::<f64>() / f64::from(count))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<f64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_compared_and_then_a_share() {
        let recalls = Recalls::default();
        assert!(recalls.due(0.0, 1.0));
        recalls.note(0.5);
        assert!(recalls.due(0.01, 0.01));
        assert!(!recalls.due(0.01, 0.02));
    }

    #[test]
    fn the_mean_is_that_of_the_last_ones() {
        let recalls = Recalls::default();
        assert_eq!(recalls.mean(), None);
        recalls.note(0.0);
        for _ in 0..KEPT {
            recalls.note(1.0);
        }
        assert_eq!(recalls.mean(), Some(1.0));
    }
}
