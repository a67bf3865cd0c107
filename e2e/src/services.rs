//! PostgreSQL (a primary, two replicas) and Redis (three members with Sentinels) on loopback, from the images of the platform.
//! They live as long as the [`Stack`]: every process dies with this one, and the data is deleted.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

use crate::{
    images::{self, Name},
    paths::Paths,
    process::{Call, lock},
    rootfs,
};

pub mod args;
mod control;
pub mod ports;
pub mod postgres;
pub mod redis;
mod redis_cluster;
mod resp;
mod sandbox;

pub use sandbox::{Sandbox, Service};

use redis_cluster::RedisCluster;

/// How often a condition is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(25);
const FOLDER_PREFIX: &str = "tanka-services-";
const QUERY_DEADLINE: Duration = Duration::from_secs(5);
const MEMORY: &str = "/dev/shm";
/// Three copies of a database that a test fills, with their logs, and twice as much to spare.
const MEMORY_WANTED: u64 = 6 << 30;

/// Services that run, and the folder of their data.
#[derive(Debug)]
pub struct Stack {
    services: BTreeMap<String, Service>,
    folder: PathBuf,
    kept_logs: PathBuf,
    _used: File,
}

impl Stack {
    /// An empty one with a fresh folder. Its logs are copied to `kept_logs` in the end.
    pub async fn new(kept_logs: PathBuf) -> Result<Self> {
        let parent = folder_for_data().await;
        delete_abandoned(&parent);
        let folder = (0..1000)
            .map(|number| parent.join(format!("{FOLDER_PREFIX}{}-{number}", std::process::id())))
            .find(|folder| !folder.exists())
            .context("no free name for a folder")?;
        // Under another name until it is marked as used, or another run would take it for abandoned.
        let unnamed = parent.join(format!(".{}", folder.file_name().unwrap_or_default().display()));
        fs::create_dir(&unnamed).with_context(|| format!("failed to create {}", unnamed.display()))?;
        let used = File::create(unnamed.join("used"))?;
        used.lock().context("failed to mark the folder as used")?;
        fs::rename(&unnamed, &folder)?;
        fs::create_dir(folder.join("logs"))?;
        Ok(Self {
            services: BTreeMap::new(),
            folder,
            kept_logs,
            _used: used,
        })
    }

    /// Where data, logs and the control socket are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds a service, and starts it.
    pub fn add(&mut self, mut service: Service) -> Result<()> {
        service.start()?;
        self.services.insert(service.name().to_owned(), service);
        Ok(())
    }

    /// A service by name.
    pub fn service(&mut self, name: &str) -> Result<&mut Service> {
        let names = self.services.keys().cloned().collect::<Vec<_>>().join(", ");
        self.services
            .get_mut(name)
            .with_context(|| format!("no service is called {name}; there are {names}"))
    }

    /// All services.
    pub fn services(&mut self) -> impl Iterator<Item = &mut Service> {
        self.services.values_mut()
    }

