//! A part of all plans that holds as much of everything as can be: in turn from each workload, each time of the kind of fault that was
//! taken least. The same seed takes the same plans.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::campaign::Plan;

/// So many plans, in their order.
pub fn choose(plans: Vec<Plan<'_>>, wanted: usize, seed: usize) -> Vec<Plan<'_>> {
    if wanted >= plans.len() {
        return plans;
    }
    let mut queues: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, plan) in plans.iter().enumerate() {
        queues.entry(plan.workload.name).or_default().push(index);
    }
    for queue in queues.values_mut() {
        queue.sort_by_cached_key(|index| lot(&plans[*index], seed));
    }
    let kinds: Vec<String> = plans.iter().map(|plan| plan.injection.kind()).collect();
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    let mut chosen = Vec::with_capacity(wanted);
    while chosen.len() < wanted {
        for queue in queues.values_mut() {
            let rarest = (0..queue.len()).min_by_key(|place| {
                let kind = kinds[queue[*place]].as_str();
                taken.get(kind).copied().unwrap_or_default()
            });
            let Some(place) = rarest.filter(|_| chosen.len() < wanted) else {
                continue;
            };
            let index = queue.remove(place);
            *taken.entry(&kinds[index]).or_default() += 1;
            chosen.push(index);
        }
    }
    chosen.sort_unstable();
    let mut plans: Vec<Option<Plan<'_>>> = plans.into_iter().map(Some).collect();
    chosen.iter().filter_map(|index| plans[*index].take()).collect()
}

fn lot(plan: &Plan<'_>, seed: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, plan.workload.name, plan.injection.to_string()).hash(&mut hasher);
    hasher.finish()
}
