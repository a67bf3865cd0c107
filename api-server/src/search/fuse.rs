//! Joins two ranked lists into one. Pure.

use std::collections::HashMap;
use std::hash::Hash;

/// Softens the difference between the first ranks; the value of Cormack, Clarke and Buettcher (2009).
const SOFTEN: f64 = 60.0;

/// Reciprocal rank fusion: the ids of both lists, the best first, each with its score. Equal scores stay in the order of the first list.
pub fn fuse<K: Eq + Hash + Copy>(first: &[K], second: &[K]) -> Vec<(K, f64)> {
    let mut scores: HashMap<K, f64> = HashMap::new();
    let mut order: Vec<K> = Vec::new();
    for list in [first, second] {
        for (rank, id) in (1_u32..).zip(list) {
            let score = scores.entry(*id).or_insert_with(|| {
                order.push(*id);
                0.0
            });
            *score += 1.0 / (SOFTEN + f64::from(rank));
        }
    }
    let mut fused: Vec<_> = order.into_iter().map(|id| (id, scores[&id])).collect();
    fused.sort_by(|a, b| b.1.total_cmp(&a.1));
    fused
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_both_lists_name_wins() {
        let ids: Vec<_> = fuse(&[1, 2, 3], &[3, 4]).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [3, 1, 2, 4]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_comes_twice(
            a in proptest::collection::hash_set(0_u8..50, 0..20), b in proptest::collection::hash_set(0_u8..50, 0..20)
        ) {
            let (first, second): (Vec<_>, Vec<_>) = (a.iter().copied().collect(), b.iter().copied().collect());
            let fused = fuse(&first, &second);
            let ids: std::collections::HashSet<_> = fused.iter().map(|(id, _)| *id).collect();
            prop_assert_eq!(ids.len(), fused.len());
            prop_assert_eq!(&ids, &a.union(&b).copied().collect());
            prop_assert!(fused.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        }
    }
}
