//! Keys of callers: who may do what.
//!
//! A key is a text, `ps_ID_SECRET`, that is shown once, when it is made. The store keeps what is
//! known about it under its ID, with a SHA-256 of the secret: the secret has 256 random bits, so it
//! needs no slow hash. They lie in the reserved store, beside the audit log. So every process on
//! the store sees the same keys, and a backup has them too.
//!
//! A process asks the store about a key at most once in two seconds. So a key that is revoked is
//! refused everywhere two seconds later.

use std::{fmt, sync::Arc};

use profilestore::{
    Attribution, Error,
    audit::AuditEntry,
    data_store::{Change, DataStore},
    env::Env,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    secret,
    shelf::{Kept, Recent, Shelf},
};

mod record;
mod scope;
#[cfg(test)]
mod tests;

pub use record::{KeyRecord, NewKey};
pub use scope::Scope;

/// The scope of the reserved store in which the keys are.
pub const KEYS_SCOPE: &str = "api-keys";

/// The longest name of a key, in bytes.
pub const MAX_NAME_BYTES: usize = 100;

/// How exact the time of the last use is, in milliseconds.
const LAST_USE_MS: i64 = 60_000;

/// How often a change is tried that others overtake.
const TRIES: usize = 10;

const ID_BYTES: usize = 6;

/// The length of a secret of 32 bytes.
const SECRET_CHARS: usize = 43;

/// Why a key cannot be made, listed or revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// What was asked for cannot be.
    #[error("{0}")]
    Invalid(String),
    /// There is no such key.
    #[error("there is no such key: id=`{0}`")]
    NotFound(String),
    /// The operating system gave no randomness.
    #[error("{0}")]
    Random(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] profilestore::Error),
}

/// Why a caller's key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyRefusal {
    /// It is no key, there is no such key, or its secret is another one. These are not told apart.
    Unknown,
    /// It was revoked.
    Revoked,
    /// Its time is over.
    Expired,
}

/// Why a key could not be judged, or is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unverified {
    #[error("the key is refused")]
    Refused(KeyRefusal),
    #[error(transparent)]
    Store(profilestore::Error),
}

/// A key as it is stored.
#[derive(Clone, Serialize, Deserialize)]
struct StoredKey {
    /// SHA-256 of the secret, in hexadecimal digits.
    hash: String,
    #[serde(flatten)]
    record: KeyRecord,
}

struct Found {
    record: Arc<KeyRecord>,
    hash: String,
    version: u64,
}

/// The keys of a store.
pub struct Keys {
    shelf: Shelf,
    env: Env,
    recent: Recent<Found>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("shelf", &self.shelf).finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys of this store.
    pub fn new(store: Arc<dyn DataStore>, env: Env) -> Self {
        let shelf = Shelf::new(store, env.clone(), KEYS_SCOPE);
        Self { shelf, recent: Recent::new(env.clone()), env }
    }

    /// Makes a key, and its entry in the audit log. The text is the key itself, which cannot be had
    /// again.
    pub async fn add(
        &self,
        new: NewKey,
        by: &Attribution,
    ) -> Result<(KeyRecord, String), KeyError> {
        new.check()?;
        let id = secret::random::<ID_BYTES>().map_err(KeyError::Random)?;
        let text = secret::text::<32>().map_err(KeyError::Random)?;
        let record = KeyRecord {
            id: secret::hex(&id),
            name: new.name,
            scopes: new.scopes,
            store: new.store,
            prefix: new.prefix,
            created_ms: self.env.unix_ms(),
            expires_ms: new.expires_ms,
            revoked_ms: None,
            last_used_ms: None,
        };
        let stored = StoredKey { hash: secret::digest(&text), record: record.clone() };
        let changes =
            vec![self.shelf.write(&record.id, 0, &stored)?, self.booked("key-add", &record, by)?];
        if !self.shelf.commit(changes).await? {
            return Err(KeyError::Invalid("the key's ID is taken; try again".to_owned()));
        }
        Ok((record.clone(), format!("ps_{}_{text}", record.id)))
    }

    fn booked(&self, action: &str, record: &KeyRecord, by: &Attribution) -> Result<Change, Error> {
        let place = self.shelf.place(&record.id)?;
        AuditEntry::new(self.env.uuid(), action, vec![place], by.clone())
            .detail("name", &*record.name)
            .detail("scopes", json!(record.scopes))
            .detail("store", json!(record.store))
            .detail("prefix", json!(record.prefix))
            .detail("expires_ms", json!(record.expires_ms))
            .change()
    }

