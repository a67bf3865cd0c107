//! Does a sync: asks for what is new, page by page, and writes each page with how far it has come in one transaction. Whoever goes on after
//! a crash begins where the last written page ended, and what was written already is not written again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use axum::http::{Request, header};
use bytes::Bytes;
use http_body_util::Full;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::reply::{self, Verdict};
use super::{Page, Progress, Record, Seen, feed, github, seal};
use crate::clock;
use crate::domain::sync::Connector;
use crate::domain::task::Failure;
use crate::jobs::{JobError, Tools, scope};
use crate::outbound::{OutboundError, Reply};
use crate::routing::StoreError;
use crate::store::jobs::Job;
use crate::store::syncs::{FindSource, FinishSync, Source, StorePage};

/// Time for a page to arrive.
const PATIENT: Duration = Duration::from_secs(30);
/// Bytes of a page.
const MOST_BYTES: usize = 16 << 20;
/// Records of one transaction. A page may have many more, and each message of a workroom is an event.
const PART: usize = 100;
/// Pages of one run; the next run goes on.
const MOST_PAGES: usize = 1_000;

/// A stream of a source.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Github(github::Stream),
    Feed,
}

impl Stream {
    const fn name(self) -> &'static str {
        match self {
            Self::Github(stream) => stream.as_str(),
            Self::Feed => "feed",
        }
    }
}

/// What a run did.
#[derive(Debug, Default)]
struct Count {
    pages: usize,
    written: u64,
    unchanged: u64,
    skipped: usize,
}

/// One run.
struct Run<'a> {
    tools: &'a Tools,
    job: &'a Job,
    source: &'a Source,
    token: Option<String>,
    progress: BTreeMap<String, Progress>,
    count: Count,
}

/// Does the job.
pub async fn run(tools: &Tools, job: &Job) -> Result<(), JobError> {
    let id: Uuid = serde_json::from_value(job.payload["source_id"].clone())
        .map_err(|_| Failure::Hopeless("the task names no source".to_owned()))?;
    let (source, _) = tools.database.read(&scope(job), &FindSource(id)).await?;
    let source = source.ok_or_else(|| Failure::Hopeless("the source was deleted".to_owned()))?;
    let token = match &source.sealed_token {
        Some(sealed) => {
            let token = seal::open(&tools.keys.sources(), id, sealed);
            Some(token.map_err(|error| Failure::Hopeless(error.to_string()))?)
        }
        None => None,
    };
    let progress = serde_json::from_value(source.progress.clone()).unwrap_or_default();
    let mut run = Run {
        tools,
        job,
        source: &source,
        token,
        progress,
        count: Count::default(),
    };
    let streams: &[Stream] = match source.connector {
        Connector::Github { .. } => &[
            Stream::Github(github::Stream::Issues),
            Stream::Github(github::Stream::Comments),
        ],
        Connector::Http { .. } => &[Stream::Feed],
    };
    for stream in streams {
        run.follow(*stream).await?;
    }
    let finish = FinishSync {
        hold: job.hold,
        result: serde_json::json!({
            "pages": run.count.pages, "written": run.count.written, "unchanged": run.count.unchanged, "skipped": run.count.skipped,
        }),
    };
    tools.database.write(scope(job), finish).await?;
    Ok(())
}

/// A record that is there twice counts as it is last.
fn last_of_each(records: Vec<Record>) -> Vec<Record> {
    let last: HashMap<String, usize> = records
        .iter()
        .enumerate()
        .map(|(place, record)| (record.external_id.clone(), place))
        .collect();
    let mut place = 0..;
    let is_last = |record: &Record| last.get(&record.external_id).copied() == place.next();
    records.into_iter().filter(is_last).collect()
}

