//! A profile that was only read.

use std::{fmt, sync::Arc};

use serde_json::{Map, Value};

use crate::{
    api::store::ProfileStore,
    data::{Codec as _, ProfileData, encode_for_save},
    data_store::{Cause, Incarnation, KeyState, StoredMessage, StoredVersion, VersionRef},
    engine::{Engine, calls::Replacement, history::Which},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    record::{Record, Stored, UserId, version::KeyInfo},
    session::{
        handlers::{Handled, Message},
        info::SessionInfo,
    },
    storable::{check_metadata, check_users},
};

/// A profile that was read without a session: a copy, to look at or to write back.
#[derive(Clone)]
pub struct ReadProfile<T> {
    store: ProfileStore<T>,
    key: ProfileKey,
    /// The data, to be changed at will. Specification: `Data`.
    pub data: T,
    record: Record,
    info: Option<KeyInfo>,
    load_count: u64,
    session: Option<SessionInfo>,
    inbox: Vec<StoredMessage>,
    /// In these contents of the store it was read: numbers mean nothing in others.
    incarnation: Incarnation,
    read_epoch: u64,
    /// The version that was current then.
    read_version: u64,
    existed: bool,
    /// It was asked for as a version.
    restores: bool,
    processed: Vec<u64>,
}

impl<T: fmt::Debug> fmt::Debug for ReadProfile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadProfile")
            .field("key", &self.key)
            .field("data", &self.data)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl<T: ProfileData> ReadProfile<T> {
    /// What a key holds, as a read says that began in these contents of the store.
    pub(crate) fn current(
        store: ProfileStore<T>,
        incarnation: Incarnation,
        mut state: KeyState,
    ) -> Result<Option<Self>> {
        state.hide_edits();
        let version =
            state.head.clone().map(|info| StoredVersion { info, value: state.value.clone() });
        if !state.exists() && state.inbox.as_ref().is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        Self::read(store, incarnation, state, version, false).map(Some)
    }

    pub(crate) fn of_version(
        store: ProfileStore<T>,
        incarnation: Incarnation,
        mut state: KeyState,
        version: Option<StoredVersion>,
    ) -> Result<Self> {
        let Some(version) = version else {
            return Err(
                Error::new(ErrorKind::NotFound, "there is no such version").about(&state.key)
            );
        };
        state.hide_edits();
        Self::read(store, incarnation, state, Some(version), true)
    }

    fn read(
        store: ProfileStore<T>,
        incarnation: Incarnation,
        state: KeyState,
        version: Option<StoredVersion>,
        restores: bool,
    ) -> Result<Self> {
        let (info, value) =
            version.map_or((None, None), |version| (Some(version.info), version.value));
        let stored = value
            .as_deref()
            .map(Stored::decode)
            .transpose()
            .map_err(|error| Error::from(error).about(&state.key))?;
        let (record, data) = match stored {
            Some(Stored::Profile(record)) => {
                let opened = store.codec.open_typed(&state.key, &record);
                let data = opened.map_err(|error| error.about(&state.key))?;
                (record, data)
            }
            Some(Stored::Foreign(_)) => {
                return Err(Error::new(ErrorKind::Foreign, "what is stored is not a profile")
                    .about(&state.key));
            }
            // Only messages, or a tombstone.
            _ => {
                let data = store.codec.template_typed()?;
                let now = store.server().inner.engine.link.env.unix_ms().div_euclid(1000);
                (Record::new(now, serde_json::value::RawValue::NULL.to_owned()), data)
            }
        };
        let info_ = info.as_ref();
        let load_count = match info_ {
            Some(info) if info.superseded_ms.is_some() => info.load_count,
            _ => state.lease.load_count,
        };
        Ok(Self {
            info: info_.map(|info| KeyInfo::of(info, state.created_ms, Some(&record))),
            load_count,
            session: state.lease.holder.as_ref().map(SessionInfo::from),
            inbox: state.inbox.clone().unwrap_or_default(),
            incarnation,
            read_epoch: state.epoch,
            read_version: state.version,
            existed: state.exists(),
            key: state.key,
            store,
            data,
            record,
            restores,
            processed: Vec::new(),
        })
    }

    /// The profile's full name.
    pub fn key(&self) -> &ProfileKey {
        &self.key
    }

    /// Which server has a session on the profile, if one had when it was read. Specification:
    /// `Session`.
    pub fn session(&self) -> Option<&SessionInfo> {
        self.session.as_ref()
    }

    /// When the profile was created, Unix seconds; now if it has no data yet. Specification:
    /// `FirstSessionTime`.
    pub fn first_session_time(&self) -> f64 {
        self.record.created_s.as_f64().unwrap_or_default()
    }

    /// How many sessions had been started on it; 0 if it has no data yet. Specification:
    /// `SessionLoadCount`.
    pub fn session_load_count(&self) -> u64 {
        self.load_count
    }

    /// About the version that was read. None if the key holds only messages. Specification:
    /// `KeyInfo`.
    pub fn key_info(&self) -> Option<&KeyInfo> {
        self.info.as_ref()
    }

    /// The users associated with the profile. Specification: `UserIds`.
    pub fn user_ids(&self) -> &[i64] {
        &self.record.user_ids
    }

    /// The metadata of the profile's key. Specification: `RobloxMetaData`.
    pub fn roblox_metadata(&self) -> &Map<String, Value> {
        &self.record.roblox_metadata
    }

    /// Specification: `MetaTags`.
    pub fn meta_tags(&self) -> &Map<String, Value> {
        &self.record.meta_tags
    }

    /// Replaces the tags; of effect with [`ReadProfile::set`].
    pub fn set_meta_tags(&mut self, tags: Map<String, Value>) {
        self.record.meta_tags = tags;
    }

    /// The messages that wait for the profile.
    pub fn waiting_messages(&self) -> &[StoredMessage] {
        &self.inbox
    }

    /// Says that the effect of a message is in the data: it leaves the inbox with
    /// [`ReadProfile::set`].
    pub fn process_message(&mut self, index: u64) {
        if !self.processed.contains(&index) {
            self.processed.push(index);
        }
    }

    /// Associates a user; of effect with [`ReadProfile::set`]. Specification: `AddUserId`.
    pub fn add_user_id(&mut self, user_id: i64) -> Result<()> {
        check_users(&[user_id]).map_err(|error| Error::from(error).about(&self.key))?;
        if !self.record.user_ids.contains(&user_id) {
            self.record.user_ids.push(user_id);
        }
        Ok(())
    }

    /// Takes an association away; of effect with [`ReadProfile::set`]. Specification:
    /// `RemoveUserId`.
    pub fn remove_user_id(&mut self, user_id: i64) {
        self.record.user_ids.retain(|id| *id != user_id);
    }

    /// All users associated with the profile, by number and by name.
    pub fn users(&self) -> Vec<UserId> {
        self.record.users()
    }

    /// Associates a user, by number or by name; of effect with [`ReadProfile::set`].
    pub fn add_user(&mut self, user: impl Into<UserId>) -> Result<()> {
        let user = user.into();
        user.check().map_err(|error| Error::from(error).about(&self.key))?;
        self.record.add_user(user);
        Ok(())
    }

    /// Takes an association away; of effect with [`ReadProfile::set`].
    pub fn remove_user(&mut self, user: impl Into<UserId>) {
        self.record.remove_user(&user.into());
    }

    /// Replaces the metadata; of effect with [`ReadProfile::set`]. See
    /// [`crate::Profile::set_roblox_metadata`].
    pub fn set_roblox_metadata(&mut self, metadata: Map<String, Value>) -> Result<()> {
        check_metadata(&metadata).map_err(|error| Error::from(error).about(&self.key))?;
        self.record.roblox_metadata = metadata;
        Ok(())
    }

    /// Offers the waiting messages to `handler`, as [`crate::Profile::message_handler`] does for a
    /// live profile. Those it processes leave the inbox with [`ReadProfile::set`]. It can send no
    /// gifts ([`Message::gift`]): of a handler that tries, nothing counts.
    pub fn handle_messages(&mut self, mut handler: impl FnMut(&mut T, &Message<'_>)) {
        for stored in &self.inbox {
            if self.processed.contains(&stored.index) {
                continue;
            }
            let (message, before) = (Message::new(stored), self.data.clone());
            handler(&mut self.data, &message);
            match message.handled() {
                Handled::Processed(_) => self.processed.push(stored.index),
                Handled::Left => {}
                Handled::Spoiled(_) => self.data = before,
            }
        }
    }

    /// Fills what the store's template has and the data lacks. Specification: `Reconcile`.
    pub fn reconcile(&mut self) -> Result<()> {
        self.data =
            self.store.codec.reconcile(&self.data).map_err(|error| error.about(&self.key))?;
        Ok(())
    }

    /// Writes this copy over whatever is stored, and ends the session that some server may have:
    /// what that one has not saved is lost. Waiting messages stay. When it returns Ok, it is
    /// durable. With an earlier version this rolls the profile back; what it replaces stays in the
    /// history. Specification: `SetAsync`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Removed`] when the profile was removed since it was read, also if there is
    /// another one by now; errors of encoding as in [`crate::Profile::save`].
    pub fn set(&self) -> impl Future<Output = Result<()>> + Send + 'static + use<T> {
        let replaced = self.replacement().map(|replacement| {
            self.store
                .with_engine(self.key.key(), move |engine, key| engine.replace(key, replacement))
        });
        async move { replaced?.await.map(drop) }
    }

    fn replacement(&self) -> Result<Replacement> {
        let mut meta = Record { origin: None, ..self.record.clone() };
        self.store.codec.stamp(&mut meta);
        let verify = self.store.server().inner.engine.link.settings().verify_saves;
        let (bytes, _) = encode_for_save(&self.data, &meta, &*self.store.codec, verify)
            .map_err(|error| error.about(&self.key))?;
        Ok(Replacement {
            bytes,
            user_ids: meta.indexed_users(),
            cause: if self.restores { Cause::Restore } else { Cause::Set },
            incarnation: self.incarnation,
            read_epoch: self.read_epoch,
            read_version: self.read_version,
            existed: self.existed,
            processed: self.processed.clone(),
        })
    }
}

