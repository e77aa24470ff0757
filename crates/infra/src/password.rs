//! Passwords: argon2id on threads of its own, behind a bounded queue.
//!
//! One hash is about 30 ms of a core and 19 MiB. On the workers that serve requests a few sign-ins would stop everybody
//! else's reads; without a bound a flood of wrong passwords would queue for minutes.

use std::thread;

use argon2::password_hash::{self, PasswordHasher as _, PasswordVerifier as _, phc};
use argon2::{Algorithm, Argon2, Params, Version};
use async_trait::async_trait;
use mundap_domain::Error;
use mundap_domain::account::{Password, PasswordHash, PasswordHasher};
use mundap_domain::error::Cause;

use crate::pool::Pool;

/// Verified against where there is no account: with the parameters of a real one, it takes as long. No password is known
/// to give 32 zero bytes, and one that did would still be refused.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bXVuZGFwIG5vYm9keQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// OWASP's first choice for argon2id: 19 MiB, two passes, one lane.
fn argon2() -> Argon2<'static> {
    const {
        assert!(Params::DEFAULT_M_COST == 19_456 && Params::DEFAULT_T_COST == 2 && Params::DEFAULT_P_COST == 1);
    }
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

/// Threads that hash passwords.
pub struct Argon2Pool {
    pool: Pool,
}

impl Argon2Pool {
    /// How many may wait: at half the cores this is about a second of work.
    const WAITING: usize = 32;

    /// Half the machine's cores, at least one.
    ///
    /// # Panics
    /// Where no thread can be started.
    #[must_use]
    pub fn start() -> Self {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::with(cores / 2, Self::WAITING)
    }

    /// `threads` (at least one) hash, `waiting` more wait for them.
    ///
    /// # Panics
    /// Where no thread can be started.
    #[must_use]
    pub fn with(threads: usize, waiting: usize) -> Self {
        Self { pool: Pool::start("argon2", threads, waiting) }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Cause> + Send + 'static,
    ) -> Result<T, Error> {
        self.pool.run(|| work().map_err(Error::internal)).await
    }
}

#[async_trait]
impl PasswordHasher for Argon2Pool {
    async fn hash(&self, password: &Password) -> Result<PasswordHash, Error> {
        let password = password.clone();
        self.run(move || {
            let hash: phc::PasswordHash = argon2().hash_password(password.expose().as_bytes())?;
            Ok(PasswordHash::new(hash.to_string()))
        })
        .await
    }

    async fn verify(&self, password: &Password, hash: Option<PasswordHash>) -> Result<bool, Error> {
        let password = password.clone();
        self.run(move || {
            let stored = phc::PasswordHash::new(hash.as_ref().map_or(NOBODY, PasswordHash::as_str))?;
            match argon2().verify_password(password.expose().as_bytes(), &stored) {
                Ok(()) => Ok(hash.is_some()),
                Err(password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::parse(text).unwrap()
    }

    #[tokio::test]
    async fn a_password_matches_its_own_hash_alone() {
        let pool = Argon2Pool::with(1, 8);
        let hash = pool.hash(&password("correct horse")).await.unwrap();
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.as_str());
        assert!(pool.verify(&password("correct horse"), Some(hash.clone())).await.unwrap());
        assert!(!pool.verify(&password("correct h0rse"), Some(hash.clone())).await.unwrap());
        assert_ne!(pool.hash(&password("correct horse")).await.unwrap(), hash, "the salt is new each time");
    }

    #[tokio::test]
    async fn a_hash_is_read_with_the_parameters_it_was_made_with() {
        let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let hash: phc::PasswordHash = cheap.hash_password(b"correct horse").unwrap();
        let hash = Some(PasswordHash::new(hash.to_string()));
        assert!(Argon2Pool::with(1, 8).verify(&password("correct horse"), hash).await.unwrap());
    }

    #[tokio::test]
    async fn without_a_hash_the_answer_is_false_and_takes_as_long() {
        let pool = Argon2Pool::with(1, 8);
        assert!(!pool.verify(&password("correct horse"), None).await.unwrap());
        let nobody = phc::PasswordHash::new(NOBODY).unwrap();
        let real = pool.hash(&password("correct horse")).await.unwrap();
        let real = phc::PasswordHash::new(real.as_str()).unwrap();
        // What decides how long it takes: algorithm, version, parameters, and the length of the output.
        assert_eq!((nobody.algorithm, nobody.version, &nobody.params), (real.algorithm, real.version, &real.params));
        assert_eq!(nobody.hash.unwrap().len(), real.hash.unwrap().len());
    }

    #[tokio::test]
    async fn a_stored_hash_that_is_none_is_a_fault_of_ours() {
        let rubbish = Some(PasswordHash::new("swordfish".to_owned()));
        let outcome = Argon2Pool::with(1, 8).verify(&password("correct horse"), rubbish).await;
        assert_eq!(outcome.unwrap_err().code(), "internal_error");
    }
}
