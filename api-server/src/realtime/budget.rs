//! How many connections this process can serve: what the configuration allows, and what files and memory allow. Computed at the start,
//! so that the one too many is refused with 503 instead of failing.

use std::fs;

/// Open files that are kept for databases, Redis, listeners and logs.
const FILES_KEPT: u64 = 256;
/// Bytes that are kept for everything but connections: code, caches, requests in flight.
const MEMORY_KEPT: u64 = 96 << 20;
/// Bytes of an idle connection with two channels, the kernel's part included.
const PER_CONNECTION: u64 = 8 << 10;

/// What the machine grants this process. Nothing known is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grant {
    /// Open files.
    pub files: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
}

impl Grant {
    /// As the kernel states it for this process and its control group.
    pub fn read() -> Self {
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let memory = fs::read_to_string("/sys/fs/cgroup/memory.max").unwrap_or_default();
        Self {
            files: files(&limits),
            memory: memory.trim().parse().ok(),
        }
    }

    /// Connections of which the configuration wants so many.
    pub fn connections(self, wanted: u32) -> u32 {
        let by_files = self.files.map(|files| files.saturating_sub(FILES_KEPT));
        let by_memory = self
            .memory
            .map(|bytes| bytes.saturating_sub(MEMORY_KEPT) / PER_CONNECTION);
        let least = [by_files, by_memory].into_iter().flatten().min();
        let least = least.and_then(|least| u32::try_from(least).ok());
        // One that can serve nobody is of no use to anybody who looks for the reason.
        least.map_or(wanted, |least| wanted.min(least.max(1)))
    }
}

/// The soft limit of open files.
fn files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// C14: 50,000 connections fit into the 512 MiB of a pod.
    #[rstest]
    #[case(None, None, 50_000)]
    #[case(Some(1_024), None, 768)]
    #[case(Some(100), None, 1)]
    #[case(None, Some(512 << 20), 50_000)]
    #[case(None, Some(256 << 20), 20_480)]
    #[case(Some(1 << 20), Some(1 << 30), 50_000)]
    fn the_scarcest_thing_decides(
        #[case] files: Option<u64>,
        #[case] memory: Option<u64>,
        #[case] connections: u32,
    ) {
        assert_eq!(Grant { files, memory }.connections(50_000), connections);
    }

    #[test]
    fn the_kernels_table_is_read() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max open files            20000                1048576              files     \n";
        assert_eq!(files(table), Some(20_000));
        assert_eq!(
            files("Max open files            unlimited            unlimited            files"),
            None
        );
    }
}
