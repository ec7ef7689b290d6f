//! Log-ins of members.
//!
//! A log-in is a secret in a cookie, `ID.SECRET`. The store keeps a digest of it under the ID.

use std::sync::Arc;

use profilestore::{
    Error,
    data_store::{Change, DataStore},
    env::Env,
};
use serde::{Deserialize, Serialize};

use super::Member;
use crate::{
    problem::Problem,
    secret,
    shelf::{Kept, Recent, Shelf},
};

/// The scope of the reserved store in which the log-ins are.
const LOGINS_SCOPE: &str = "logins";

/// How long a log-in lasts, in milliseconds: a working day.
pub(crate) const LASTS_MS: i64 = 12 * 3600 * 1000;

/// How long a log-in may change things once it is armed, in milliseconds.
pub(crate) const ARMED_MS: i64 = 15 * 60 * 1000;

/// How often a change is tried that others overtake.
const TRIES: usize = 10;

const ID_BYTES: usize = 6;

/// A log-in. Its secret is not known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Login {
    /// Its ID, the part of the cookie that is no secret.
    pub(crate) id: String,
    /// The member's name.
    pub(crate) name: String,
    /// The member's stamp when it was made. It is over when the member has another one.
    stamp: String,
    /// When it was made, Unix milliseconds.
    pub(crate) since_ms: i64,
    /// When it ends, Unix milliseconds.
    pub(crate) expires_ms: i64,
    /// From which address.
    pub(crate) address: String,
    /// Until when it may change things, Unix milliseconds. None: it is read-only.
    armed_until_ms: Option<i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredLogin {
    /// SHA-256 of the secret, in hexadecimal digits.
    hash: String,
    #[serde(flatten)]
    login: Login,
}

impl Login {
    pub(crate) fn armed_until_ms(&self, now_ms: i64) -> Option<i64> {
        self.armed_until_ms.filter(|until| *until > now_ms)
    }

    /// Whether it is one of this member, and not over.
    pub(crate) fn belongs_to(&self, member: &Member) -> bool {
        self.stamp == member.stamp && self.name == member.record.name && !member.record.disabled
    }
}

/// The log-ins of a store.
pub(crate) struct Logins {
    shelf: Shelf,
    env: Env,
    recent: Recent<StoredLogin>,
}

impl Logins {
    pub(crate) fn new(store: Arc<dyn DataStore>, env: Env) -> Self {
        Self {
            shelf: Shelf::new(store, env.clone(), LOGINS_SCOPE),
            recent: Recent::new(env.clone()),
            env,
        }
    }

    /// A log-in to be stored by the change, and its cookie.
    pub(crate) fn begin(
        &self,
        member: &Member,
        address: &str,
    ) -> Result<(Login, String, Change), Problem> {
        let random = |why| Problem::new("internal", why);
        let id = secret::hex(&secret::random::<ID_BYTES>().map_err(random)?);
        let text = secret::text::<32>().map_err(random)?;
        let since_ms = self.env.unix_ms();
        let login = Login {
            id: id.clone(),
            name: member.record.name.clone(),
            stamp: member.stamp.clone(),
            since_ms,
            expires_ms: since_ms + LASTS_MS,
            address: address.to_owned(),
            armed_until_ms: None,
        };
        let stored = StoredLogin { hash: secret::digest(&text), login: login.clone() };
        let change = self.shelf.write(&id, 0, &stored)?;
        Ok((login, format!("{id}.{text}"), change))
    }

