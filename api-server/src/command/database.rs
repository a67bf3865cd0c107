//! `db {pool,slow,indexes,cache}`.

use std::fmt::Write;

use super::Operation;
use super::verdict::{self, Verdict, percent};
use crate::args::DatabaseCommand;
use crate::store::inspect::{CountBlocks, CountSessions, IndexUses, SlowStatements};

/// Characters of a statement that are shown.
const MOST_SHOWN: usize = 160;

/// Asks the primary, and answers what to print.
pub async fn run(operation: &Operation, command: &DatabaseCommand) -> anyhow::Result<String> {
    match command {
        DatabaseCommand::Pool => pool(operation).await,
        DatabaseCommand::Slow { threshold } => slow(operation, f64::from(*threshold)).await,
        DatabaseCommand::Indexes => indexes(operation).await,
        DatabaseCommand::Cache => buffers(operation).await,
    }
}

async fn pool(operation: &Operation) -> anyhow::Result<String> {
    let (sessions, served) = operation
        .database
        .read(&operation.scope(true), &CountSessions)
        .await?;
    let (verdict, why) = verdict::sessions(&sessions);
    let out = sessions.api_busy + sessions.api_waiting;
    Ok(format!(
        "Instance:        {}\nPool size:       {} per process\nTotal:           {}\nChecked out:     {out}\n\
         Checked in:      {}\nOverflow:        0 (a pool never exceeds its size)\nUtilisation:     {:.1} %\n\
         Server:          {} of {} connections ({:.1} %)\nVerdict:         {verdict}: {why}\n",
        served.instance,
        operation.cache.config().database.pool_size,
        sessions.api,
        sessions.api - out,
        percent(out, sessions.api),
        sessions.all,
        sessions.max,
        percent(sessions.all, sessions.max),
    ))
}

async fn slow(operation: &Operation, threshold_ms: f64) -> anyhow::Result<String> {
    let slow = SlowStatements { threshold_ms };
    let (statements, served) = operation.database.read(&operation.scope(true), &slow).await?;
    let mut text = format!("Instance: {}\n", served.instance);
    for statement in &statements {
        let words: Vec<&str> = statement.statement.split_whitespace().collect();
        let shown: String = words.join(" ").chars().take(MOST_SHOWN).collect();
        writeln!(
            text,
            "mean {:>9.2} ms  max {:>9.2} ms  calls {:>8}  total {:>11.1} ms  {shown}",
            statement.mean_ms, statement.max_ms, statement.calls, statement.total_ms
        )?;
    }
    let on_average = statements
        .iter()
        .filter(|one| one.mean_ms >= threshold_ms)
        .count();
    let verdict = match (on_average, statements.len()) {
        (0, 0) => Verdict::Good,
        (0, _) => Verdict::Watch,
        _ => Verdict::Bad,
    };
    writeln!(
        text,
        "Verdict:  {verdict}: {on_average} statements take {threshold_ms} ms or more on average, {} did at least once",
        statements.len()
    )?;
    Ok(text)
}

async fn indexes(operation: &Operation) -> anyhow::Result<String> {
    let (indexes, served) = operation
        .database
        .read(&operation.scope(true), &IndexUses)
        .await?;
    let mut text = format!("Instance: {}\n", served.instance);
    let mut worst = Verdict::Good;
    for index in &indexes {
        let judged = verdict::index(index);
        worst = worst.max(judged.map_or(Verdict::Good, |(verdict, _)| verdict));
        let remark = judged.map_or_else(String::new, |(verdict, why)| format!("  {verdict}: {why}"));
        writeln!(
            text,
            "{:<24} {:<36} scans {:>9}  {:>8} KiB{remark}",
            index.table,
            index.name,
            index.scans,
            index.bytes / 1024
        )?;
    }
    writeln!(text, "Verdict:  {worst}: {} indexes", indexes.len())?;
    Ok(text)
}

async fn buffers(operation: &Operation) -> anyhow::Result<String> {
    let (blocks, served) = operation
        .database
        .read(&operation.scope(true), &CountBlocks)
        .await?;
    let (verdict, rate, why) = verdict::buffers(&blocks);
    Ok(format!(
        "Instance: {}\nHits:     {}\nReads:    {}\nHit rate: {rate:.2} %\nVerdict:  {verdict}: {why}\n",
        served.instance, blocks.hits, blocks.reads
    ))
}
