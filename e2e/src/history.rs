//! Did everybody who listened see everything once, in order? The checker of the load and fault runs.
//!
//! A run tells what was published and what became of it ([`History`]) and what each client was told ([`Reader`]); the checker keeps
//! the first violations and counts the rest. It knows nothing of sockets, so that every client can feed it.
//!
//! What has to hold on each channel, whatever failed meanwhile:
//! * a reader's offsets go up by one, unless the server said that it could not recover;
//! * one offset of one epoch is one event, for all readers, and an event has one offset;
//! * what was refused, or never asked for, is not delivered;
//! * what was acknowledged while a reader listened has reached it at the end, and all readers stand at the same offset.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};

/// Violations that are kept with their details; further ones are only counted.
const KEPT: usize = 50;

/// A place in a channel: which count of offsets, and the offset in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Another epoch means that offsets have begun anew.
    pub epoch: String,
    /// Place in the channel, without gaps.
    pub offset: i64,
}

/// What must never be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Violation {
    /// Offsets were passed over.
    Gap,
    /// An offset came again, or an event has two offsets.
    Duplicate,
    /// An offset that is lower than one seen before, and was not seen itself.
    Disorder,
    /// Two readers were told different events for one offset.
    Disagreement,
    /// The epoch changed without a word of the server.
    Epoch,
    /// An event that was refused, or that nobody published.
    Phantom,
    /// An acknowledged event that a reader never got.
    Loss,
    /// A reader that stands behind the others at the end.
    Behind,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").to_lowercase())
    }
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Asked for, and no answer: it may have happened.
    Unknown,
    Acknowledged,
    Refused,
}

#[derive(Debug, Clone)]
struct Publication {
    fate: Fate,
    /// When it was asked for, on the run's own clock.
    asked: u64,
}

#[derive(Debug, Default)]
struct Ledger {
    published: HashMap<String, Publication>,
    /// By epoch and offset, and the other way round.
    events: HashMap<(String, i64), String>,
    places: HashMap<String, Place>,
}

#[derive(Debug, Default)]
struct Findings {
    counts: BTreeMap<Violation, u64>,
    details: Vec<String>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Orders what happened; not a time.
    clock: AtomicU64,
    channels: Mutex<HashMap<String, Arc<Mutex<Ledger>>>>,
    findings: Mutex<Findings>,
    views: Mutex<Vec<View>>,
    delivered: AtomicU64,
    told_unrecovered: AtomicU64,
}

/// Everything that a run did and saw. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Inner>);

/// What a run without violations amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Events that readers got, each counted once a reader.
    pub delivered: u64,
    /// Publications that were acknowledged.
    pub acknowledged: u64,
    /// How often a reader was told that it could not be caught up.
    pub unrecovered: u64,
}

impl History {
    /// Somebody asks for an event of this id to be published.
    pub fn asked(&self, channel: &str, id: &str) {
        let asked = self.tick();
        let publication = Publication {
            fate: Fate::Unknown,
            asked,
        };
        lock(&self.ledger(channel))
            .published
            .insert(id.to_owned(), publication);
    }

    /// The server said that it is published.
    pub fn acknowledged(&self, channel: &str, id: &str) {
        self.settle(channel, id, Fate::Acknowledged);
    }

    /// The server said that it is not, and will not be: nobody may ever see it.
    pub fn refused(&self, channel: &str, id: &str) {
        self.settle(channel, id, Fate::Refused);
    }

    /// Starts to listen to a channel under a name for messages to people.
    pub fn reader(&self, name: &str, channel: &str) -> Reader {
        Reader {
            history: self.clone(),
            ledger: self.ledger(channel),
            view: View {
                name: name.to_owned(),
                channel: channel.to_owned(),
                last: None,
                since: u64::MAX,
                present: false,
            },
        }
    }

    /// Checks what can only be known at the end, and sums up.
    ///
    /// # Errors
    /// When anything is violated, with the count of each kind and the first details.
    pub fn verdict(&self) -> Result<Summary> {
        let views = lock(&self.0.views).clone();
        let channels = lock(&self.0.channels).clone();
        let mut acknowledged = 0;
        for (channel, ledger) in &channels {
            let ledger = lock(ledger);
            let present: Vec<_> = views
                .iter()
                .filter(|view| view.present && view.channel == *channel)
                .collect();
            acknowledged += self.losses(channel, &ledger, &present);
            self.laggards(&ledger, &present);
        }
        let findings = lock(&self.0.findings);
        if !findings.counts.is_empty() {
            let counts: Vec<_> = findings
                .counts
                .iter()
                .map(|(kind, times)| format!("{kind} {times}"))
                .collect();
            bail!("{}:\n{}", counts.join(", "), findings.details.join("\n"));
        }
        Ok(Summary {
            delivered: self.0.delivered.load(Ordering::Relaxed),
            acknowledged,
            unrecovered: self.0.told_unrecovered.load(Ordering::Relaxed),
        })
    }

    /// Acknowledged events that somebody listened for all the time and nobody got. Answers how many were acknowledged.
    fn losses(&self, channel: &str, ledger: &Ledger, present: &[&View]) -> u64 {
        let mut acknowledged = 0;
        for (id, publication) in &ledger.published {
            let seen = ledger.places.contains_key(id);
            match publication.fate {
                Fate::Acknowledged => {
                    acknowledged += 1;
                    let listener = present.iter().find(|view| view.since < publication.asked);
                    if let (false, Some(view)) = (seen, listener) {
                        self.found(
                            Violation::Loss,
                            &format!("{} never got {id} on {channel}", view.name),
                        );
                    }
                }
                Fate::Refused if seen => {
                    self.found(Violation::Phantom, &format!("{id} on {channel} was refused"));
                }
                Fate::Refused | Fate::Unknown => {}
            }
        }
        acknowledged
    }

