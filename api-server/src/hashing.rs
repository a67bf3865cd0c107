//! Password hashing in a bounded pool. One hash takes a core for milliseconds and 19 MiB; without a bound a crowd that logs in
//! would slow everything else. What cannot be hashed soon is refused soon.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::entropy;
use crate::metrics::HashingMetrics;

/// 19 MiB and two passes, the least that OWASP recommends for Argon2id.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
/// Requests that may wait for each running hash: at 15 ms each the last one waits about half a second.
const WAITING_PER_SLOT: usize = 32;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

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
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
    dummy: Arc<str>,
    metrics: HashingMetrics,
}

impl Hashing {
    /// A pool that uses at most half of the cores, so that everything else keeps the other half.
    pub fn new(metrics: HashingMetrics) -> Result<Self, HashingError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let slots = (cores / 2).max(1);
        // Checked when nobody has the address, so that the time of the answer does not tell.
        let dummy = hash(&SecretString::from("no account has this password"))?;
        Ok(Self {
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
        self.metrics.waiting.inc();
        let slot = timeout(PATIENCE, self.running.clone().acquire_owned()).await;
        self.metrics.waiting.dec();
        let slot = slot
            .map_err(|_| overloaded())?
            .map_err(|_| HashingError::Failed)?;
        self.metrics.running.inc();
        let started = Instant::now();
        // The slot goes with the work: a client that leaves does not free it while the core is still busy.
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(slot);
            done
        })
        .await;
        self.metrics.running.dec();
        self.metrics.duration.observe(started.elapsed().as_secs_f64());
        done.map_err(|_| HashingError::Failed)?
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
