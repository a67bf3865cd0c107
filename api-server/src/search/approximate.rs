//! Who is searched through an index instead of exactly, and how well that finds. Pure.

use std::time::Duration;

/// Numbers of vectors that an index is there for, one migration each. Somebody with others is searched exactly.
pub const INDEXED: [usize; 5] = [384, 768, 1024, 1536, 3072];

/// When people are searched through the index, and how often that is compared with the exact answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Somebody with more vectors of a model than this.
    pub above: i64,
    /// Share of approximate searches whose exact answer is computed too, 0 to 1.
    pub sampled: f64,
    /// Time between looks for people who have to be tended.
    pub look: Duration,
    /// When somebody who is well is looked at, and measured, again.
    pub rest: Duration,
}

impl Default for Scale {
    /// Comparing 50,000 vectors of 384 numbers takes about 20 ms. One comparison in a hundred adds little to the time of the others, and is
    /// enough to tell within a day whether the index still finds what it should.
    fn default() -> Self {
        Self {
            above: 50_000,
            sampled: 0.01,
            look: Duration::from_secs(30),
            rest: Duration::from_mins(30),
        }
    }
}

impl Scale {
    /// Whoever has fewer than this leaves the index. Far below the number that leads into it, so that nobody goes to and fro.
    pub const fn low(&self) -> i64 {
        self.above / 2
    }
}

/// Share of the truly nearest that the index has to find of somebody to be trusted.
const GOOD: f64 = 0.99;
/// Below this it is not trusted any more. A measurement of some hundred rows varies by about half of a hundredth.
const BAD: f64 = 0.98;

/// What is known of a person who is or was to be searched through the index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Searches go through the index.
    pub ready: bool,
    /// There are enough vectors for it.
    pub enough: bool,
    /// Rows are not in the index that should be, or are in it and should not.
    pub astray: bool,
    /// Share of the truly nearest that the index finds, if it was measured.
    pub recall: Option<f64>,
}

/// What to do next for that person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Put rows into the index, or take them out.
    Mark(bool),
    /// Measure what the index finds.
    Measure,
    /// Let searches go through the index, or not any more.
    Trust(bool),
    /// Look again later.
    Rest,
    /// Search the person exactly, for good.
    Forget,
}

/// Decides. No search goes through the index while rows are moved, nor where it finds too little: the smaller somebody's part of all its rows,
/// the less it finds.
pub fn next(seen: Seen) -> Next {
    match (seen.enough, seen.ready, seen.astray, seen.recall) {
        (false, true, ..) => Next::Trust(false),
        (enough, false, true, _) => Next::Mark(enough),
        (false, false, false, _) => Next::Forget,
        (true, _, _, None) => Next::Measure,
        (true, true, _, Some(recall)) if recall < BAD => Next::Trust(false),
        (true, false, false, Some(recall)) if recall >= GOOD => Next::Trust(true),
        (true, ..) => Next::Rest,
    }
}

/// Similarities that differ by less are the same: half precision, added up in another order.
const SAME: f64 = 1e-6;

/// Share of the truly nearest that was found, by their similarities. One that is as near as the last of the truly nearest counts, because
/// which of equally near ones comes first is nobody's mistake.
pub fn recall(found: &[f64], nearest: &[f64]) -> f64 {
    let Some(last) = nearest.iter().copied().reduce(f64::min) else {
        return 1.0;
    };
    let hits = found
        .iter()
        .filter(|similarity| **similarity >= last - SAME)
        .count();
    let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    count(hits.min(nearest.len())) / count(nearest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn recall_counts_what_is_near_enough() {
        let nearest = [0.9, 0.8, 0.7, 0.7];
        for (found, wanted) in [
            (vec![0.9, 0.8, 0.7, 0.7], 1.0),
            (vec![0.9, 0.8, 0.7, 0.6], 0.75),
            (vec![0.7; 9], 1.0),
            (vec![], 0.0),
        ] {
            assert!((recall(&found, &nearest) - wanted).abs() < 1e-9, "{found:?}");
        }
        assert!((recall(&[], &[]) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn who_leaves_has_far_fewer_than_who_comes() {
        let scale = Scale::default();
        assert!(scale.low() * 2 <= scale.above);
    }

    proptest! {
        /// Whatever a person is found in, a few steps lead to an end, and on the way nothing is moved while searches go through the index.
        #[test]
        fn tending_ends(ready: bool, enough: bool, astray: bool, found in 0.95_f64..1.0) {
            // Rows of somebody who is ready are all where they should be.
            let mut seen = Seen { ready, enough, astray: astray && !ready, recall: None };
            for _ in 0..6 {
                match next(seen) {
                    Next::Mark(to) => {
                        prop_assert!(!seen.ready && to == enough);
                        (seen.astray, seen.recall) = (false, None);
                    }
                    Next::Measure => {
                        prop_assert!(enough && !seen.astray);
                        seen.recall = Some(found);
                    }
                    Next::Trust(to) => {
                        prop_assert!(to != seen.ready && !seen.astray);
                        let right = if to { enough && found >= GOOD } else { !enough || found < BAD };
                        prop_assert!(right);
                        seen.ready = to;
                        // What was right for the index is wrong without it.
                        seen.astray = !enough;
                    }
                    Next::Rest => {
                        prop_assert!(enough && (seen.ready || found < GOOD));
                        return Ok(());
                    }
                    Next::Forget => {
                        prop_assert!(!enough && !seen.ready && !seen.astray);
                        return Ok(());
                    }
                }
            }
            prop_assert!(false, "no end");
        }
    }
}