    /// Waits until `ready` says yes; ends early when a service has ended.
    pub async fn wait_until(
        &mut self,
        what: &str,
        deadline: Duration,
        mut ready: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        let end = Instant::now() + deadline;
        while !ready().await {
            for service in self.services.values_mut() {
                if let Some(status) = service.ended()? {
                    bail!(
                        "{} ended while waiting until {what} ({status}):\n{}",
                        service.name(),
                        service.log_end()
                    );
                }
            }
            if Instant::now() >= end {
                bail!("gave up after {} s waiting until {what}", deadline.as_secs());
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Ends everything, and waits until it has ended.
    pub async fn tear_down(mut self) -> Result<()> {
        Service::kill_all(self.services.values_mut()).await
    }

    fn keep_logs(&self) -> Result<()> {
        fs::create_dir_all(&self.kept_logs)?;
        for entry in fs::read_dir(self.folder.join("logs"))? {
            let path = entry?.path();
            fs::copy(&path, self.kept_logs.join(path.file_name().unwrap_or_default()))?;
        }
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // Processes first: the folder may be mounted in their namespaces.
        self.services.clear();
        if let Err(error) = self.keep_logs() {
            eprintln!(
                "failed to keep the logs in {}: {error:#}",
                self.kept_logs.display()
            );
        }

        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where data goes: `TMPDIR` when set, else memory when there is plenty (files are made ten times faster there), else the system's
/// temporary folder. Not the state folder, because the path of a socket must be short.
async fn folder_for_data() -> PathBuf {
    if env::var_os("TMPDIR").is_none() {
        let call = Call::new("df", QUERY_DEADLINE).args(["--output=avail", "--block-size=1", MEMORY]);
        let text = call.output().await.unwrap_or_default();
        let free = text
            .lines()
            .last()
            .and_then(|line| line.trim().parse::<u64>().ok())
            .unwrap_or_default();
        if free >= MEMORY_WANTED {
            return PathBuf::from(MEMORY);
        }
    }
    env::temp_dir()
}

/// Deletes the folders of runs that were killed before they could.
fn delete_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let abandoned = entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX)
            && File::open(entry.path().join("used")).is_ok_and(|file| file.try_lock().is_ok());
        if abandoned {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Everything that the API server needs, ready for use.
#[derive(Debug)]
pub struct Platform {
    /// The processes.
    pub stack: Stack,
    /// The databases.
    pub postgres: postgres::Cluster,
    /// The Redis members.
    pub redis: redis::Group,
    redis_cluster: Option<RedisCluster>,
}

impl Platform {
    /// Starts all of it and waits until it is ready.
    pub async fn start(paths: &Paths) -> Result<Self> {
        let built = images::build(paths, &[Name::Postgres, Name::Redis]).await?;
        let mut roots = Vec::new();
        for (name, image) in &built {
            roots.push((rootfs::unpack(paths, *name, image).await?, image.tag().to_owned()));
        }
        let [(postgres_root, postgres_tag), (redis_root, _)] = <[_; 2]>::try_from(roots)
            .map_err(|_| anyhow::anyhow!("expected the two images that were asked for"))?;
        let template = {
            let folder = paths.cache.join("pgdata");
            fs::create_dir_all(&folder)?;
            let _lock = lock(&folder.join("lock"), postgres::TEMPLATE_DEADLINE).await?;
            postgres::template(&folder, &postgres_root, &postgres_tag).await?
        };
        let mut stack = Stack::new(paths.state.join("services/logs")).await?;
        // All at once, since a port is free until its service listens.
        let ports = ports::free(redis::PORTS + postgres::SERVERS)?;
        let (redis_ports, postgres_ports) = ports.split_at(redis::PORTS);
        let options = redis::Options::default();
        let redis = redis::Group::start(&mut stack, redis_root, redis_ports, &options)?;
        let postgres =
            postgres::Cluster::start(&mut stack, postgres_root, &template, postgres_ports.to_vec()).await?;
        postgres.wait_until_ready(&mut stack).await?;
        redis.wait_until_ready(&mut stack).await?;
        Ok(Self {
            stack,
            postgres,
            redis,
            redis_cluster: None,
        })
    }

    /// Starts a Redis Cluster beside it.
    pub async fn add_redis_cluster(&mut self) -> Result<()> {
        let cluster = RedisCluster::start(&mut self.stack, self.redis.image()).await?;
        self.redis_cluster = Some(cluster);
        Ok(())
    }

    /// What a command that uses the services finds in its environment.
    pub fn environment(&self) -> Result<Vec<(&'static str, String)>> {
        let mut variables = self.postgres.environment();
        variables.extend(self.redis.environment());
        variables.extend(self.redis_cluster.iter().map(RedisCluster::environment));
        let program = std::env::current_exe()?;
        variables.push(("TANKA_TEST_CONTROLLER", program.display().to_string()));
        variables.push((
            "TANKA_TEST_CONTROL",
            control::socket(&self.stack).display().to_string(),
        ));
        Ok(variables)
    }
}
