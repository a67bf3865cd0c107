//! What the host of a virtual machine gives to others while something is measured here. It comes and goes, shows in a p99 before it shows
//! anywhere else, and is no property of what is measured.

use std::fs;

/// Ticks of all processors since the start of the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticks {
    stolen: u64,
    all: u64,
}

impl Ticks {
    /// As the kernel counts them now; none where it does not.
    pub fn read() -> Self {
        fs::read_to_string("/proc/stat")
            .ok()
            .and_then(|text| Self::parse(&text))
            .unwrap_or_default()
    }

    /// Hundredths of the processor's time that others had since an earlier count.
    pub fn stolen_since(self, before: Self) -> u64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) * 100 / all
    }

    /// Of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal; what guests had is in the first two.
    fn parse(text: &str) -> Option<Self> {
        let all = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Option<Vec<u64>> = all
            .split_ascii_whitespace()
            .take(8)
            .map(|field| field.parse().ok())
            .collect();
        let ticks = ticks.filter(|ticks| ticks.len() == 8)?;
        Some(Self {
            stolen: ticks[7],
            all: ticks.iter().sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_is_read() {
        let before = Ticks::parse("cpu  100 0 50 800 10 0 5 35 7 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n").unwrap();
        assert_eq!(
            before,
            Ticks {
                stolen: 35,
                all: 1_000
            }
        );
        let after = Ticks::parse("cpu  150 0 60 820 10 0 5 55 7 0\n").unwrap();
        assert_eq!(after.stolen_since(before), 20);
        assert_eq!(before.stolen_since(before), 0);
        assert_eq!(Ticks::parse("cpu0 1 2 3"), None);
        assert_eq!(Ticks::parse("cpu  1 2 3"), None);
    }
}
