//! All instances together: who is what, who serves an operation, and running it there.

mod place;
mod run;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use crds::config::Config;
use futures::future::BoxFuture;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::choose::{Candidate, Role};
use super::instance::{Instance, InstanceError, Observation, shares};
use super::position::Position;
use super::probe;
use super::statement::Watch;
use crate::cache::Target;
use crate::config::Live;
use crate::domain::event::Event;
use crate::metrics::{DatabaseMetrics, InstanceLabels, PoolLabels};

/// Writes that may wait for a primary at the same time; more are refused at once, so that a failover
/// does not end in a crowd.
const MOST_HELD: usize = 2_000;
/// Positions of the primary that are remembered: enough for ages of a few seconds at ten probes a second.
const SAMPLES: usize = 64;

/// Takes events of committed writes.
pub trait EventSink: Send + Sync {
    /// Must not block; what cannot be taken is found in the outbox later.
    fn publish(&self, events: Vec<Event>);
}

/// Takes people whose rights committed writes have changed.
pub trait AccessSink: Send + Sync {
    /// Must not block; other processes find them in the table.
    fn rights_changed(&self, people: &[Uuid]);
}

/// Takes what committed writes have replaced.
pub trait InvalidationSink: Send + Sync {
    /// Ends when nothing replaced is served any more by whoever can be told now; the table tells the others.
    fn invalidated(&self, position: Position, changed: Vec<(i64, Target)>) -> BoxFuture<'static, ()>;
}

/// All instances of the configuration.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    instances: ArcSwap<Vec<Arc<Instance>>>,
    probes: Mutex<HashMap<String, (Arc<Instance>, CancellationToken)>>,
    samples: Mutex<VecDeque<(Instant, Position)>>,
    changed: watch::Sender<()>,
    turn: AtomicUsize,
    held: Semaphore,
    live: Live,
    metrics: DatabaseMetrics,
    watch: Arc<Watch>,
    sink: OnceLock<Arc<dyn EventSink>>,
    access: OnceLock<Arc<dyn AccessSink>>,
    cache: OnceLock<Arc<dyn InvalidationSink>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("instances", &self.0.instances.load().len())
            .finish_non_exhaustive()
    }
}

/// What is known about an instance, for health reports.
#[derive(Debug, Clone)]
pub struct InstanceReport {
    /// Name of the configuration.
    pub name: String,
    /// What it is, if it answers.
    pub candidate: Option<Candidate>,
}