    /// Readers that are there at the end and have not got the last event.
    fn laggards(&self, ledger: &Ledger, present: &[&View]) {
        let mut heads: HashMap<&str, i64> = HashMap::new();
        for (epoch, offset) in ledger.events.keys() {
            let head = heads.entry(epoch).or_insert(*offset);
            *head = (*head).max(*offset);
        }
        for view in present {
            let Some(last) = &view.last else { continue };
            let head = heads.get(last.epoch.as_str()).copied().unwrap_or(last.offset);
            if last.offset < head {
                self.found(
                    Violation::Behind,
                    &format!(
                        "{} on {} stands at {} of {head}",
                        view.name, view.channel, last.offset
                    ),
                );
            }
        }
    }

    fn settle(&self, channel: &str, id: &str, fate: Fate) {
        if let Some(publication) = lock(&self.ledger(channel)).published.get_mut(id) {
            publication.fate = fate;
        }
    }

    fn ledger(&self, channel: &str) -> Arc<Mutex<Ledger>> {
        lock(&self.0.channels)
            .entry(channel.to_owned())
            .or_default()
            .clone()
    }

    fn tick(&self) -> u64 {
        self.0.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn found(&self, kind: Violation, detail: &str) {
        let mut findings = lock(&self.0.findings);
        *findings.counts.entry(kind).or_insert(0) += 1;
        if findings.details.len() < KEPT {
            findings.details.push(format!("{kind}: {detail}"));
        }
    }
}

/// What one reader saw of one channel.
#[derive(Debug, Clone)]
struct View {
    name: String,
    channel: String,
    last: Option<Place>,
    /// Since when it has been told everything; reset when the server says that it could not recover.
    since: u64,
    /// Whether it was still there when the run had come to rest.
    present: bool,
}

/// One client on one channel, over all its connections.
#[derive(Debug)]
pub struct Reader {
    history: History,
    ledger: Arc<Mutex<Ledger>>,
    view: View,
}

impl Reader {
    /// Where the reader stands: what it resumes from.
    pub const fn place(&self) -> Option<&Place> {
        self.view.last.as_ref()
    }

    /// The server accepted a subscription and named the channel's head. `recovered` is its claim that everything since the reader's
    /// own place follows.
    pub fn subscribed(&mut self, head: Place, recovered: bool) {
        let asked_to_resume = self.view.last.is_some();
        match &self.view.last {
            Some(last) if recovered => {
                if last.epoch != head.epoch {
                    self.report(Violation::Epoch, &format!("recovered into epoch {}", head.epoch));
                    self.view.last = Some(head);
                }
            }
            _ => {
                if asked_to_resume {
                    self.history.0.told_unrecovered.fetch_add(1, Ordering::Relaxed);
                }
                self.view.since = self.history.tick();
                self.view.last = Some(head);
            }
        }
    }

    /// An event arrived.
    pub fn delivered(&mut self, place: Place, id: &str) {
        self.history.0.delivered.fetch_add(1, Ordering::Relaxed);
        self.agree(&place, id);
        let Some(last) = self.view.last.clone() else {
            self.report(Violation::Gap, &format!("{id} came before the subscription"));
            return;
        };
        if place.epoch != last.epoch {
            self.report(Violation::Epoch, &format!("{id} is of epoch {}", place.epoch));
        } else if place.offset > last.offset + 1 {
            let text = format!("{} follows {}", place.offset, last.offset);
            self.report(Violation::Gap, &text);
        } else if place.offset == last.offset {
            self.report(Violation::Duplicate, &format!("{} came again", place.offset));
        } else if place.offset < last.offset {
            let text = format!("{} follows {}", place.offset, last.offset);
            self.report(Violation::Disorder, &text);
            return;
        }
        self.view.last = Some(place);
    }

    /// The run has come to rest and the reader is still connected: from here it must have everything.
    pub fn settled(mut self) {
        self.view.present = true;
    }

    /// One offset is one event, and an event that somebody asked for.
    fn agree(&self, place: &Place, id: &str) {
        let mut ledger = lock(&self.ledger);
        let key = (place.epoch.clone(), place.offset);
        let other = ledger.events.entry(key).or_insert_with(|| id.to_owned()).clone();
        let first = ledger
            .places
            .entry(id.to_owned())
            .or_insert_with(|| place.clone())
            .clone();
        let known = ledger.published.is_empty() || ledger.published.contains_key(id);
        drop(ledger);
        if other != id {
            let text = format!("offset {} is {id} here and {other} elsewhere", place.offset);
            self.report(Violation::Disagreement, &text);
        }
        if first != *place {
            let text = format!("{id} is at {} and at {}", first.offset, place.offset);
            self.report(Violation::Duplicate, &text);
        }
        if !known {
            self.report(Violation::Phantom, &format!("nobody published {id}"));
        }
    }

    fn report(&self, kind: Violation, text: &str) {
        let View { name, channel, .. } = &self.view;
        self.history.found(kind, &format!("{name} on {channel}: {text}"));
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        lock(&self.history.0.views).push(self.view.clone());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
