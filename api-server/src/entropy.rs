//! The rim where randomness enters: identifiers, secrets and jitter.

use std::time::Duration;

use uuid::Uuid;

/// Unpredictable bytes from the operating system's generator.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut drawn = [0; N];
    rand::fill(&mut drawn);
    drawn
}

/// A new identifier that sorts by its time of creation.
pub fn id() -> Uuid {
    Uuid::now_v7()
}

/// A duration between half of `base` and one and a half of it, so that processes do not act in step.
pub fn jitter(base: Duration) -> Duration {
    base.mul_f64(rand::random_range(0.5..1.5))
}

/// At least `base`, at most one and a half of it: for a pause that somebody has asked for, or that protects somebody.
pub fn later(base: Duration) -> Duration {
    base.mul_f64(rand::random_range(1.0..1.5))
}

/// A number above 0, at most 1, each as likely as the other.
pub fn uniform() -> f64 {
    1.0 - rand::random_range(0.0..1.0)
}

/// A whole number from 0 to below `bound`, each as likely as the other; 0 if there is none.
pub fn below(bound: i64) -> i64 {
    rand::random_range(0..bound.max(1))
}
