//! A person who keeps posting messages and remembers which were acknowledged: what a failover may delay but never lose.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::Client;

/// Pause between two messages: below the 600 requests a minute that a platform allows a person by default.
const PACE: Duration = Duration::from_millis(110);
/// Most messages of one run, so that it ends by itself.
const MOST: u32 = 20_000;

/// What was acknowledged, and how long the longest silence between two acknowledgements was.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Numbers of the messages that the API accepted.
    pub acknowledged: Vec<u32>,
    /// Requests that failed.
    pub failures: u32,
    /// Longest time without an acknowledgement.
    pub longest_gap: Duration,
}

/// A writer at work.
#[derive(Debug)]
pub struct Writer {
    stop: CancellationToken,
    task: JoinHandle<Record>,
    client: Client,
    conversation: String,
    prefix: String,
}

impl Writer {
    /// Starts to post to a conversation. `prefix` tells this writer's messages from others'.
    pub fn start(client: &Client, conversation: &str, prefix: &str) -> Self {
        let stop = CancellationToken::new();
        let work = write(
            client.clone(),
            conversation.to_owned(),
            prefix.to_owned(),
            stop.clone(),
        );
        Self {
            stop,
            task: tokio::spawn(work),
            client: client.clone(),
            conversation: conversation.to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    /// Ends, and checks that every acknowledged message is there exactly once.
    pub async fn finish(self) -> Result<Record> {
        self.stop.cancel();
        let record = self.task.await?;
        let stored = count(&self.client, &self.conversation, &self.prefix).await?;
        let lost: Vec<_> = record
            .acknowledged
            .iter()
            .filter(|number| !stored.contains_key(number))
            .collect();
        ensure!(
            lost.is_empty(),
            "{} of {} acknowledged messages are lost: {lost:?}",
            lost.len(),
            record.acknowledged.len()
        );
        let doubled: Vec<_> = stored
            .iter()
            .filter(|(_, times)| **times > 1)
            .map(|(number, _)| number)
            .collect();
        ensure!(
            doubled.is_empty(),
            "these messages are stored more than once: {doubled:?}"
        );
        Ok(record)
    }
}

async fn write(client: Client, conversation: String, prefix: String, stop: CancellationToken) -> Record {
    let path = format!("/api/v1/conversations/{conversation}/messages");
    let mut record = Record::default();
    let mut last = Instant::now();
    for number in 0..MOST {
        if stop.is_cancelled() {
            break;
        }
        let body = json!({"content": format!("{prefix} {number}")});
        // One key a message: a request that is sent again after an unclear answer is stored once. Keys belong to the person, not to the conversation.
        let key = format!("{prefix}-{conversation}-{number}");
        let answer = client
            .post(&path, &body, &[("idempotency-key", &key)])
            .await
            .and_then(crate::client::Answer::success);
        match answer {
            Ok(_) => {
                record.longest_gap = record.longest_gap.max(last.elapsed());
                last = Instant::now();
                record.acknowledged.push(number);
            }
            Err(_) => record.failures += 1,
        }
        tokio::time::sleep(PACE).await;
    }
    record.longest_gap = record.longest_gap.max(last.elapsed());
    record
}

/// How often each of the writer's messages is stored.
async fn count(client: &Client, conversation: &str, prefix: &str) -> Result<BTreeMap<u32, u32>> {
    let mut found = BTreeMap::new();
    let mut cursor: Option<String> = None;
    loop {
        let after = cursor
            .as_ref()
            .map(|cursor| format!("&cursor={cursor}"))
            .unwrap_or_default();
        let path = format!("/api/v1/conversations/{conversation}/messages?limit=100{after}");
        let page = client.get(&path, &[]).await?.success()?.body;
        for item in page["items"].as_array().into_iter().flatten() {
            let content = item["content"].as_str().unwrap_or_default();
            if let Some(number) = content
                .strip_prefix(prefix)
                .and_then(|rest| rest.trim().parse().ok())
            {
                *found.entry(number).or_insert(0) += 1;
            }
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(found);
        }
    }
}
