//! Who is connected where, for a tenant and for a workroom, over all processes. Each process keeps its own entries in Redis, and they
//! count only while its lease lasts: what a process left behind that was killed is not believed after that. When entries may have been
//! lost or left over (Redis was away, or lost data), a process writes all of its entries again under a new name and drops the old one.
//!
//! Nothing depends on it but what people are shown; without Redis a process answers with its own connections and says so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::hub::Hub;
use super::room::Member;
use crate::domain::event::Channel;
use crate::entropy;
use crate::redis_link::{Batch, Connected, RedisLink};

/// How long a process is believed to be there after its last word.
const LEASE: Duration = Duration::from_secs(10);
/// Time between words.
const WORD: Duration = Duration::from_secs(3);
/// After this time everything is written anew, which is well before it expires.
const RENEWAL: Duration = Duration::from_mins(20);
/// When entries expire that nobody renews, in seconds.
const EXPIRY: i64 = 3_600;
/// Changes that may wait; more are found when everything is written anew.
const MOST_WAITING: usize = 8_192;
/// Changes, or entries, in one pipeline.
const BATCH: usize = 500;
/// Limit of one answer of Redis.
const ANSWER: Duration = Duration::from_secs(1);

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It listens.
    Came,
    /// It no longer does.
    Left,
}

#[derive(Debug)]
struct Note {
    channel: Channel,
    entry: String,
    since: i64,
    change: Change,
}

/// Where changes are noted. Clones share it.
#[derive(Debug, Clone)]
pub struct Roll(Arc<Noted>);

#[derive(Debug)]
struct Noted {
    notes: mpsc::Sender<Note>,
    /// Changes were not noted, so that everything has to be written anew.
    lost: AtomicBool,
    again: Notify,
}

impl Roll {
    /// A place for changes, and what a registry is run with.
    pub fn new() -> (Self, Notes) {
        let (notes, waiting) = mpsc::channel(MOST_WAITING);
        let roll = Self(Arc::new(Noted {
            notes,
            lost: AtomicBool::new(false),
            again: Notify::new(),
        }));
        (roll, Notes(waiting))
    }

    /// Notes that a connection came or left. A person's own channel is nobody else's matter.
    pub fn note(&self, channel: Channel, member: &Member, change: Change) {
        if matches!(channel, Channel::User(_)) {
            return;
        }
        let note = Note {
            channel,
            entry: entry(member),
            since: member.since,
            change,
        };
        if self.0.notes.try_send(note).is_err() {
            self.0.lost.store(true, Ordering::Relaxed);
            self.0.again.notify_one();
        }
    }
}

/// Changes that wait to be written.
#[derive(Debug)]
pub struct Notes(mpsc::Receiver<Note>);

/// A connection as an entry of a sorted set.
fn entry(member: &Member) -> String {
    format!("{}/{}", member.id, member.user)
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Identifies it within its process.
    pub id: u64,
    /// Its person.
    pub user_id: Uuid,
    /// When it was opened, in milliseconds since 1970.
    pub since: i64,
    /// The process that serves it.
    pub node: String,
}

impl Connection {
    fn parse(node: &str, entry: &str, since: f64) -> Option<Self> {
        let (id, user) = entry.split_once('/')?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "milliseconds of this era fit exactly"
        )]
        let since = since as i64;
        Some(Self {
            id: id.parse().ok()?,
            user_id: user.parse().ok()?,
            since,
            node: node.to_owned(),
        })
    }
}

/// What is known of a channel's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Connections of each process.
    pub nodes: BTreeMap<String, usize>,
    /// The newest connections.
    pub newest: Vec<Connection>,
    /// Whether all processes were asked; without Redis, this one alone.
    pub complete: bool,
}

/// The registry of this process.
#[derive(Debug, Clone)]
pub struct Registry {
    name: String,
    hub: Hub,
    link: RedisLink,
    roll: Roll,
    /// Under which name entries are written now.
    node: Arc<Mutex<String>>,
}

/// The leases of a process under one name after the other are exchanged at once, so they are in one slot of a Redis Cluster: that of
/// what stands in braces.
fn lease_of(node: &str) -> String {
    let (name, number) = node.split_once('/').unwrap_or((node, ""));
    format!("tanka:node:{{{name}}}/{number}")
}

fn nodes_of(channel: Channel) -> String {
    format!("tanka:roll:{channel}")
}

fn entries_of(channel: Channel, node: &str) -> String {
    format!("tanka:roll:{channel}:{node}")
}

impl Registry {
    /// The registry of a process with a name for people.
    pub fn new(name: String, hub: Hub, link: RedisLink, roll: Roll) -> Self {
        let node = Arc::new(Mutex::new(incarnation(&name)));
        Self {
            name,
            hub,
            link,
            roll,
            node,
        }
    }

