//! What is in Redis after a scenario, and what 100,000 such keys would take (R08).

use anyhow::{Context, Result};

use crate::benchmark::report::Report;
use crate::services::Platform;

/// Entries for which the memory is asked.
const ENTRIES: u64 = 100_000;
const GOAL: u64 = 2 << 30;

/// Adds the row.
pub async fn report(report: &mut Report, name: &str, platform: &Platform) -> Result<()> {
    let primary = platform.redis.primary().await?.context("Redis has no primary")?;
    let memory = platform.redis.server(primary, &["INFO", "memory"]).await?;
    let used = field(&memory, "used_memory_dataset").context("Redis does not tell its memory")?;
    let keys = platform.redis.server(primary, &["DBSIZE"]).await?;
    let keys: u64 = keys.trim().trim_start_matches(':').parse()?;
    if keys < 100 {
        return Ok(());
    }
    let of_many = used / keys * ENTRIES;
    report.row(
        &format!("{name}: Redis"),
        &format!(
            "{keys} keys in {} KiB; {ENTRIES} such keys take {} MiB",
            used >> 10,
            of_many >> 20
        ),
        "2 GiB for 100,000 entries",
        Some(of_many < GOAL),
    );
    Ok(())
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "# Memory\r\nused_memory:100\r\nused_memory_dataset:42\r\nused_memory_dataset_perc:9%\r\n";
        assert_eq!(field(text, "used_memory_dataset"), Some(42));
        assert_eq!(field(text, "used"), None);
    }
}
