//! Keys of callers: who may do what.
//!
//! A key is a text, `ps_ID_SECRET`, that is shown once, when it is made. The store keeps what is
//! known about it under its ID, with a SHA-256 of the secret: the secret has 256 random bits, so it
//! needs no slow hash. They lie in the reserved store, beside the audit log. So every process on
//! the store sees the same keys, and a backup has them too.
//!
//! A process asks the store about a key at most once in two seconds. So a key that is revoked is
//! refused everywhere two seconds later.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use profilestore::{
    ErrorKind, ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt as _, KeyFilter, KeyQuery,
        KeyState, NewValue, Returning, StoreError,
    },
    env::Env,
    key::RESERVED_STORE,
    record::{Foreign, Stored},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, value::to_raw_value};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use utoipa::ToSchema;

/// The scope of the reserved store in which the keys are.
pub const KEYS_SCOPE: &str = "api-keys";

/// The longest name of a key, in bytes.
pub const MAX_NAME_BYTES: usize = 100;

/// The form of a stored key. One with a higher number was made by a newer version.
const FORM: u32 = 1;

/// How long what the store said about a key counts.
const FRESH: Duration = Duration::from_secs(2);

/// How many keys are remembered at once, those that do not exist included.
const REMEMBERED: usize = 10_000;

/// How exact the time of the last use is, in milliseconds.
const LAST_USE_MS: i64 = 60_000;

/// How many keys are read at once.
const PAGE: usize = 256;

const ID_BYTES: usize = 6;

/// What a key may be used for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[non_exhaustive]
pub enum Scope {
    /// All of the others, and the keys themselves.
    #[serde(rename = "admin")]
    Admin,
    /// The audit log.
    #[serde(rename = "audit:read")]
    AuditRead,
    /// Edits of one profile.
    #[serde(rename = "edits:single")]
    EditsSingle,
    /// Rolling back, and pinning versions.
    #[serde(rename = "history:restore")]
    HistoryRestore,
    /// Sending messages.
    #[serde(rename = "messages:send")]
    MessagesSend,
    /// `/metrics`.
    #[serde(rename = "metrics:read")]
    MetricsRead,
    /// Reading profiles, their history, their messages and who holds them.
    #[serde(rename = "profiles:read")]
    ProfilesRead,
    /// Writing and removing profiles, and ending sessions.
    #[serde(rename = "profiles:write")]
    ProfilesWrite,
    /// Holding sessions: what a game server does over `/v1/connect`.
    #[serde(rename = "sessions:hold")]
    SessionsHold,
    /// Erasing users.
    #[serde(rename = "users:erase")]
    UsersErase,
    /// Taking out all that is stored of a user.
    #[serde(rename = "users:export")]
    UsersExport,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 11] = [
        Self::Admin,
        Self::AuditRead,
        Self::EditsSingle,
        Self::HistoryRestore,
        Self::MessagesSend,
        Self::MetricsRead,
        Self::ProfilesRead,
        Self::ProfilesWrite,
        Self::SessionsHold,
        Self::UsersErase,
        Self::UsersExport,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::AuditRead => "audit:read",
            Self::EditsSingle => "edits:single",
            Self::HistoryRestore => "history:restore",
            Self::MessagesSend => "messages:send",
            Self::MetricsRead => "metrics:read",
            Self::ProfilesRead => "profiles:read",
            Self::ProfilesWrite => "profiles:write",
            Self::SessionsHold => "sessions:hold",
            Self::UsersErase => "users:erase",
            Self::UsersExport => "users:export",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            format!("there is no such scope; there are {all}: scope=`{text}`")
        })
    }
}

/// What is known about a key. The secret is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
pub struct KeyRecord {
    /// Its ID, the part of the key that is no secret.
    pub id: String,
    /// Its name, for people: the author of what is done with it.
    pub name: String,
    /// What it may be used for.
    pub scopes: BTreeSet<Scope>,
    /// Only profiles of this store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Only profiles whose key begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// When it was made, Unix milliseconds.
    pub created_ms: i64,
    /// From when on it is refused, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<i64>,
    /// Since when it is revoked, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_ms: Option<i64>,
    /// When it was used last, to the minute, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_ms: Option<i64>,
}

impl KeyRecord {
    /// Whether it may be used for this, on some profile at least.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whether it reaches this profile.
    pub fn reaches(&self, key: &ProfileKey) -> bool {
        self.store.as_ref().is_none_or(|store| store == key.store())
            && self.prefix.as_ref().is_none_or(|prefix| key.key().starts_with(&**prefix))
    }

    /// Whether it is narrowed to some profiles.
    pub fn is_narrowed(&self) -> bool {
        self.store.is_some() || self.prefix.is_some()
    }

