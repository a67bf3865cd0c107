//! The tier in Redis. Three scripts of one round trip each: look (and, where there is nothing, take the lease for loading), fill
//! (unless the version has changed meanwhile), and replace versions. No command here looks at more keys than it names (F03).
//!
//! A script may only name keys of one slot of a Redis Cluster. So entities are dealt out to buckets, whose number is the tag of their
//! keys; the version of a kind is kept in each bucket, and the channel that tells of a bucket's new versions is in its slot, too.
//!
//! Keys live below a prefix that contains the replication id of the primary. A failover or a restart changes it, so what a new
//! primary may have lost or brought back is never read: the tier starts empty instead.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::{RedisResult, Script, ScriptInvocation};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::breaker::Breaker;
use super::counts::CacheCounts;
use super::entry::{self, Entry};
use super::key::Key;
use super::kind::{Entity, Kind, Target};
use crate::redis_link::{Connected, RedisLink};
use crate::routing::Position;

/// Limit of one script: a cache that takes longer than the database is none.
const LIMIT: Duration = Duration::from_millis(100);
/// How long a lease for loading is good; longer than nearly every load, shorter than anybody's patience.
pub const LEASE: Duration = Duration::from_secs(3);
/// Least life of a version: longer than any load that began before it was made, and than any replica may lag.
const VERSION_LIFE: Duration = Duration::from_mins(5);
/// Over how many slots of a Redis Cluster the keys of all entities are spread.
const BUCKETS: u8 = 64;
/// A version of an entity that nobody has written to since it was last seen.
const NO_POSITION: &str = "000000000000000000000000";