impl<T: ProfileData> ProfileStore<T> {
    /// Reads the profile as it was saved last, without a session. None when there is no such
    /// profile: the player has never played, or the profile was removed. Fails with
    /// [`crate::ErrorKind::Foreign`] where something else is stored. A key that holds only messages
    /// gives the template's data. Waits for one round trip, during an outage for at most
    /// [`crate::Settings::call_timeout`]. Specification: `GetAsync`.
    pub fn get(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<ReadProfile<T>>>> + Send + 'static + use<T> {
        let found = self.with_engine(key, |engine, key| within(engine, engine.get(key)));
        let store = self.clone();
        async move {
            let (incarnation, state) = found.await?;
            ReadProfile::current(store, incarnation, state)
        }
    }

    /// Reads an earlier version of the profile, as [`ProfileStore::get`] reads the current one: by
    /// its number, or by its version string ([`crate::KeyInfo::version`]). [`ReadProfile::set`]
    /// rolls the profile back to it. A tombstone comes as the template's data. Fails with
    /// [`crate::ErrorKind::NotFound`] when it is not, or no longer, in the history. Specification:
    /// `GetAsync` with a version.
    pub fn get_version(
        &self,
        key: &str,
        version: VersionRef,
    ) -> impl Future<Output = Result<ReadProfile<T>>> + Send + 'static + use<T> {
        self.read_version(key, Which::Named(version))
    }

    /// Reads the version that was current at a time (Unix milliseconds), as far as the history
    /// goes: the newest kept one that was written until then. Otherwise as
    /// [`ProfileStore::get_version`].
    pub fn get_version_at(
        &self,
        key: &str,
        unix_ms: i64,
    ) -> impl Future<Output = Result<ReadProfile<T>>> + Send + 'static + use<T> {
        self.read_version(key, Which::At(unix_ms))
    }

    fn read_version(
        &self,
        key: &str,
        which: Which,
    ) -> impl Future<Output = Result<ReadProfile<T>>> + Send + 'static + use<T> {
        let found =
            self.with_engine(key, |engine, key| within(engine, engine.get_version(key, which)));
        let store = self.clone();
        async move {
            let (incarnation, (state, version)) = found.await?;
            ReadProfile::of_version(store, incarnation, state, version)
        }
    }
}

/// What is read, with the contents of the store that were there when the reading began.
fn within<R, F: Future<Output = Result<R>>>(
    engine: &Arc<Engine>,
    reading: F,
) -> impl Future<Output = Result<(Incarnation, R)>> + use<R, F> {
    let incarnation = engine.link.incarnation();
    async move { Ok((incarnation, reading.await?)) }
}
