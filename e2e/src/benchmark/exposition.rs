//! What a server says of itself on `/metrics`, as far as a measurement asks for it.

use std::collections::BTreeMap;

/// Samples of one moment, by series.
#[derive(Debug, Clone, Default)]
pub struct Exposition(BTreeMap<String, f64>);

impl Exposition {
    /// Of the text; lines that are no samples are left out.
    pub fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(sample).collect())
    }

    /// Values of a metric whose labels contain each of `labels`, such as `state="used"`.
    pub fn values<'a>(&'a self, metric: &'a str, labels: &'a [&str]) -> impl Iterator<Item = f64> + 'a {
        self.series(metric)
            .filter(|(rest, _)| labels.iter().all(|label| rest.contains(label)))
            .map(|(_, value)| value)
    }

    /// Their sum.
    pub fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        self.values(metric, labels).sum()
    }

    /// The upper bound in seconds of the bucket under which `share` of what a histogram counted since `before` lies; none if there was
    /// nothing to count.
    pub fn quantile_since(&self, before: &Self, metric: &str, share: f64) -> Option<f64> {
        let (now, before) = (self.buckets(metric), before.buckets(metric));
        let counted: Vec<(f64, f64)> = now
            .into_iter()
            .map(|(bound, count)| (f64::from_bits(bound), count - before.get(&bound).unwrap_or(&0.0)))
            .collect();
        let all = counted.last().map(|(_, count)| *count).filter(|all| *all > 0.0)?;
        counted
            .iter()
            .find(|(_, count)| *count >= all * share)
            .map(|(bound, _)| *bound)
    }

    /// Cumulative counts by upper bound, over all series. Bits of numbers that are not negative are in the order of the numbers.
    fn buckets(&self, metric: &str) -> BTreeMap<u64, f64> {
        let mut buckets = BTreeMap::new();
        for (labels, count) in self.series(&format!("{metric}_bucket")) {
            let bound = labels
                .split("le=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            let bound = match bound {
                Some("+Inf") => f64::INFINITY,
                Some(text) => text.parse().unwrap_or(f64::INFINITY),
                None => continue,
            };
            *buckets.entry(bound.to_bits()).or_default() += count;
        }
        buckets
    }

    fn series<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = (&'a str, f64)> + 'a {
        self.0.iter().filter_map(move |(series, value)| {
            let rest = series.strip_prefix(metric)?;
            (rest.is_empty() || rest.starts_with('{')).then_some((rest, *value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# TYPE a_seconds histogram\na_seconds_bucket{le=\"0.1\",k=\"x\"} 5\na_seconds_bucket{le=\"1\",k=\"x\"} 5\n\
                          a_seconds_bucket{le=\"+Inf\",k=\"x\"} 5\n";
    const AFTER: &str = "a_seconds_bucket{le=\"0.1\",k=\"x\"} 95\na_seconds_bucket{le=\"1\",k=\"x\"} 104\na_seconds_bucket{le=\"+Inf\",k=\"x\"} 105\n\
                         used{pool=\"a\",state=\"used\"} 3\nused{pool=\"b\",state=\"used\"} 2\nused{pool=\"b\",state=\"max\"} 8\nused_too 9\n";

    #[test]
    fn series_are_added_and_quantiles_are_of_what_came_since() {
        let (before, after) = (Exposition::parse(BEFORE), Exposition::parse(AFTER));
        assert!((after.sum("used", &["state=\"used\""]) - 5.0).abs() < f64::EPSILON);
        assert_eq!(after.quantile_since(&before, "a_seconds", 0.9), Some(0.1));
        assert_eq!(after.quantile_since(&before, "a_seconds", 0.95), Some(1.0));
        assert_eq!(
            after.quantile_since(&before, "a_seconds", 1.0),
            Some(f64::INFINITY)
        );
        assert_eq!(after.quantile_since(&after, "a_seconds", 0.5), None);
    }
}