impl Run<'_> {
    /// Reads a stream to its end.
    async fn follow(&mut self, stream: Stream) -> Result<(), JobError> {
        let known = self.progress.get(stream.name()).cloned().unwrap_or_default();
        let mut first = self.first(stream, known.since);
        let (mut url, mut asked, mut tag) = (first.clone(), HashSet::new(), None);
        loop {
            if self.count.pages >= MOST_PAGES || !asked.insert(url.clone()) {
                return Err(Failure::Refused("the pages of the source do not end".to_owned()).into());
            }
            let etag = known.seen.as_ref().filter(|seen| seen.url == url);
            let reply = self.ask(&url, etag.map(|seen| seen.etag.as_str())).await?;
            if reply::judge(reply.status, &reply.headers, clock::now())? == Verdict::Unchanged {
                return Ok(());
            }
            if url == first {
                let header = reply.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
                tag = header.map(ToOwned::to_owned);
            }
            let page = match stream {
                Stream::Github(stream) => github::page(stream, &reply.headers, &reply.body)?,
                Stream::Feed => feed::page(&reply.body)?,
            };
            if let Some(next) = &page.next {
                reply::same_origin(next, self.source.connector.address())?;
            }
            let next = page.next.clone();
            let newest = page.newest;
            // What is behind a tag was read to its end, or it would be skipped for ever; what comes behind a full page does not change it.
            let full = page.records.len() + page.skipped >= github::PER_PAGE;
            let seen = if next.is_none() && !(full && newest.is_some()) {
                tag.clone()
            } else {
                None
            };
            self.write(
                stream,
                page,
                seen.map(|etag| Seen {
                    url: first.clone(),
                    etag,
                }),
            )
            .await?;
            let Some(next) = next else { return Ok(()) };
            // Pages are numbered: what changes meanwhile moves to the end, and everything behind it one place to the front, over the edge
            // of a page that was read. So the next page is asked for by time, unless a whole page is of one moment.
            let later = self.first(stream, newest);
            if newest.is_some() && !asked.contains(&later) {
                (url, first, tag) = (later.clone(), later, None);
            } else {
                url = next;
            }
        }
    }

    /// Where a stream begins that is known up to `since`.
    fn first(&self, stream: Stream, since: Option<Timestamp>) -> String {
        match (&self.source.connector, stream) {
            (Connector::Github { repository, base_url }, Stream::Github(stream)) => {
                github::first(base_url, repository, stream, since)
            }
            (connector, _) => connector.address().to_owned(),
        }
    }

    async fn ask(&self, url: &str, etag: Option<&str>) -> Result<Reply, Failure> {
        let mut request = Request::get(url).header(header::USER_AGENT, "tanka-syncs/1");
        request = match self.source.connector {
            Connector::Github { .. } => request
                .header(header::ACCEPT, "application/vnd.github+json")
                .header("x-github-api-version", "2022-11-28"),
            Connector::Http { .. } => {
                request.header(header::ACCEPT, "application/feed+json, application/json")
            }
        };
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let request = request
            .body(Full::<Bytes>::default())
            .map_err(|_| Failure::Refused("a page of the source has no valid address".to_owned()))?;
        self.tools
            .outbound
            .send(request, MOST_BYTES, Instant::now() + PATIENT)
            .await
            .map_err(|error| match error {
                OutboundError::Forbidden(_) | OutboundError::TooLong(_) => {
                    Failure::Refused(error.to_string())
                }
                _ => Failure::unavailable(error.to_string()),
            })
    }

    /// Writes a page, a part at a time, and with its last part how far that is. Who goes on after a crash in between writes the first parts
    /// again, which are then known.
    async fn write(&mut self, stream: Stream, mut page: Page, seen: Option<Seen>) -> Result<(), JobError> {
        let before = serde_json::to_value(&self.progress).map_err(StoreError::from)?;
        page.records = last_of_each(page.records);
        while page.records.len() > PART {
            let rest = page.records.split_off(PART);
            self.store(std::mem::replace(&mut page.records, rest), before.clone())
                .await?;
        }
        let known = self.progress.entry(stream.name().to_owned()).or_default();
        // A feed has no order that could be relied on.
        known.since = known.since.max(page.newest);
        known.seen = seen;
        let progress = serde_json::to_value(&self.progress).map_err(StoreError::from)?;
        self.store(page.records, progress).await?;
        self.count.pages += 1;
        self.count.skipped += page.skipped;
        Ok(())
    }

    async fn store(&mut self, records: Vec<Record>, progress: Value) -> Result<(), JobError> {
        let store = StorePage {
            hold: self.job.hold,
            source_id: self.source.id,
            user_id: self.source.user_id,
            workroom_id: self.source.workroom_id,
            records,
            progress,
            embed: self.tools.live.get().embeddings.url.is_some(),
        };
        let total = u64::try_from(store.records.len()).unwrap_or_default();
        let written = self.tools.database.write(scope(self.job), store).await?.output;
        self.count.written += written;
        self.count.unchanged += total.saturating_sub(written);
        Ok(())
    }
}
