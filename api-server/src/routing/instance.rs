//! One PostgreSQL instance: its pool, and what is known about it.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crds::config::{Config, Instance as Address};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::choose::Role;
use super::position::Position;
use crate::trust;

/// An instance cannot be set up from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// A file with a password or an address cannot be read.
    #[error("failed to read {} for the PostgreSQL instance {name}", path.display())]
    Read {
        /// Which instance.
        name: String,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The address is not a PostgreSQL URL.
    #[error("{} is not a PostgreSQL URL, for the instance {name}", path.display())]
    Url {
        /// Which instance.
        name: String,
        /// Which file.
        path: PathBuf,
    },
}

/// What the last probe saw.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// What the instance is.
    pub role: Role,
    /// How far it has replayed, or written.
    pub position: Position,
    /// When the probe was sent; what the instance said was true then or later.
    pub at: Instant,
}

/// One instance of the configuration.
#[derive(Debug)]
pub struct Instance {
    /// Name of the configuration.
    pub name: String,
    /// How to connect.
    pub(super) options: PgConnectOptions,
    /// Connections for requests.
    pub(super) pool: PgPool,
    /// Operations that this process runs on it.
    pub(super) busy: AtomicU32,
    /// Requests that wait for it to replay something.
    pub(super) waiters: AtomicU32,
    /// Reads that come here only because no replica can serve them: as many at a time as leave half of the connections to writes.
    pub(super) strays: Semaphore,
    /// Wakes its probe.
    pub(super) wake: Notify,
    /// Whether its last probe failed. One broken connection alone does not end what runs on the others.
    pub(super) lost: AtomicBool,
    /// Whether it served at the last look, so that leaving service is counted once.
    pub(super) in_service: AtomicBool,
    observation: Mutex<Option<Observation>>,
    settings: Settings,
}

/// Everything that an instance was built from. Equal settings keep their connections when the file changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    address: Address,
    name: String,
    user: String,
    secret: Option<[u8; 32]>,
    ca_file: Option<PathBuf>,
    connections: u32,
    acquire_timeout: Duration,
}

impl Instance {
    /// Builds an instance; connections are made later. `previous` is kept if nothing changed.
    pub fn build(
        address: &Address,
        config: &Config,
        connections: u32,
        previous: Option<&std::sync::Arc<Self>>,
    ) -> Result<std::sync::Arc<Self>, InstanceError> {
        let database = &config.database;
        let (options, secret) = connect_options(address, config)?;
        let settings = Settings {
            address: address.clone(),
            name: database.name.clone(),
            user: database.user.clone(),
            secret,
            ca_file: database.ca_file.clone(),
            connections,
            acquire_timeout: database.acquire_timeout.get(),
        };
        if let Some(previous) = previous.filter(|previous| previous.settings == settings) {
            return Ok(previous.clone());
        }
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .min_connections(1)
            .acquire_timeout(settings.acquire_timeout)
            .max_lifetime(Duration::from_mins(30))
            .idle_timeout(Duration::from_mins(10))
            // A ping before every use is a round trip; broken connections are noticed by probes and retries.
            .test_before_acquire(false)
            .connect_lazy_with(options.clone());
        Ok(std::sync::Arc::new(Self {
            name: address.name.clone(),
            options,
            pool,
            busy: AtomicU32::new(0),
            waiters: AtomicU32::new(0),
            strays: Semaphore::new(usize::try_from(connections / 2).unwrap_or_default().max(1)),
            wake: Notify::new(),
            lost: AtomicBool::new(false),
            in_service: AtomicBool::new(false),
            observation: Mutex::new(None),
            settings,
        }))
    }

    /// What is known, if it answers.
    pub fn observation(&self) -> Option<Observation> {
        *self.observation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a request waits for a connection.
    pub(super) fn patience(&self) -> Duration {
        self.settings.acquire_timeout
    }

    /// Connections for requests, at most.
    pub fn connections(&self) -> u32 {
        self.settings.connections
    }

    pub(super) fn observe(&self, observation: Option<Observation>) -> Option<Observation> {
        std::mem::replace(
            &mut *self.observation.lock().unwrap_or_else(PoisonError::into_inner),
            observation,
        )
    }

    pub(super) fn busy(&self) -> u32 {
        self.busy.load(Ordering::Relaxed)
    }
}

/// How the connections of a process are shared out: one for each instance's probe, the rest equally, at least one each.
/// The share does not depend on the role, so that a failover needs no new connections.
pub fn shares(pool_size: u32, instances: usize) -> Vec<u32> {
    let count = u32::try_from(instances).unwrap_or(u32::MAX).max(1);
    let rest = pool_size.saturating_sub(count);
    (0..count)
        .map(|index| (rest / count + u32::from(index < rest % count)).max(1))
        .collect()
}

fn connect_options(
    address: &Address,
    config: &Config,
) -> Result<(PgConnectOptions, Option<[u8; 32]>), InstanceError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|source| InstanceError::Read {
            name: address.name.clone(),
            path: path.to_owned(),
            source,
        })
    };
    let (options, secret) = if let Some(path) = &address.url_file {
        let url = read(path)?;
        let options = PgConnectOptions::from_str(url.trim()).map_err(|_| InstanceError::Url {
            name: address.name.clone(),
            path: path.clone(),
        })?;
        // The URL may be that of the role that owns the tables. Requests run as the one that row-level security binds.
        (options.options([("role", crate::migrate::APP_ROLE)]), Some(url))
    } else {
        let database = &config.database;
        let options = PgConnectOptions::new_without_pgpass()
            .host(address.host.as_deref().unwrap_or("localhost"))
            .port(address.port)
            .username(&database.user)
            .database(&database.name);
        match &database.password_file {
            Some(path) => {
                let password = read(path)?;
                (
                    options.password(password.trim_end_matches(['\r', '\n'])),
                    Some(password),
                )
            }
            None => (options, None),
        }
    };
    // An authority that is missing is noticed here, and not as a connection that fails.
    if let Some(path) = &config.database.ca_file {
        read(path)?;
    }
    // The server ends what this process no longer waits for.
    let options = trust::postgres(options, config.database.ca_file.as_deref())
        .application_name("tanka-api")
        .options([
            ("statement_timeout", "10s"),
            ("lock_timeout", "3s"),
            ("idle_in_transaction_session_timeout", "15s"),
        ])
        .statement_cache_capacity(256)
        .disable_statement_logging();
    let digest = secret.map(|text| <sha2::Sha256 as sha2::Digest>::digest(text).into());
    Ok((options, digest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_add_up_to_the_budget() {
        assert_eq!(shares(8, 3), [2, 2, 1]);
        assert_eq!(shares(16, 3), [5, 4, 4]);
        assert_eq!(shares(2, 3), [1, 1, 1]);
        assert_eq!(shares(8, 1), [7]);
    }

    proptest! {
        #[test]
        fn nobody_is_left_without_a_connection(size in 2_u32..100, instances in 1_usize..16) {
            let shares = shares(size, instances);
            let count = u32::try_from(instances).unwrap();
            prop_assert!(shares.iter().all(|share| *share >= 1));
            prop_assert!(shares.iter().sum::<u32>() + count <= size.max(2 * count));
        }
    }
}