/// Answers the entry if its version is current; else `load` and the version for whoever gets the lease, `wait` for the others.
const LOOK: &str = r"
local gen = redis.call('GET', KEYS[1]) or ''
local ver = redis.call('GET', KEYS[2])
if ver and ARGV[3] == 'read' then
  local stamp = gen .. '/' .. ver .. '\n'
  local entry = redis.call('GET', KEYS[3])
  if entry and string.sub(entry, 1, #stamp) == stamp then
    return {'hit', string.sub(entry, #stamp + 1), tostring(redis.call('PTTL', KEYS[3]))}
  end
end
if not redis.call('SET', KEYS[4], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {'wait', '', ''}
end
if not ver then
  ver = ARGV[5] .. ':' .. ARGV[1]
  redis.call('SET', KEYS[2], ver, 'PX', ARGV[4])
end
return {'load', gen .. '/' .. ver, ''}
";

/// Stores an entry if the version is still the one that its load began with; gives the lease back.
const FILL: &str = r"
if redis.call('GET', KEYS[4]) == ARGV[4] then redis.call('DEL', KEYS[4]) end
local stamp = (redis.call('GET', KEYS[1]) or '') .. '/' .. (redis.call('GET', KEYS[2]) or '')
if stamp ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[3], stamp .. '\n' .. ARGV[2], 'PX', ARGV[3])
local life = tonumber(ARGV[3]) + tonumber(ARGV[5])
if redis.call('PTTL', KEYS[2]) < life then redis.call('PEXPIRE', KEYS[2], life) end
return 1
";

/// Replaces the version of an entity, keeps the later position, and tells every process.
const REPLACE: &str = r"
local old = redis.call('GET', KEYS[1])
local at = ARGV[1]
local life = tonumber(ARGV[3])
if old then
  if string.sub(old, 1, 24) > at then at = string.sub(old, 1, 24) end
  life = math.max(life, redis.call('PTTL', KEYS[1]))
end
redis.call('SET', KEYS[1], at .. ':' .. ARGV[2], 'PX', life)
redis.call('SPUBLISH', ARGV[4], ARGV[5])
return 1
";

static SCRIPTS: LazyLock<[Script; 3]> = LazyLock::new(|| [LOOK, FILL, REPLACE].map(Script::new));

/// Channels on which versions that were replaced are told.
pub fn news() -> impl Iterator<Item = String> {
    (0..BUCKETS).map(news_of)
}

fn news_of(bucket: u8) -> String {
    format!("tanka:cache:news:{{{bucket}}}")
}

/// Leave to load, and what the load must be based on.
#[derive(Debug, Clone)]
pub struct Lease {
    prefix: String,
    version: String,
    nonce: String,
    /// The last write that the load must see.
    pub floor: Option<Position>,
}

/// What was found.
#[derive(Debug)]
pub enum Look {
    /// An entry that is current.
    Hit(Entry),
    /// Nothing; the caller is the one to load it.
    Load(Lease),
    /// Nothing; somebody else loads it.
    Wait,
    /// Redis cannot be asked now.
    Away,
}

/// What became of an entry that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// It is stored.
    Stored,
    /// Something was written since its load began.
    Refused,
    /// Redis could not be asked.
    Away,
}

/// An invalidation on its way to the other processes: number of its row, position of its commit, what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Number of the row.
    pub id: i64,
    /// Where its commit is, or somewhat later.
    pub position: Position,
    /// What it is about.
    pub target: Target,
    /// The prefix under which versions were replaced.
    pub prefix: String,
}

impl Notice {
    /// As it is published.
    pub fn encode(&self) -> String {
        let Self {
            id,
            position,
            target,
            prefix,
        } = self;
        format!("{id} {} {target} {prefix}", entry::digits(*position))
    }

    /// Reads what was published.
    pub fn decode(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        Some(Self {
            id: words.next()?.parse().ok()?,
            position: entry::parse_digits(words.next()?)?,
            target: words.next()?.parse().ok()?,
            prefix: words.next()?.to_owned(),
        })
    }
}

/// The tier in Redis.
#[derive(Debug, Clone)]
pub struct Shared {
    link: RedisLink,
    breaker: Arc<Mutex<Breaker>>,
    counts: CacheCounts,
}

impl Shared {
    /// Below a connection.
    pub fn new(link: RedisLink, counts: CacheCounts) -> Self {
        Self {
            link,
            breaker: Arc::default(),
            counts,
        }
    }

    /// The prefix of all keys, while Redis is there.
    pub fn prefix(&self) -> Option<String> {
        self.link.get().map(|connected| prefix(&connected))
    }

    /// Whether Redis is asked at the moment.
    pub fn is_up(&self) -> bool {
        let open = self
            .breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_open(Instant::now());
        !open && self.link.get().is_some()
    }

    /// Looks for an entry. With `refresh` an entry that is there does not count: only the lease is of interest.
    pub async fn look(&self, key: &Key, refresh: bool) -> Look {
        let Some((connected, prefix)) = self.connected() else {
            return Look::Away;
        };
        let nonce = nonce();
        let mut invocation = SCRIPTS[0].prepare_invoke();
        name_keys(&mut invocation, key, &prefix);
        invocation
            .arg(&nonce)
            .arg(millis(LEASE))
            .arg(if refresh { "refresh" } else { "read" })
            .arg(millis(VERSION_LIFE))
            .arg(NO_POSITION);
        let Some((what, body, left)) = self
            .run::<(String, Vec<u8>, String)>(&connected, &prefix, key.entity, &invocation)
            .await
        else {
            return Look::Away;
        };
        match what.as_str() {
            "hit" => {
                let left = Duration::from_millis(left.parse().unwrap_or(0));
                entry::decode(&Bytes::from(body), Instant::now(), left).map_or(Look::Wait, Look::Hit)
            }
            "load" => {
                let version = String::from_utf8_lossy(&body).into_owned();
                let floor = version.split_once('/').and_then(|(_, entity)| {
                    let digits = entity.get(..24)?;
                    (digits != NO_POSITION).then(|| entry::parse_digits(digits))?
                });
                Look::Load(Lease {
                    prefix,
                    version,
                    nonce,
                    floor,
                })
            }
            _ => Look::Wait,
        }
    }

    /// Stores what was loaded.
    pub async fn fill(&self, key: &Key, lease: &Lease, entry: &Entry) -> Fill {
        let Some((connected, prefix)) = self.connected() else {
            return Fill::Away;
        };
        if prefix != lease.prefix {
            return Fill::Away;
        }
        let mut invocation = SCRIPTS[1].prepare_invoke();
        name_keys(&mut invocation, key, &prefix);
        invocation
            .arg(&lease.version)
            .arg(entry::encode(entry))
            .arg(millis(entry.ttl).max(1))
            .arg(&lease.nonce)
            .arg(millis(VERSION_LIFE));
        match self
            .run::<i64>(&connected, &prefix, key.entity, &invocation)
            .await
        {
            Some(1) => Fill::Stored,
            Some(_) => Fill::Refused,
            None => Fill::Away,
        }
    }

    /// Gives a lease back without an entry.
    pub async fn release(&self, key: &Key, lease: &Lease) {
        let Some((connected, prefix)) = self.connected() else {
            return;
        };
        let mut invocation = SCRIPTS[1].prepare_invoke();
        name_keys(&mut invocation, key, &prefix);
        // No version is equal to this, so nothing is stored.
        invocation.arg("!").arg("").arg(1).arg(&lease.nonce).arg(0);
        let _ = self
            .run::<i64>(&connected, &prefix, key.entity, &invocation)
            .await;
    }

    /// Replaces versions and tells every process. Answers whether that was certainly done.
    pub async fn replace(&self, changed: &[(i64, Position, Target)]) -> bool {
        let Some((connected, prefix)) = self.connected() else {
            return false;
        };
        let all = changed.iter().map(async |(id, position, target)| {
            let notice = Notice {
                id: *id,
                position: *position,
                target: *target,
                prefix: prefix.clone(),
            };
            match target {
                Target::Entity(entity) => self.replace_entity(&connected, *entity, &notice).await,
                Target::Kind(kind) => self.replace_kind(&connected, *kind, &notice).await,
            }
        });
        futures::future::join_all(all).await.into_iter().all(|done| done)
    }

    async fn replace_entity(&self, connected: &Connected, entity: Entity, notice: &Notice) -> bool {
        let mut invocation = SCRIPTS[2].prepare_invoke();
        invocation
            .key(version_key(&notice.prefix, entity))
            .arg(entry::digits(notice.position))
            .arg(nonce())
            .arg(millis(VERSION_LIFE))
            .arg(news_of(bucket(entity)))
            .arg(notice.encode());
        self.run::<i64>(connected, &notice.prefix, entity, &invocation)
            .await
            .is_some()
    }

    /// Replaces the version of a kind in every bucket. It has no end, because an entry without it would be good again.
    async fn replace_kind(&self, connected: &Connected, kind: Kind, notice: &Notice) -> bool {
        let mut batch = connected.batch();
        for bucket in 0..BUCKETS {
            let key = kind_key(&notice.prefix, bucket, kind);
            let mut set = redis::cmd("SET");
            set.arg(&key).arg(nonce());
            batch.add(&key, set);
        }
        if self.guard(batch.run()).await.is_none() {
            return false;
        }
        let channel = news_of(0);
        let mut tell = redis::cmd("SPUBLISH");
        tell.arg(&channel).arg(notice.encode());
        let mut connection = connected.of(&channel);
        self.guard(tell.query_async::<i64>(&mut connection))
            .await
            .is_some()
    }

    fn connected(&self) -> Option<(Arc<Connected>, String)> {
        let connected = self.link.get()?;
        let admitted = self
            .breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(Instant::now());
        admitted.then(|| {
            let prefix = prefix(&connected);
            (connected, prefix)
        })
    }

    /// Runs a script about an entity.
    async fn run<T: redis::FromRedisValue>(
        &self,
        connected: &Connected,
        prefix: &str,
        entity: Entity,
        invocation: &ScriptInvocation<'_>,
    ) -> Option<T> {
        let mut connection = connected.of(&bucket_prefix(prefix, bucket(entity)));
        self.guard(invocation.invoke_async::<T>(&mut connection)).await
    }

    /// Waits for an answer, and takes note whether there was one.
    async fn guard<T>(&self, asked: impl Future<Output = RedisResult<T>>) -> Option<T> {
        let outcome = timeout(LIMIT, asked).await;
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(Ok(answer)) => {
                breaker.succeed();
                Some(answer)
            }
            failure => {
                self.counts.errors.inc();
                if breaker.fail(Instant::now()) {
                    let cause = match failure {
                        Ok(Err(error)) => error.to_string(),
                        _ => "no answer in time".to_owned(),
                    };
                    tracing::warn!(error = cause, "Redis fails, the cache works without it");
                }
                None
            }
        }
    }
}