    /// Whether it is refused at this time, and why.
    pub fn refusal(&self, now_ms: i64) -> Option<KeyRefusal> {
        if self.revoked_ms.is_some() {
            Some(KeyRefusal::Revoked)
        } else if self.expires_ms.is_some_and(|expires| expires <= now_ms) {
            Some(KeyRefusal::Expired)
        } else {
            None
        }
    }
}

/// A key to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// Its name, for people: 1 to 100 bytes.
    pub name: String,
    /// What it may be used for: at least one scope.
    pub scopes: BTreeSet<Scope>,
    /// Only profiles of this store.
    #[serde(default)]
    pub store: Option<String>,
    /// Only profiles whose key begins so. Needs `store`.
    #[serde(default)]
    pub prefix: Option<String>,
    /// From when on it is refused, Unix milliseconds.
    #[serde(default)]
    pub expires_ms: Option<i64>,
}

impl NewKey {
    fn check(&self) -> Result<(), KeyError> {
        let wrong = |why: &str| Err(KeyError::Invalid(why.to_owned()));
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            return wrong("a key's name is 1 to 100 bytes long");
        }
        if self.name.chars().any(char::is_control) {
            return wrong("a key's name has no control characters");
        }
        if self.scopes.is_empty() {
            return wrong("a key needs at least one scope");
        }
        if self.prefix.is_some() && self.store.is_none() {
            return wrong("a prefix narrows a key within a store; name the store too");
        }
        if self.store.is_some() && self.scopes.contains(&Scope::Admin) {
            return wrong("an admin's key reaches everything; it cannot be narrowed to a store");
        }
        let store = self.store.as_deref().unwrap_or("any");
        let prefix = self.prefix.as_deref().unwrap_or("any");
        ProfileKey::new(store, "global", prefix)
            .map(drop)
            .map_err(|error| KeyError::Invalid(error.to_string()))
    }
}

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
    #[error("the operating system gave no randomness: {0}")]
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
#[derive(Serialize, Deserialize)]
struct StoredKey {
    v: u32,
    /// SHA-256 of the secret, in hexadecimal digits.
    hash: String,
    #[serde(flatten)]
    record: KeyRecord,
}

#[derive(Clone)]
struct Found {
    record: Arc<KeyRecord>,
    hash: [u8; 32],
    version: u64,
}

struct Remembered {
    since: Instant,
    found: Option<Found>,
}

/// The keys of a store.
pub struct Keys {
    store: Arc<dyn DataStore>,
    env: Env,
    remembered: Mutex<HashMap<String, Remembered>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys of this store.
    pub fn new(store: Arc<dyn DataStore>, env: Env) -> Self {
        Self { store, env, remembered: Mutex::default() }
    }

    /// Makes a key. The text is the key itself, which cannot be had again.
    pub async fn add(&self, new: NewKey) -> Result<(KeyRecord, String), KeyError> {
        new.check()?;
        let (mut id, mut secret) = ([0; ID_BYTES], [0; 32]);
        for bytes in [&mut id[..], &mut secret[..]] {
            getrandom::fill(bytes).map_err(|error| KeyError::Random(error.to_string()))?;
        }
        let record = KeyRecord {
            id: hex(&id),
            name: new.name,
            scopes: new.scopes,
            store: new.store,
            prefix: new.prefix,
            created_ms: self.env.unix_ms(),
            expires_ms: new.expires_ms,
            revoked_ms: None,
            last_used_ms: None,
        };
        let text = format!("ps_{}_{}", record.id, URL_SAFE_NO_PAD.encode(secret));
        self.write(&record, &digest(secret_of(&text)), 0).await?;
        Ok((record, text))
    }

    /// All keys, by their IDs.
    pub async fn list(&self) -> Result<Vec<KeyRecord>, KeyError> {
        let mut query = KeyQuery {
            store: Some(RESERVED_STORE.to_owned()),
            scope: Some(KEYS_SCOPE.to_owned()),
            filter: KeyFilter::All,
            after: None,
            limit: PAGE,
        };
        let mut records = Vec::new();
        loop {
            let page = self.store.keys(&query).await.map_err(profilestore::Error::from)?;
            let names: Vec<_> = page.iter().map(|state| state.key.clone()).collect();
            let value = Returning { value: true, inbox_unless: None };
            let snapshot =
                self.store.read(&names, value).await.map_err(profilestore::Error::from)?;
            for state in &snapshot.states {
                records.extend(read(state)?.map(|found| (*found.record).clone()));
            }
            match names.into_iter().next_back().filter(|_| page.len() >= PAGE) {
                Some(last) => query.after = Some(last),
                None => return Ok(records),
            }
        }
    }

