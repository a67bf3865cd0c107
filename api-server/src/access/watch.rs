//! Finds out whose rights were changed by other processes: Redis tells at once, and the table is looked at several times a second,
//! because a message can be lost. An idle process does not look.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Tokens;
use crate::entropy;
use crate::redis_link::{Connected, Ended, RedisLink, Subscription};
use crate::routing::{Fleet, Scope};
use crate::store::access::ChangedSince;

/// Time between looks; two of them and their duration stay below the second within which a revocation is seen.
const LOOK: Duration = Duration::from_millis(250);
/// Limit of one look.
const LIMIT: Duration = Duration::from_millis(500);
/// Channel in Redis.
const CHANNEL: &str = "tanka:access";
/// Pause before the subscription is made again.
const PAUSE: Duration = Duration::from_millis(300);

/// From where the next look has to look.
struct Place {
    horizon: i64,
    instance: String,
}

/// Looks at the table.
pub async fn look(tokens: Tokens, database: Fleet, stop: CancellationToken) {
    let mut place: Option<Place> = None;
    while stop
        .run_until_cancelled(tokio::time::sleep(entropy::jitter(LOOK)))
        .await
        .is_some()
    {
        if place.is_some() && tokens.is_empty() {
            continue;
        }
        let started = Instant::now();
        let scope = Scope {
            tenant: None,
            deadline: started + LIMIT,
            at_least: None,
            primary_only: true,
        };
        let question = ChangedSince(place.as_ref().map_or(i64::MAX, |place| place.horizon));
        let (changes, served) = match database.read(&scope, &question).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::debug!(error = ?error, "changes of rights cannot be read, tokens are asked for");
                place = None;
                continue;
            }
        };
        // Numbers of transactions go on after a failover or a crash, but some may be given out again: then it begins anew.
        if place
            .as_ref()
            .is_some_and(|place| place.instance == served.instance)
        {
            tokens.learn(&changes.people, Instant::now());
            tokens.confirm(started);
        } else {
            tokens.begin(started);
        }
        place = Some(Place {
            horizon: changes.horizon,
            instance: served.instance,
        });
    }
}

/// Tells the other processes through Redis.
pub async fn tell(mut people: mpsc::Receiver<Uuid>, redis: RedisLink, stop: CancellationToken) {
    while let Some(Some(person)) = stop.run_until_cancelled(people.recv()).await {
        let Some(connected) = redis.get() else {
            continue;
        };
        let mut command = redis::cmd("SPUBLISH");
        command.arg(CHANNEL).arg(person.to_string());
        // Whoever is not told finds it in the table.
        let _ = command.query_async::<i64>(&mut connected.of(CHANNEL)).await;
    }
}

/// Listens to the other processes.
pub async fn listen(tokens: Tokens, redis: RedisLink, stop: CancellationToken) {
    let mut changes = redis.subscribe();
    let follow = async {
        loop {
            changes.borrow_and_update();
            if let Some(connected) = redis.get() {
                if let Err(Ended(reason)) = hear(&tokens, connected).await {
                    tracing::debug!(reason, "Redis does not tell of changed rights, the table does");
                }
                tokio::time::sleep(entropy::jitter(PAUSE)).await;
            } else if changes.changed().await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(follow).await;
}

/// Until the subscription ends.
async fn hear(tokens: &Tokens, connected: Arc<Connected>) -> Result<(), Ended> {
    let mut subscription = Subscription::open(connected).await?;
    subscription.add(&[CHANNEL.to_owned()]).await?;
    loop {
        let message = subscription.next().await?;
        let person = std::str::from_utf8(&message.payload).ok();
        if let Some(person) = person.and_then(|text| text.parse().ok()) {
            tokens.learn(&[person], Instant::now());
        }
    }
}
