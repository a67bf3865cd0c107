//! How often somebody may do something: requests of a person, guesses of a password. The count is kept in Redis, for all processes
//! together; while Redis is away each process counts for itself.

mod advance;
pub mod guesses;
pub mod requests;

use std::time::Duration;

use redis::Script;
use tokio::time::timeout;

use crate::redis_link::RedisLink;

/// A count that takes longer is not waited for: counting must not be what slows a request.
const PATIENCE: Duration = Duration::from_millis(50);

/// Runs a script that answers whole numbers; none while Redis is away, slow or failing.
async fn count(redis: &RedisLink, script: &Script, key: &str, arguments: &[i64]) -> Option<Vec<i64>> {
    let connected = redis.get()?;
    let mut connection = connected.of(key);
    let mut call = script.key(key);
    for argument in arguments {
        call.arg(argument);
    }
    timeout(PATIENCE, call.invoke_async(&mut connection))
        .await
        .ok()?
        .ok()
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn span(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
