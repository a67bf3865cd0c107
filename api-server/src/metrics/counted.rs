//! A gauge of what is under way.

use prometheus_client::metrics::gauge::Gauge;

/// Counts as long as it lives, also when whoever waits leaves in the middle.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// One more, until it is dropped.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_not_counted_any_more() {
        let gauge = Gauge::default();
        let (one, other) = (Counted::new(&gauge), Counted::new(&gauge));
        assert_eq!(gauge.get(), 2);
        drop(one);
        assert_eq!(gauge.get(), 1);
        drop(other);
        assert_eq!(gauge.get(), 0);
    }
}
