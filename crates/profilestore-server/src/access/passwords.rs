//! Passwords: hashing and comparing them, off the threads that answer requests, and a few at once.

use std::sync::Arc;

use argon2::{
    Argon2, PasswordHasher as _, PasswordVerifier as _, password_hash::phc::PasswordHash,
};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{problem::Problem, secret};

/// The shortest password, in characters.
const MIN_CHARS: usize = 10;

/// The longest password, in bytes.
const MAX_BYTES: usize = 256;

/// How many are hashed at once: each takes 19 MiB and some tens of milliseconds of one core.
const AT_ONCE: usize = 2;

/// How many wait for that.
const WAITING: usize = 30;

/// A hash of no password, as costly to compare with as any other. So a name that does not exist
/// takes as long as one that does.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA\
    $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[derive(Debug)]
pub(crate) struct Passwords {
    at_once: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Passwords {
    pub(crate) fn new() -> Self {
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        Self { at_once, waiting: Semaphore::new(AT_ONCE + WAITING) }
    }

    /// An argon2id hash with a salt of its own, as a PHC string.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Problem> {
        if password.chars().count() < MIN_CHARS || password.len() > MAX_BYTES {
            let detail = format!(
                "a password has {MIN_CHARS} characters at least and {MAX_BYTES} bytes at most"
            );
            return Err(Problem::invalid(detail));
        }
        let salt = secret::random::<16>().map_err(|why| Problem::new("internal", why))?;
        self.work(move || {
            let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
            hash.map(|hash| hash.to_string())
                .map_err(|error| Problem::new("internal", format!("no hash: {error}")))
        })
        .await?
    }

    /// Whether the password is the one of this hash. None: there is no such member.
    pub(crate) async fn is(&self, password: String, hash: Option<String>) -> Result<bool, Problem> {
        self.work(move || {
            let is_there = hash.is_some() && password.len() <= MAX_BYTES;
            let text = hash.as_deref().filter(|_| is_there).unwrap_or(DECOY);
            let same = PasswordHash::new(text).is_ok_and(|hash| {
                let short = &password.as_bytes()[..password.len().min(MAX_BYTES)];
                Argon2::default().verify_password(short, &hash).is_ok()
            });
            same && is_there
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let busy = || Problem::new("overloaded", "too many passwords are being looked at");
        let _place = self.waiting.try_acquire().map_err(|_| busy())?;
        let turn = self.at_once.clone().acquire_owned().await.map_err(|_| busy())?;
        // The turn lasts as long as the work, also when nobody waits for it any more.
        let work = move || {
            let done = work();
            drop(turn);
            done
        };
        spawn_blocking(work).await.map_err(|error| Problem::new("internal", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_the_decoy_costs_the_same() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        let other = passwords.hash("correct horse".into()).await.unwrap();
        assert_ne!(hash, other, "each has a salt of its own");
        assert!(passwords.is("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.is("correct horsf".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.is("correct horse".into(), None).await.unwrap());
        assert!(!passwords.is("x".repeat(MAX_BYTES + 1), Some(hash.clone())).await.unwrap());
        let cost = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cost(&hash), cost(DECOY));
        assert_eq!(hash.len(), DECOY.len());
        assert!(PasswordHash::new(DECOY).is_ok());
    }

    #[tokio::test]
    async fn short_and_huge_passwords_are_refused() {
        let passwords = Passwords::new();
        assert!(passwords.hash("short".into()).await.is_err());
        assert!(passwords.hash("x".repeat(MAX_BYTES + 1)).await.is_err());
    }
}
