//! The state of services that somebody else runs. Before the first release that uses them has migrated, the migration says what they
//! lack; afterwards the API's own check does.

use crds::conditions::Reason;

use super::Finding;
use crate::platform::build::migration_job;
use crate::platform::object::{Key, Kind};
use crate::platform::observe::World;
use crate::platform::observe::secrets::{missing, of_cache, of_database};
use crate::platform::plan::migration::{self, Migration};
use crate::platform::validate::Platform;

/// An external PostgreSQL, and whether a migration can be tried.
pub(super) fn database(platform: &Platform, world: &World) -> (Finding, bool) {
    if let Some((reason, words)) = missing(&world.references, &of_database(platform)) {
        return (Finding::bad(reason, words), false);
    }
    if !is_admitted(platform, world) {
        let words = world
            .checked
            .as_ref()
            .and_then(|checked| checked.postgres.clone());
        return (waiting("PostgreSQL", words), true);
    }
    let Some(Ok(deep)) = &world.deep else {
        return (Finding::good(Reason::External, "run by somebody else"), true);
    };
    let words = |check: &crate::platform::observe::deep::Check| {
        check
            .error
            .clone()
            .unwrap_or_else(|| "no cause was given".to_owned())
    };
    let finding = if !deep.write.ok {
        Finding::bad(
            Reason::NoPrimary,
            format!("the external PostgreSQL takes no writes: {}", words(&deep.write)),
        )
    } else if !deep.read.ok {
        Finding::bad(
            Reason::ReplicaNotStreaming,
            format!(
                "no replica of the external PostgreSQL serves reads: {}",
                words(&deep.read)
            ),
        )
    } else {
        super::lagging(platform, world)
            .unwrap_or_else(|| Finding::good(Reason::External, "run by somebody else; writes and reads work"))
    };
    (finding, true)
}

/// An external Redis.
pub(super) fn cache(platform: &Platform, world: &World) -> Finding {
    if let Some((reason, words)) = missing(&world.references, &of_cache(platform)) {
        return Finding::bad(reason, words);
    }
    if !is_admitted(platform, world) {
        let words = world.checked.as_ref().and_then(|checked| checked.redis.clone());
        return waiting("Redis", words);
    }
    match &world.deep {
        Some(Ok(deep)) if !deep.redis.ok => {
            let words = deep.redis.error.as_deref().unwrap_or("no cause was given");
            Finding::bad(
                Reason::Unreachable,
                format!("the external Redis does not answer: {words}"),
            )
        }
        Some(Ok(_)) => Finding::good(Reason::External, "run by somebody else; a round trip works"),
        _ => Finding::good(Reason::External, "run by somebody else"),
    }
}

/// Whether the migration of this release has found the services usable.
fn is_admitted(platform: &Platform, world: &World) -> bool {
    let job = Key::new(Kind::Job, migration_job::name(platform, world));
    migration::state(world.objects.get(&job)) == Migration::Done
}

fn waiting(service: &str, words: Option<String>) -> Finding {
    match words {
        Some(words) => Finding::bad(Reason::Unreachable, words),
        None => Finding::bad(
            Reason::Progressing,
            format!("the external {service} is checked before the release uses it"),
        ),
    }
}