    fn node(&self) -> String {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the entries of this process until told to stop, and then takes them back.
    pub async fn keep(self, mut notes: Notes, stop: CancellationToken) {
        let mut changes = self.link.subscribe();
        let follow = async {
            loop {
                changes.borrow_and_update();
                match self.link.get() {
                    Some(connected) => {
                        if let Err(error) = self.write(&mut notes, &connected).await {
                            tracing::debug!(%error, "the registry of connections cannot be written");
                        }
                        tokio::time::sleep(entropy::jitter(WORD / 3)).await;
                    }
                    None if changes.changed().await.is_err() => return,
                    None => {}
                }
            }
        };
        stop.run_until_cancelled(follow).await;
        if let Some(connected) = self.link.get() {
            let lease = lease_of(&self.node());
            let mut command = redis::cmd("DEL");
            command.arg(&lease);
            let _ = command.query_async::<()>(&mut connected.of(&lease)).await;
        }
    }

    /// Writes everything, and then what changes, until something fails or the time of renewal is there.
    async fn write(&self, notes: &mut Notes, connected: &Connected) -> Result<(), redis::RedisError> {
        self.write_all(notes, connected).await?;
        let started = Instant::now();
        let mut word = interval(WORD);
        word.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                count = notes.0.recv_many(&mut waiting, BATCH) => {
                    if count == 0 {
                        return Ok(());
                    }
                    let batch = std::mem::take(&mut waiting);
                    self.write_notes(&batch, connected).await?;
                }
                _ = word.tick() => {
                    let kept = self.word(connected).await?;
                    if !kept || started.elapsed() > RENEWAL {
                        return Ok(());
                    }
                }
                () = self.roll.0.again.notified() => return Ok(()),
            }
        }
    }

    /// Says that this process is there; answers whether Redis still knew of it.
    async fn word(&self, connected: &Connected) -> Result<bool, redis::RedisError> {
        let lease = lease_of(&self.node());
        let mut command = redis::cmd("SET");
        command
            .arg(&lease)
            .arg(1)
            .arg("PX")
            .arg(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX))
            .arg("XX");
        let kept: Option<String> = command.query_async(&mut connected.of(&lease)).await?;
        Ok(kept.is_some())
    }

    async fn write_notes(&self, batch: &[Note], connected: &Connected) -> Result<(), redis::RedisError> {
        let node = self.node();
        let mut commands = connected.batch();
        for note in batch {
            match note.change {
                Change::Came => came(
                    &mut commands,
                    note.channel,
                    &node,
                    &[(note.since, note.entry.clone())],
                ),
                Change::Left => {
                    let entries = entries_of(note.channel, &node);
                    let mut command = redis::cmd("ZREM");
                    command.arg(&entries).arg(&note.entry);
                    commands.add(&entries, command);
                }
            }
        }
        commands.run().await.map(drop)
    }

    /// Writes all entries under a new name, and drops the old one.
    async fn write_all(&self, notes: &mut Notes, connected: &Connected) -> Result<(), redis::RedisError> {
        let (old, new) = (self.node(), incarnation(&self.name));
        self.roll.0.lost.store(false, Ordering::Relaxed);
        // What waits is part of what is written now.
        while notes.0.try_recv().is_ok() {}
        let mut by_channel: BTreeMap<String, (Channel, Vec<(i64, String)>)> = BTreeMap::new();
        for (channel, member) in self.hub.listeners() {
            let of = by_channel
                .entry(channel.to_string())
                .or_insert_with(|| (channel, Vec::new()));
            of.1.push((member.since, entry(&member)));
        }
        for (channel, entries) in by_channel.values() {
            for chunk in entries.chunks(BATCH) {
                let mut commands = connected.batch();
                came(&mut commands, *channel, &new, chunk);
                commands.run().await?;
            }
        }
        let mut exchange = redis::pipe();
        exchange
            .atomic()
            .cmd("SET")
            .arg(lease_of(&new))
            .arg(1)
            .arg("PX")
            .arg(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX))
            .ignore()
            .cmd("DEL")
            .arg(lease_of(&old))
            .ignore();
        exchange
            .query_async::<()>(&mut connected.of(&lease_of(&new)))
            .await?;
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Connections that listen to a channel, at most so many of them one by one.
    pub async fn list(&self, channel: Channel, most: usize) -> Listing {
        if let Some(connected) = self.link.get() {
            match tokio::time::timeout(ANSWER, self.read(channel, most, &connected)).await {
                Ok(Ok(listing)) => return listing,
                Ok(Err(error)) => tracing::debug!(%error, "the registry of connections cannot be read"),
                Err(_) => tracing::debug!("the registry of connections does not answer"),
            }
        }
        self.own(channel, most)
    }

    /// Connections of this process alone.
    fn own(&self, channel: Channel, most: usize) -> Listing {
        let node = self.node();
        let members = self.hub.members(channel);
        let nodes = if members.is_empty() {
            BTreeMap::new()
        } else {
            BTreeMap::from([(node.clone(), members.len())])
        };
        let newest = members.iter().map(|member| Connection {
            id: member.id,
            user_id: member.user,
            since: member.since,
            node: node.clone(),
        });
        Listing {
            nodes,
            newest: newest_of(newest.collect(), most),
            complete: false,
        }
    }

    async fn read(
        &self,
        channel: Channel,
        most: usize,
        connected: &Connected,
    ) -> Result<Listing, redis::RedisError> {
        let mut listing = Listing {
            nodes: BTreeMap::new(),
            newest: Vec::new(),
            complete: true,
        };
        let (alive, dead) = processes(channel, connected).await?;
        let mut commands = connected.batch();
        for node in &alive {
            let entries = entries_of(channel, node);
            let mut count = redis::cmd("ZCARD");
            count.arg(&entries);
            commands.add(&entries, count);
            let mut range = redis::cmd("ZRANGE");
            range
                .arg(&entries)
                .arg(0)
                .arg(most.saturating_sub(1))
                .arg("REV")
                .arg("WITHSCORES");
            commands.add(&entries, range);
        }
        let nodes = nodes_of(channel);
        for node in &dead {
            let mut forget = redis::cmd("SREM");
            forget.arg(&nodes).arg(node);
            commands.add(&nodes, forget);
            let entries = entries_of(channel, node);
            let mut drop = redis::cmd("UNLINK");
            drop.arg(&entries);
            commands.add(&entries, drop);
        }
        let answers = commands.run().await?;
        for (node, answer) in alive.iter().zip(answers.chunks(2)) {
            let [count, entries] = answer else { continue };
            let count: usize = redis::from_redis_value_ref(count)?;
            if count > 0 {
                listing.nodes.insert(node.clone(), count);
            }
            let entries: Vec<(String, f64)> = redis::from_redis_value_ref(entries)?;
            let parsed = entries
                .iter()
                .filter_map(|(entry, since)| Connection::parse(node, entry, *since));
            listing.newest.extend(parsed);
        }
        listing.newest = newest_of(listing.newest, most);
        Ok(listing)
    }
}