    /// Refuses a key from now on. Its record stays, since the audit log names it. Revoking it again
    /// changes nothing.
    pub async fn revoke(&self, id: &str) -> Result<KeyRecord, KeyError> {
        for _ in 0..10 {
            let found = self.read(id).await?.ok_or_else(|| KeyError::NotFound(id.to_owned()))?;
            if found.record.revoked_ms.is_some() {
                return Ok((*found.record).clone());
            }
            let mut record = (*found.record).clone();
            record.revoked_ms = Some(self.env.unix_ms());
            match self.write(&record, &found.hash, found.version).await {
                // Its last use was noted at the same moment.
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                written => {
                    written?;
                    self.remembered.lock().remove(id);
                    return Ok(record);
                }
            }
        }
        Err(KeyError::Invalid("the key kept changing; try again".to_owned()))
    }

    /// Whose key this is. Asks the store at most once in two seconds about each.
    pub(crate) async fn verify(self: &Arc<Self>, text: &str) -> Result<Arc<KeyRecord>, Unverified> {
        let refused = Unverified::Refused;
        let id = id_of(text).ok_or(refused(KeyRefusal::Unknown))?;
        let found = self.look_up(id).await.map_err(Unverified::Store)?;
        let found = found.ok_or(refused(KeyRefusal::Unknown))?;
        if !bool::from(found.hash.ct_eq(&digest(secret_of(text)))) {
            return Err(refused(KeyRefusal::Unknown));
        }
        match found.record.refusal(self.env.unix_ms()) {
            Some(why) => Err(refused(why)),
            None => Ok(found.record),
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

    async fn look_up(self: &Arc<Self>, id: &str) -> Result<Option<Found>, profilestore::Error> {
        let now = self.env.now();
        if let Some(known) = self.remembered.lock().get(id)
            && now.saturating_duration_since(known.since) < FRESH
        {
            return Ok(known.found.clone());
        }
        let found = self.read(id).await?;
        if let Some(found) = &found {
            self.note_use(found);
        }
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED {
            remembered.retain(|_, known| now.saturating_duration_since(known.since) < FRESH);
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
        }
        remembered.insert(id.to_owned(), Remembered { since: now, found: found.clone() });
        Ok(found)
    }

    /// Notes when a key was used, now and then. It may fail; the next use tries again.
    fn note_use(self: &Arc<Self>, found: &Found) {
        let now_ms = self.env.unix_ms();
        let record = &found.record;
        let noted = record.last_used_ms.is_some_and(|last| now_ms - last < LAST_USE_MS);
        if noted || record.refusal(now_ms).is_some() {
            return;
        }
        let (keys, found) = (self.clone(), found.clone());
        tokio::spawn(async move {
            let record = KeyRecord { last_used_ms: Some(now_ms), ..(*found.record).clone() };
            if let Err(error) = keys.write(&record, &found.hash, found.version).await {
                tracing::debug!(%error, id = record.id, "the key's use was not noted");
            }
        });
    }

    async fn read(&self, id: &str) -> Result<Option<Found>, profilestore::Error> {
        let Some(key) = place(id) else { return Ok(None) };
        let value = Returning { value: true, inbox_unless: None };
        let (_, state) = self.store.read_one(&key, value).await?;
        read(&state)
    }

    async fn write(
        &self,
        record: &KeyRecord,
        hash: &[u8; 32],
        version: u64,
    ) -> Result<(), profilestore::Error> {
        let damaged = |reason: String| StoreError::Invalid { reason };
        let key = place(&record.id).ok_or_else(|| damaged("a key's ID is hexadecimal".into()))?;
        let stored = StoredKey { v: FORM, hash: hex(hash), record: record.clone() };
        let value = to_raw_value(&stored).map_err(|error| damaged(error.to_string()))?;
        let foreign = Foreign { user_ids: Vec::new(), metadata: Map::new(), value };
        let commit = Commit {
            id: CommitId(self.env.uuid()),
            incarnation: self.store.identity().await?.incarnation,
            from: None,
            changes: vec![Change::Write {
                key,
                epoch: 0,
                version,
                value: NewValue::Bytes(Stored::Foreign(foreign).encode()?),
                user_ids: Vec::new(),
                cause: Cause::Set,
                author: "keys".to_owned(),
                keep_previous: false,
                seal: false,
                imported: None,
            }],
            returning: Returning::HEAD,
            fingerprint: None,
        };
        match self.store.commit_one(commit.clone()).await {
            // The same commit again tells, and does it if it was not done.
            Err(StoreError::Indeterminate { .. }) => self.store.commit_one(commit).await?,
            other => other?,
        };
        Ok(())
    }
}

/// Where a key is stored.
fn place(id: &str) -> Option<ProfileKey> {
    let is_id = id.len() == 2 * ID_BYTES
        && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_id.then(|| ProfileKey::new(RESERVED_STORE, KEYS_SCOPE, id).ok()).flatten()
}

fn read(state: &KeyState) -> Result<Option<Found>, profilestore::Error> {
    let (Some(head), Some(bytes)) = (&state.head, &state.value) else { return Ok(None) };
    let damaged = |reason: String| StoreError::Corrupt {
        reason: format!("a key cannot be read, or is of a newer version: {reason}: {}", state.key),
    };
    let Stored::Foreign(foreign) = Stored::decode(bytes)? else {
        return Err(damaged("it is something else".into()).into());
    };
    let stored: StoredKey =
        serde_json::from_str(foreign.value.get()).map_err(|error| damaged(error.to_string()))?;
    if stored.v > FORM {
        return Err(damaged(format!("its form is {}", stored.v)).into());
    }
    let hash = unhex(&stored.hash).ok_or_else(|| damaged("its hash is none".into()))?;
    Ok(Some(Found { record: Arc::new(stored.record), hash, version: head.number }))
}

/// The ID in a key, if it has the form of one.
fn id_of(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix("ps_")?.split_once('_')?;
    (place(id).is_some() && secret.len() == 43).then_some(id)
}

fn secret_of(text: &str) -> &str {
    text.splitn(3, '_').nth(2).unwrap_or_default()
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use profilestore::data_store::MemoryStore;

    use super::*;

    fn keys() -> Arc<Keys> {
        let env = Env::system();
        Arc::new(Keys::new(Arc::new(MemoryStore::new(env.clone())), env))
    }

    fn reader() -> NewKey {
        NewKey {
            name: "reader".into(),
            scopes: BTreeSet::from([Scope::ProfilesRead]),
            ..NewKey::default()
        }
    }

    fn refusal(answer: Result<Arc<KeyRecord>, Unverified>) -> KeyRefusal {
        match answer {
            Err(Unverified::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_key_is_known_by_its_text_alone_and_the_store_has_no_secret() {
        let keys = keys();
        let (record, text) = keys.add(reader()).await.unwrap();
        assert_eq!(text.len(), 59, "{text}");
        assert_eq!(keys.verify(&text).await.unwrap().id, record.id);
        let other = format!("{}{}", &text[..58], if text.ends_with('A') { 'B' } else { 'A' });
        let short = &text[..58];
        for wrong in [&*other, short, "", "ps_", "ps__", "ps_000000000000_", "Bearer"] {
            assert_eq!(refusal(keys.verify(wrong).await), KeyRefusal::Unknown, "{wrong}");
        }
        let place = place(&record.id).unwrap();
        let (_, state) = keys.store.read_one(&place, Returning::ALL).await.unwrap();
        let Stored::Foreign(stored) = Stored::decode(&state.value.unwrap()).unwrap() else {
            panic!("a key is no profile")
        };
        assert!(!stored.value.get().contains(secret_of(&text)));
    }

    #[tokio::test]
    async fn a_revoked_key_and_an_expired_one_are_refused() {
        let keys = keys();
        let (record, text) = keys.add(reader()).await.unwrap();
        keys.verify(&text).await.unwrap();
        assert!(keys.revoke(&record.id).await.unwrap().revoked_ms.is_some());
        assert_eq!(refusal(keys.verify(&text).await), KeyRefusal::Revoked);
        keys.revoke(&record.id).await.unwrap();
        assert!(matches!(keys.revoke("000000000000").await, Err(KeyError::NotFound(_))));
        let old = NewKey { expires_ms: Some(1), ..reader() };
        let (_, text) = keys.add(old).await.unwrap();
        assert_eq!(refusal(keys.verify(&text).await), KeyRefusal::Expired);
        assert_eq!(keys.list().await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_key_that_makes_no_sense_is_not_made() {
        let keys = keys();
        let wrong = [
            NewKey { name: String::new(), ..reader() },
            NewKey { name: "a\nb".into(), ..reader() },
            NewKey { scopes: BTreeSet::new(), ..reader() },
            NewKey { prefix: Some("a".into()), ..reader() },
            NewKey { store: Some("x".repeat(51)), ..reader() },
            NewKey { store: Some("S".into()), scopes: BTreeSet::from([Scope::Admin]), ..reader() },
        ];
        for new in wrong {
            assert!(matches!(keys.add(new).await, Err(KeyError::Invalid(_))));
        }
    }

    #[test]
    fn scopes_are_read_as_they_are_shown() {
        for scope in Scope::ALL {
            assert_eq!(scope.to_string().parse(), Ok(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
        assert!("profiles".parse::<Scope>().unwrap_err().contains("profiles:read"));
    }
}
