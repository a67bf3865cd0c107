//! Password hashing in a bounded pool of threads that give way to all others. One hash takes a core for milliseconds and 19 MiB; without
//! a bound a crowd that logs in would slow everything else. What cannot be hashed soon is refused soon.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use rayon::{ThreadPool, ThreadPoolBuilder};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};

use crate::entropy;
use crate::metrics::{Counted, HashingMetrics};

/// 19 MiB and two passes, the least that OWASP recommends for Argon2id.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
/// Requests that may wait for each running hash. At 30 to 50 ms each the last one is answered within half a second: whoever would wait longer
/// is told at once to come again.
const WAITING_PER_SLOT: usize = 8;
/// How long a request waits for its turn, should hashes take longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Hashes at the same time, whatever the machine: they take 19 MiB each of what the container may have.
const MOST: usize = 4;
/// Niceness of these threads: a tenth of the weight of a thread that serves. Reads take the cores when they want them, and logins still
/// get something of a machine that is full.
const NICENESS: i32 = 10;
/// How much of the processor the container may have: `max 100000`, or microseconds in each of so many.
const CPU_MAX: &str = "/sys/fs/cgroup/cpu.max";

/// Hashing failed.
#[derive(Debug, thiserror::Error)]
pub enum HashingError {
    /// Too many requests wait already.
    #[error("too many passwords are being checked")]
    Overloaded,
    /// The library refused, or the task died.
    #[error("password hashing failed")]
    Failed,
}

/// What a check of a password found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is not the password.
    Wrong,
    /// It is the password. When its hash was made with other parameters, a new one.
    Right {
        /// Replaces the stored hash.
        rehashed: Option<String>,
    },
}

/// The pool.
#[derive(Debug, Clone)]
pub struct Hashing {
    threads: Arc<ThreadPool>,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
    dummy: Arc<str>,
    metrics: HashingMetrics,
}

impl Hashing {
    /// A pool for this machine and this container.
    pub fn new(metrics: HashingMetrics) -> Result<Self, HashingError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let slots = slots(cores, &std::fs::read_to_string(CPU_MAX).unwrap_or_default());
        let threads = ThreadPoolBuilder::new()
            .num_threads(slots)
            .thread_name(|number| format!("hashing-{number}"))
            .start_handler(|_| give_way())
            // Whoever waits sees that the sender is gone; without a handler a panic would end the process.
            .panic_handler(|_| ())
            .build()
            .map_err(|_| HashingError::Failed)?;
        // Checked when nobody has the address, so that the time of the answer does not tell.
        let dummy = hash(&SecretString::from("no account has this password"))?;
        Ok(Self {
            threads: Arc::new(threads),
            running: Arc::new(Semaphore::new(slots)),
            admitted: Arc::new(Semaphore::new(slots * (1 + WAITING_PER_SLOT))),
            dummy: dummy.into(),
            metrics,
        })
    }

    /// Hashes a new password.
    pub async fn hash(&self, password: SecretString) -> Result<String, HashingError> {
        self.run(move || hash(&password)).await
    }

    /// Checks a password against a stored hash; without one, takes the same time and answers that it is wrong.
    pub async fn verify(
        &self,
        password: SecretString,
        stored: Option<String>,
    ) -> Result<Verdict, HashingError> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.dummy.to_string());
        let verdict = self.run(move || verify(&password, &stored)).await?;
        Ok(if known { verdict } else { Verdict::Wrong })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, HashingError> + Send + 'static,
    ) -> Result<T, HashingError> {
        let overloaded = || {
            self.metrics.shed.inc();
            HashingError::Overloaded
        };
        let _admitted = self.admitted.try_acquire().map_err(|_| overloaded())?;
        let waiting = Counted::new(&self.metrics.waiting);
        let slot = timeout(PATIENCE, self.running.clone().acquire_owned()).await;
        drop(waiting);
        let slot = slot
            .map_err(|_| overloaded())?
            .map_err(|_| HashingError::Failed)?;
        let (sender, receiver) = oneshot::channel();
        let (running, duration) = (Counted::new(&self.metrics.running), self.metrics.duration.clone());
        // The slot goes with the work: a client that leaves does not free it while the core is still busy.
        self.threads.spawn(move || {
            let started = Instant::now();
            let done = work();
            duration.observe(started.elapsed().as_secs_f64());
            drop((running, slot));
            // Nobody listens when the client has left.
            let _ = sender.send(done);
        });
        receiver.await.map_err(|_| HashingError::Failed)?
    }
}