/// Processes that have entries of a channel: those with a lease, and those without.
async fn processes(
    channel: Channel,
    connected: &Connected,
) -> Result<(Vec<String>, Vec<String>), redis::RedisError> {
    let nodes = nodes_of(channel);
    let mut ask = redis::cmd("SMEMBERS");
    let named: Vec<String> = ask.arg(&nodes).query_async(&mut connected.of(&nodes)).await?;
    let mut leases = connected.batch();
    for node in &named {
        let lease = lease_of(node);
        let mut ask = redis::cmd("EXISTS");
        ask.arg(&lease);
        leases.add(&lease, ask);
    }
    let mut processes = (Vec::new(), Vec::new());
    for (node, lease) in named.into_iter().zip(leases.run().await?) {
        let side = match lease {
            redis::Value::Int(1) => &mut processes.0,
            _ => &mut processes.1,
        };
        side.push(node);
    }
    Ok(processes)
}

fn newest_of(mut connections: Vec<Connection>, most: usize) -> Vec<Connection> {
    connections.sort_by_key(|connection| std::cmp::Reverse((connection.since, connection.id)));
    connections.truncate(most);
    connections
}

fn incarnation(name: &str) -> String {
    format!("{name}/{}", entropy::id().simple())
}

fn came(commands: &mut Batch<'_>, channel: Channel, node: &str, entries: &[(i64, String)]) {
    let key = entries_of(channel, node);
    let mut add = redis::cmd("ZADD");
    add.arg(&key);
    for (since, entry) in entries {
        add.arg(*since).arg(entry);
    }
    commands.add(&key, add);
    let nodes = nodes_of(channel);
    let mut name = redis::cmd("SADD");
    name.arg(&nodes).arg(node);
    commands.add(&nodes, name);
    for key in [key, nodes] {
        let mut expire = redis::cmd("EXPIRE");
        expire.arg(&key).arg(EXPIRY);
        commands.add(&key, expire);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_back() {
        let user = Uuid::from_u128(7);
        let read = Connection::parse("pod/1", &format!("42/{user}"), 1_700_000_000_123.0).unwrap();
        assert_eq!((read.id, read.user_id, read.since), (42, user, 1_700_000_000_123));
        assert_eq!(Connection::parse("pod/1", "nonsense", 0.0), None);
    }

    #[test]
    fn the_newest_connections_of_all_processes_are_kept() {
        let of = |id: u64, since: i64| Connection {
            id,
            user_id: Uuid::nil(),
            since,
            node: String::new(),
        };
        let newest = newest_of(vec![of(1, 10), of(2, 30), of(3, 20)], 2);
        assert_eq!(newest.iter().map(|c| c.id).collect::<Vec<_>>(), [2, 3]);
    }
}