fn prefix(connected: &Connected) -> String {
    format!("tanka:cache:{}:", connected.replication_id)
}

/// Where the keys of an entity are.
fn bucket(entity: Entity) -> u8 {
    let bits = |id: Option<Uuid>| id.map_or(0, |id| id.as_u128());
    let number = (bits(entity.tenant) ^ bits(entity.id)) % u128::from(BUCKETS);
    u8::try_from(number).unwrap_or(0)
}

/// A prefix whose keys are all in the same slot.
fn bucket_prefix(prefix: &str, bucket: u8) -> String {
    format!("{prefix}{{{bucket}}}:")
}

fn version_key(prefix: &str, entity: Entity) -> String {
    format!("{}v:{entity}", bucket_prefix(prefix, bucket(entity)))
}

fn kind_key(prefix: &str, bucket: u8, kind: Kind) -> String {
    format!("{}g:{}", bucket_prefix(prefix, bucket), kind.as_str())
}

fn name_keys(invocation: &mut ScriptInvocation<'_>, key: &Key, prefix: &str) {
    let bucket = bucket(key.entity);
    let name = key.name(&bucket_prefix(prefix, bucket));
    invocation
        .key(kind_key(prefix, bucket, key.entity.kind))
        .key(version_key(prefix, key.entity))
        .key(&name)
        .key(format!("{name}:lease"));
}

/// New each time: a version that came back would bring back what was stored under it.
fn nonce() -> String {
    Uuid::new_v4().simple().to_string()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_back() {
        let notice = Notice {
            id: 42,
            position: Position { timeline: 3, lsn: 77 },
            target: Entity::of_person(Kind::Memories, Uuid::from_u128(1), Uuid::from_u128(2)).into(),
            prefix: "tanka:cache:abc:".to_owned(),
        };
        assert_eq!(Notice::decode(&notice.encode()), Some(notice));
        assert_eq!(Notice::decode("beat"), None);
    }
}