impl Fleet {
    /// Sets up all instances and starts to probe them. Writes run as tasks of `tasks`, which a drain waits for.
    pub fn start(
        live: Live,
        metrics: DatabaseMetrics,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, InstanceError> {
        let fleet = Self(Arc::new(Inner {
            instances: ArcSwap::default(),
            probes: Mutex::default(),
            samples: Mutex::default(),
            changed: watch::Sender::new(()),
            turn: AtomicUsize::new(0),
            held: Semaphore::new(MOST_HELD),
            watch: Arc::new(Watch {
                metrics: metrics.clone(),
                live: live.clone(),
            }),
            live,
            metrics,
            sink: OnceLock::new(),
            access: OnceLock::new(),
            cache: OnceLock::new(),
            tasks,
            stop,
        }));
        fleet.apply(&fleet.0.live.get())?;
        let (follower, mut changes) = (fleet.clone(), fleet.0.live.subscribe());
        tokio::spawn(async move {
            let stop = follower.0.stop.clone();
            while let Some(Ok(())) = stop.run_until_cancelled(changes.changed()).await {
                if let Err(error) = follower.apply(&follower.0.live.get()) {
                    tracing::error!(%error, "instances of the new configuration cannot be used, the old ones stay");
                }
            }
        });
        Ok(fleet)
    }

    /// Where events of committed writes go. Set once, before the first write.
    pub fn set_sink(&self, sink: Arc<dyn EventSink>) {
        let _ = self.0.sink.set(sink);
    }

    /// Who is told whose rights committed writes have changed. Set once, before the first write.
    pub fn set_access_sink(&self, sink: Arc<dyn AccessSink>) {
        let _ = self.0.access.set(sink);
    }

    /// Who is told what committed writes have replaced. Set once, before the first write.
    pub fn set_cache(&self, cache: Arc<dyn InvalidationSink>) {
        let _ = self.0.cache.set(cache);
    }

    /// Takes over the instances of a configuration. Unchanged ones keep their connections.
    fn apply(&self, config: &Config) -> Result<(), InstanceError> {
        let old = self.0.instances.load_full();
        let addresses = &config.database.instances;
        let sizes = shares(config.database.pool_size, addresses.len());
        let mut new = Vec::with_capacity(addresses.len());
        for (address, size) in addresses.iter().zip(sizes) {
            let previous = old.iter().find(|instance| instance.name == address.name);
            new.push(Instance::build(address, config, size, previous)?);
        }
        let mut probes = self.0.probes.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = |instance: &Arc<Instance>| new.iter().any(|other| Arc::ptr_eq(instance, other));
        for (instance, stop) in probes
            .extract_if(|_, (instance, _)| !kept(instance))
            .map(|(_, probe)| probe)
        {
            stop.cancel();
            // Closing waits for connections in use; nobody waits for closing.
            tokio::spawn(async move { instance.pool.close().await });
        }
        for instance in &new {
            // A counter that begins at zero shows its first increase.
            self.ejections(instance);
            probes.entry(instance.name.clone()).or_insert_with(|| {
                let stop = self.0.stop.child_token();
                tokio::spawn(probe::run(self.clone(), instance.clone(), stop.clone()));
                (instance.clone(), stop)
            });
        }
        self.0.instances.store(Arc::new(new));
        self.0.changed.send_replace(());
        Ok(())
    }

    /// Takes note of a probe. Answers whether the instance has just become unavailable.
    pub(super) fn record(&self, instance: &Instance, observation: Option<Observation>) -> bool {
        if let Some(seen) = observation
            && seen.role == Role::Primary
        {
            self.sample(seen);
        }
        let before = instance.observe(observation);
        self.note_service();
        self.0.changed.send_replace(());
        before.is_some() && observation.is_none()
    }

    /// Counts and logs instances that began or ceased to serve.
    fn note_service(&self) {
        let instances = self.0.instances.load_full();
        let most = Self::max_lag(&self.0.live.get());
        for (instance, candidate) in instances.iter().zip(self.candidates(&instances, Instant::now())) {
            let serves =
                candidate.filter(|c| c.role == Role::Primary || c.lag.is_some_and(|lag| lag <= most));
            if instance.in_service.swap(serves.is_some(), Ordering::Relaxed) == serves.is_some() {
                continue;
            }
            if let Some(Candidate { role, position, .. }) = serves {
                tracing::info!(instance.name = %instance.name, role = role.as_str(), %position,
                    "PostgreSQL instance serves");
            } else {
                self.ejections(instance).inc();
                tracing::warn!(instance.name = %instance.name, answers = candidate.is_some(),
                    "PostgreSQL instance was taken out of service");
            }
        }
    }

    /// Notes how many connections an instance has and allows.
    pub(super) fn note_connections(&self, instance: &Instance, used: i64, limit: i64) {
        let labels = InstanceLabels {
            server: instance.name.clone(),
        };
        self.0.metrics.connections.get_or_create(&labels).set(used);
        self.0.metrics.connections_limit.get_or_create(&labels).set(limit);
    }

    fn ejections(&self, instance: &Instance) -> Counter {
        let labels = InstanceLabels {
            server: instance.name.clone(),
        };
        self.0.metrics.ejections.get_or_create_owned(&labels)
    }

    fn sample(&self, seen: Observation) {
        let mut samples = self.0.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = samples.back().map_or(0, |(_, position)| position.timeline);
        if seen.position.timeline < newest {
            return;
        }
        if seen.position.timeline > newest {
            samples.clear();
        }
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back((seen.at, seen.position));
    }

    /// What every instance is now, in the order of `instances`.
    fn candidates(&self, instances: &[Arc<Instance>], now: Instant) -> Vec<Option<Candidate>> {
        let seen: Vec<_> = instances.iter().map(|instance| instance.observation()).collect();
        let has_primary = seen.iter().flatten().any(|o| o.role == Role::Primary);
        let samples = self.0.samples.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a primary nothing new is written, so nobody becomes older.
        let now = if has_primary {
            now
        } else {
            samples.back().map_or(now, |(at, _)| *at)
        };
        seen.into_iter()
            .zip(instances)
            .map(|(observation, instance)| {
                let Observation { role, position, .. } = observation?;
                Some(Candidate {
                    role,
                    position,
                    lag: age(&samples, position, now),
                    busy: instance.busy(),
                })
            })
            .collect()
    }

    /// What is known about every instance.
    pub fn report(&self) -> Vec<InstanceReport> {
        let instances = self.0.instances.load_full();
        let candidates = self.candidates(&instances, Instant::now());
        instances
            .iter()
            .zip(candidates)
            .map(|(instance, candidate)| InstanceReport {
                name: instance.name.clone(),
                candidate,
            })
            .collect()
    }

    /// Greatest age that replicas may serve. Heartbeats come in intervals, so an instance whose stream was cut is noticed
    /// an interval late; the limit is lowered by it to keep what the configuration promises.
    pub(crate) fn max_lag(config: &Config) -> Duration {
        let wanted = config.database.max_replica_lag.get();
        wanted.saturating_sub(probe::pace(wanted).beat).max(wanted / 2)
    }

    /// The greatest age that the configuration allows a replica, but not less than a busy machine takes for a probe.
    pub(super) fn oldest(&self) -> Duration {
        self.0
            .live
            .get()
            .database
            .max_replica_lag
            .get()
            .max(Duration::from_millis(500))
    }

    /// How often instances are asked.
    pub(super) fn pace(&self) -> probe::Pace {
        probe::pace(self.0.live.get().database.max_replica_lag.get())
    }

    /// Brings gauges up to date; called when metrics are asked for.
    pub fn measure(&self) {
        let metrics = &self.0.metrics;
        for report in self.report() {
            let labels = InstanceLabels { server: report.name };
            let role = report.candidate.map(|c| c.role);
            metrics.up.get_or_create(&labels).set(i64::from(role.is_some()));
            metrics
                .primary
                .get_or_create(&labels)
                .set(i64::from(role == Some(Role::Primary)));
            if let Some(Candidate {
                role: Role::Replica,
                lag: Some(lag),
                ..
            }) = report.candidate
            {
                metrics.lag.get_or_create(&labels).set(lag.as_secs_f64());
            } else {
                // What is not a replica, or does not answer, has no lag; an old one would look like one that is true now.
                metrics.lag.remove(&labels);
            }
        }
        for instance in self.0.instances.load().iter() {
            let idle = i64::try_from(instance.pool.num_idle()).unwrap_or(i64::MAX);
            let size = i64::from(instance.pool.size());
            let states = [
                ("idle", idle),
                ("used", size - idle),
                ("max", i64::from(instance.connections())),
            ];
            for (state, value) in states {
                let labels = PoolLabels {
                    pool: instance.name.clone(),
                    state,
                };
                metrics.pool.get_or_create(&labels).set(value);
            }
        }
    }

    /// Closes all connections; what is in use is waited for until `deadline`.
    pub async fn close(&self, deadline: Instant) {
        let instances = self.0.instances.load_full();
        let all = futures::future::join_all(instances.iter().map(|instance| instance.pool.close()));
        let _ = tokio::time::timeout_at(deadline, all).await;
    }
}

/// Upper bound of the age of an instance at `position`: when the primary was last seen at a position that it has.
fn age(samples: &VecDeque<(Instant, Position)>, position: Position, now: Instant) -> Option<Duration> {
    let (at, _) = samples
        .iter()
        .rev()
        .find(|(_, sample)| position.covers(*sample))?;
    Some(now.saturating_duration_since(*at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(timeline: u32, lsn: u64) -> Position {
        Position { timeline, lsn }
    }

    #[test]
    fn age_counts_from_the_last_position_that_a_replica_has() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let samples: VecDeque<_> = [
            (at(0), position(1, 10)),
            (at(100), position(1, 20)),
            (at(200), position(1, 30)),
        ]
        .into();
        assert_eq!(
            age(&samples, position(1, 30), at(250)),
            Some(Duration::from_millis(50))
        );
        assert_eq!(
            age(&samples, position(1, 29), at(250)),
            Some(Duration::from_millis(150))
        );
        assert_eq!(age(&samples, position(1, 9), at(250)), None);
        assert_eq!(age(&samples, position(2, 9), at(250)), None);
    }

    #[test]
    fn the_limit_leaves_room_for_a_heartbeat() {
        let text = "database: {instances: [{name: a, host: a}]}\nredis: {sentinels: ['r:1']}\n";
        let config = crds::config::parse(text).unwrap();
        assert_eq!(Fleet::max_lag(&config), Duration::from_millis(750));
        let config =
            crds::config::parse(&text.replace("{instances", "{maxReplicaLag: 200ms, instances")).unwrap();
        assert_eq!(Fleet::max_lag(&config), Duration::from_millis(150));
    }
}