    /// Makes changes that begin a log-in. False: another change came first.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<bool, Error> {
        self.shelf.commit(changes).await
    }

    /// Whose cookie this is, as of two seconds ago at most. None: nobody's, or it is over.
    pub(crate) async fn verify(&self, cookie: &str) -> Result<Option<Login>, Error> {
        let Some((id, text)) = cookie.split_once('.').filter(|(id, _)| is_id(id)) else {
            return Ok(None);
        };
        let stored = match self.recent.get(id) {
            Some(known) => known,
            None => self.look_up(id).await?,
        };
        let stored = stored.filter(|stored| secret::is(text, &stored.hash));
        let login = stored.map(|stored| stored.login.clone());
        Ok(login.filter(|login| login.expires_ms > self.env.unix_ms()))
    }

    /// Whether it is not over, as of two seconds ago at most.
    pub(crate) async fn is_there(&self, login: &Login) -> Result<bool, Error> {
        let stored = match self.recent.get(&login.id) {
            Some(known) => known,
            None => self.look_up(&login.id).await?,
        };
        Ok(stored.is_some() && login.expires_ms > self.env.unix_ms())
    }

    /// Whether it is armed now. Another process may have armed it a moment ago.
    pub(crate) async fn is_armed(&self, login: &Login) -> Result<bool, Error> {
        if login.armed_until_ms(self.env.unix_ms()).is_some() {
            return Ok(true);
        }
        let stored = self.look_up(&login.id).await?;
        let now_ms = self.env.unix_ms();
        Ok(stored.is_some_and(|stored| stored.login.armed_until_ms(now_ms).is_some()))
    }

    async fn look_up(&self, id: &str) -> Result<Option<Arc<StoredLogin>>, Error> {
        let found = self.shelf.read::<StoredLogin>(id).await?.value.map(Arc::new);
        self.recent.put(id, found.clone());
        Ok(found)
    }

    /// Lets it change things for a while, or no more. None: it is over.
    pub(crate) async fn arm(&self, id: &str, armed: bool) -> Result<Option<i64>, Problem> {
        for _ in 0..TRIES {
            let Kept { value: Some(mut stored), version } =
                self.shelf.read::<StoredLogin>(id).await?
            else {
                return Ok(None);
            };
            let until = armed.then(|| self.env.unix_ms() + ARMED_MS);
            stored.login.armed_until_ms = until;
            if self.shelf.commit(vec![self.shelf.write(id, version, &stored)?]).await? {
                self.recent.put(id, Some(Arc::new(stored)));
                return Ok(until);
            }
        }
        Err(Problem::new("busy", "the log-in kept changing"))
    }

    /// All that are not over, oldest first.
    pub(crate) async fn list(&self) -> Result<Vec<Login>, Error> {
        let now_ms = self.env.unix_ms();
        let stored = self.shelf.list::<StoredLogin>().await?;
        let mut logins: Vec<_> = stored.into_iter().map(|(stored, _)| stored.login).collect();
        logins.retain(|login| login.expires_ms > now_ms);
        logins.sort_by_key(|login| login.since_ms);
        Ok(logins)
    }

    /// The one of this ID.
    pub(crate) async fn find(&self, id: &str) -> Result<Option<Login>, Error> {
        if !is_id(id) {
            return Ok(None);
        }
        Ok(self.shelf.read::<StoredLogin>(id).await?.value.map(|stored| stored.login))
    }

    /// Ends one. It is refused everywhere two seconds later at the latest.
    pub(crate) async fn end(&self, id: &str) -> Result<(), Problem> {
        for _ in 0..TRIES {
            let kept = self.shelf.read::<StoredLogin>(id).await?;
            let is_there = kept.value.is_some();
            if !is_there || self.shelf.commit(self.shelf.remove(id, kept.version)?.into()).await? {
                self.recent.put(id, None);
                return Ok(());
            }
        }
        Err(Problem::new("busy", "the log-in kept changing"))
    }

    /// Removes those whose time is over.
    pub(crate) async fn tidy(&self) -> Result<(), Error> {
        let now_ms = self.env.unix_ms();
        for (stored, version) in self.shelf.list::<StoredLogin>().await? {
            if stored.login.expires_ms <= now_ms {
                self.shelf.commit(self.shelf.remove(&stored.login.id, version)?.into()).await?;
            }
        }
        Ok(())
    }
}

fn is_id(text: &str) -> bool {
    secret::is_id(text, ID_BYTES)
}