    /// All keys, by their IDs.
    pub async fn list(&self) -> Result<Vec<KeyRecord>, KeyError> {
        let keys = self.shelf.list::<StoredKey>().await?;
        Ok(keys.into_iter().map(|(key, _)| key.record).collect())
    }

    /// Refuses a key from now on, with an entry in the audit log. Its record stays, since the audit
    /// log names it. Revoking it again changes nothing.
    pub async fn revoke(&self, id: &str, by: &Attribution) -> Result<KeyRecord, KeyError> {
        let unknown = || KeyError::NotFound(id.to_owned());
        for _ in 0..TRIES {
            if !secret::is_id(id, ID_BYTES) {
                return Err(unknown());
            }
            let Kept { value, version } = self.shelf.read::<StoredKey>(id).await?;
            let mut key = value.ok_or_else(unknown)?;
            if key.record.revoked_ms.is_some() {
                return Ok(key.record);
            }
            key.record.revoked_ms = Some(self.env.unix_ms());
            let changes = vec![
                self.shelf.write(id, version, &key)?,
                self.booked("key-revoke", &key.record, by)?,
            ];
            // Its last use may be noted at the same moment.
            if self.shelf.commit(changes).await? {
                self.recent.forget(id);
                return Ok(key.record);
            }
        }
        Err(KeyError::Invalid("the key kept changing; try again".to_owned()))
    }

    /// Whose key this is. Asks the store at most once in two seconds about each.
    pub(crate) async fn verify(self: &Arc<Self>, text: &str) -> Result<Arc<KeyRecord>, Unverified> {
        let refused = Unverified::Refused;
        let (id, secret) = parts(text).ok_or(refused(KeyRefusal::Unknown))?;
        let found = self.look_up(id).await.map_err(Unverified::Store)?;
        let found = found.ok_or(refused(KeyRefusal::Unknown))?;
        if !secret::is(secret, &found.hash) {
            return Err(refused(KeyRefusal::Unknown));
        }
        match found.record.refusal(self.env.unix_ms()) {
            Some(why) => Err(refused(why)),
            None => Ok(found.record.clone()),
        }
    }

    /// Whether a key that was verified before is refused by now. While the store does not answer it
    /// is not.
    pub(crate) async fn is_refused(self: &Arc<Self>, id: &str) -> bool {
        match self.look_up(id).await {
            Ok(Some(found)) => found.record.refusal(self.env.unix_ms()).is_some(),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    async fn look_up(self: &Arc<Self>, id: &str) -> Result<Option<Arc<Found>>, Error> {
        if let Some(known) = self.recent.get(id) {
            return Ok(known);
        }
        let Kept { value, version } = self.shelf.read::<StoredKey>(id).await?;
        let found = value.map(|StoredKey { hash, record }| {
            Arc::new(Found { record: Arc::new(record), hash, version })
        });
        if let Some(found) = &found {
            self.note_use(found);
        }
        self.recent.put(id, found.clone());
        Ok(found)
    }

    /// Notes when a key was used, now and then. It may fail; the next use tries again.
    fn note_use(self: &Arc<Self>, found: &Arc<Found>) {
        let now_ms = self.env.unix_ms();
        let record = &found.record;
        let noted = record.last_used_ms.is_some_and(|last| now_ms - last < LAST_USE_MS);
        if noted || record.refusal(now_ms).is_some() {
            return;
        }
        let (keys, found) = (self.clone(), found.clone());
        tokio::spawn(async move {
            let record = KeyRecord { last_used_ms: Some(now_ms), ..(*found.record).clone() };
            let stored = StoredKey { hash: found.hash.clone(), record };
            let written = match keys.shelf.write(&stored.record.id, found.version, &stored) {
                Ok(change) => keys.shelf.commit(vec![change]).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                tracing::debug!(%error, id = stored.record.id, "the key's use was not noted");
            }
        });
    }
}

/// The ID and the secret in a key, if it has the form of one.
fn parts(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.strip_prefix("ps_")?.split_once('_')?;
    (secret::is_id(id, ID_BYTES) && secret.len() == SECRET_CHARS).then_some((id, secret))
}