/// How many hashes run at the same time. Threads that give way may have all cores; where the container has a share of the processor and no
/// more, what they take is missing elsewhere whatever their priority, so they take half.
fn slots(cores: usize, cpu_max: &str) -> usize {
    let capped = cpu_max
        .split_whitespace()
        .next()
        .is_some_and(|share| share != "max");
    let cores = if capped { cores / 2 } else { cores };
    cores.clamp(1, MOST)
}

/// Lowers the priority of this thread, and of no other: on Linux it counts for each thread by itself.
fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::warn!(%error, "passwords are hashed at the priority of everything else");
    }
}

fn argon2() -> Result<Argon2<'static>, HashingError> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|_| HashingError::Failed)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Hashes at once, outside of the pool: for the command line.
pub(crate) fn hash(password: &SecretString) -> Result<String, HashingError> {
    let salt = entropy::bytes::<16>();
    let hash: PasswordHash = argon2()?
        .hash_password_with_salt(password.expose_secret().as_bytes(), &salt)
        .map_err(|_| HashingError::Failed)?;
    Ok(hash.to_string())
}

fn verify(password: &SecretString, stored: &str) -> Result<Verdict, HashingError> {
    let parsed = PasswordHash::new(stored).map_err(|_| HashingError::Failed)?;
    if Argon2::default()
        .verify_password(password.expose_secret().as_bytes(), &parsed)
        .is_err()
    {
        return Ok(Verdict::Wrong);
    }
    let current = stored.starts_with(&format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p=1$"));
    Ok(Verdict::Right {
        rehashed: if current { None } else { Some(hash(password)?) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[test]
    fn a_password_is_recognised() {
        let stored = hash(&secret("correct horse")).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_eq!(
            verify(&secret("correct horse"), &stored).unwrap(),
            Verdict::Right { rehashed: None }
        );
        assert_eq!(verify(&secret("wrong horse"), &stored).unwrap(), Verdict::Wrong);
    }

    #[test]
    fn hashing_takes_all_cores_unless_the_container_has_a_share() {
        assert_eq!(slots(3, "max 100000\n"), 3);
        assert_eq!(slots(3, ""), 3);
        assert_eq!(slots(64, ""), MOST);
        assert_eq!(slots(4, "400000 100000\n"), 2);
        assert_eq!(slots(1, "50000 100000\n"), 1);
    }

    #[tokio::test]
    async fn hashing_gives_way_to_everything_else() {
        let pool = Hashing::new(Metrics::new().hashing.clone()).unwrap();
        let niceness = pool
            .run(|| Ok(rustix::process::getpriority_process(None).unwrap()))
            .await;
        assert_eq!(niceness.unwrap(), NICENESS);
    }

    #[tokio::test]
    async fn a_hash_that_panics_fails_alone() {
        let pool = Hashing::new(Metrics::new().hashing.clone()).unwrap();
        let failed = pool.run(|| -> Result<(), _> { panic!("a defect") }).await;
        assert!(matches!(failed, Err(HashingError::Failed)));
        assert!(pool.hash(secret("correct horse")).await.is_ok());
    }

    #[test]
    fn a_hash_with_weaker_parameters_is_replaced() {
        let weak = Argon2::new(
            Algorithm::Argon2id,
            Version::V0x13,
            Params::new(8_192, 1, 1, None).unwrap(),
        );
        let stored: PasswordHash = weak.hash_password_with_salt(b"correct horse", &[7; 16]).unwrap();
        let verdict = verify(&secret("correct horse"), &stored.to_string()).unwrap();
        assert!(matches!(verdict, Verdict::Right { rehashed: Some(new) } if new.contains("m=19456,t=2")));
    }

    #[tokio::test]
    async fn an_unknown_account_is_wrong_even_with_the_dummy_password() {
        let pool = Hashing::new(Metrics::new().hashing.clone()).unwrap();
        let verdict = pool
            .verify(secret("no account has this password"), None)
            .await
            .unwrap();
        assert_eq!(verdict, Verdict::Wrong);
    }

    #[tokio::test]
    async fn a_crowd_is_refused_instead_of_queued() {
        let pool = Hashing::new(Metrics::new().hashing.clone()).unwrap();
        let _everything = pool
            .admitted
            .try_acquire_many(u32::try_from(pool.admitted.available_permits()).unwrap())
            .unwrap();
        let refused = pool.hash(secret("correct horse")).await;
        assert!(matches!(refused, Err(HashingError::Overloaded)));
        assert_eq!(pool.metrics.shed.get(), 1);
    }
}
