//! The first member: made with a secret that the process shows once when it starts.

use parking_lot::Mutex;
use profilestore::Error;

use super::{MemberRecord, Members};
use crate::{problem::Problem, secret};

/// The secret for the first member, for the life of this process.
#[derive(Debug, Default)]
pub(crate) struct Setup(Mutex<Option<String>>);

impl Setup {
    /// A new secret, if there is no member yet. An earlier one counts no more.
    pub(crate) async fn open(&self, members: &Members) -> Result<Option<String>, Error> {
        if !members.list().await?.is_empty() {
            return Ok(None);
        }
        let text = secret::text::<16>().map_err(|reason| {
            Error::from(profilestore::data_store::StoreError::Unavailable { reason })
        })?;
        *self.0.lock() = Some(secret::digest(&text));
        Ok(Some(text))
    }

    /// Whether a secret is waited for, and this is another one.
    pub(crate) fn is_wrong(&self, token: &str) -> bool {
        self.0.lock().as_deref().is_some_and(|kept| !secret::is(token, kept))
    }

    /// Whether it is the secret that the server showed.
    fn is_right(&self, token: &str) -> bool {
        self.0.lock().as_deref().is_some_and(|kept| secret::is(token, kept))
    }

    /// Makes the first member, an admin, for this secret, which is spent by it.
    pub(crate) async fn spend(
        &self,
        members: &Members,
        token: &str,
        name: String,
        password: String,
    ) -> Result<MemberRecord, Problem> {
        if !members.list().await?.is_empty() {
            let detail = "there is a member already, who can log in and make others";
            return Err(Problem::new("already-set-up", detail));
        }
        if !self.is_right(token) {
            let detail = "this is not the set-up link that the server showed when it started last";
            return Err(Problem::new("unauthorized", detail));
        }
        let record = members.add_first(name, password).await?;
        self.0.lock().take();
        Ok(record)
    }
}
