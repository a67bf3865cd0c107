//! Somebody who uses a platform's API from outside while things happen to it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;

use super::subject::Subject;
use crate::client::Client;
use crate::cluster::Endpoint;
use crate::journey::{self, Person};
use crate::writer::{Record, Writer};

/// A person with a way in.
pub struct Visitor {
    /// The person, logged in.
    pub person: Person,
    _door: Endpoint,
}

impl Visitor {
    /// Opens a way in, signs up and logs in.
    pub async fn enter(subject: &Subject<'_>) -> Result<Self> {
        let door = door(subject).await?;
        let person = journey::join(&Client::new(&door.address), moment()).await?;
        Ok(Self { person, _door: door })
    }

    /// Logs in again, on a platform that has the data of the one before.
    pub async fn come_back(self, subject: &Subject<'_>) -> Result<Self> {
        let door = door(subject).await?;
        let client = Client::new(&door.address);
        let person = journey::log_in(&client, &self.person.email, &self.person.password).await?;
        Ok(Self { person, _door: door })
    }

    /// What the newest messages of a conversation say.
    pub async fn contents(&self, conversation: &str) -> Result<Vec<String>> {
        let path = format!("/api/v1/conversations/{conversation}/messages?limit=100");
        let answer = self.person.client.get(&path, &[]).await?.success()?;
        let items = answer.body["items"].as_array().cloned().unwrap_or_default();
        Ok(items
            .iter()
            .filter_map(|item| item["content"].as_str().map(str::to_owned))
            .collect())
    }

    /// Writes without a pause while something happens. Nothing that was acknowledged may be lost; the longest silence between two
    /// acknowledgements is noted, and must not exceed a bound.
    pub async fn writes_through(
        &self,
        subject: &Subject<'_>,
        title: &str,
        bound: Duration,
        event: impl Future<Output = Result<()>>,
    ) -> Result<Record> {
        let conversation = self.person.open_conversation(title).await?;
        let writer = Writer::start(&self.person.client, &conversation, "steady");
        let outcome = event.await;
        let record = writer.finish().await.with_context(|| title.to_owned())?;
        outcome.with_context(|| title.to_owned())?;
        subject.ground.note(format!(
            "{title}: {} acknowledged, none lost, {} failed, longest gap {} ms",
            record.acknowledged.len(),
            record.failures,
            record.longest_gap.as_millis()
        ));
        ensure!(!record.acknowledged.is_empty(), "{title}: nothing was written");
        ensure!(
            record.longest_gap <= bound,
            "{title}: writes paused for {} ms, {} ms are allowed",
            record.longest_gap.as_millis(),
            bound.as_millis()
        );
        Ok(record)
    }
}

async fn door(subject: &Subject<'_>) -> Result<Endpoint> {
    let service = format!("{}-api", subject.name);
    subject
        .ground
        .cluster
        .expose(&subject.ground.namespace, &service, 8000)
        .await
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the rim: a new name for each visitor comes from the time"
)]
fn moment() -> i64 {
    Timestamp::now().as_millisecond()
}
