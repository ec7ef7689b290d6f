//! A live profile, and a profile that was only read.

use std::{fmt, sync::Arc};

use serde_json::{Map, Value};

use crate::{
    data::{Codec as _, Data, ProfileData, encode, typed, typed_mut},
    data_store::{Cause, KeyState, StoredMessage, StoredVersion},
    engine::{Engine, calls::Replacement},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    record::{Record, Stored, check_metadata, check_users, version::KeyInfo},
    session::{
        Session,
        collect::{Keeper, Typed},
        info::{LastSave, SessionEnd, SessionInfo},
        messages::Message,
    },
    signal::Connection,
    store::ProfileStore,
};

/// A live profile: this server alone may change it. Cheap to clone; all clones are the same session.
///
/// Always end it ([`Profile::end_session`]) when the player leaves; dropping the handle does not, so that an autosave can still
/// reach it.
///
/// The listeners of its signals run on the library's tasks and must not block. Edits made by `on_save` and `on_last_save`
/// listeners go through their argument and are part of the save.
pub struct Profile<T> {
    pub(crate) session: Arc<Session>,
    store: ProfileStore<T>,
}

impl<T> Clone for Profile<T> {
    fn clone(&self) -> Self {
        Self { session: self.session.clone(), store: self.store.clone() }
    }
}

impl<T> fmt::Debug for Profile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").field("session", &self.session).finish_non_exhaustive()
    }
}

/// The types agree: whoever made the session brought the codec along.
pub(crate) const OTHER_TYPE: &str = "a session's data has the type of the store that started it";

impl<T: ProfileData> Profile<T> {
    pub(crate) fn new(session: Arc<Session>, store: ProfileStore<T>) -> Self {
        Self { session, store }
    }

    // --- the data -------------------------------------------------------------------------------------------------

    /// Changes the data. Takes the time of one copy of the data and of `edit`, waits for nothing but other edits of the same
    /// profile, and is saved by the next save. If `edit` panics the data stays as it was and the panic goes on.
    /// Specification: assigning to `Data`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SessionEnded`] once the session is over: nothing was changed. [`ErrorKind::Busy`] from inside another edit, and
    /// while a transaction with this profile is open, usually for some milliseconds: see [`Profile::update_when_free`].
    pub fn update<R>(&self, edit: impl FnOnce(&mut T) -> R) -> Result<R> {
        let answer = self.session.live.edit(&self.session.key, |data| edit(typed_mut(data).expect(OTHER_TYPE)))?;
        self.session.note_change();
        Ok(answer)
    }

    /// The same, but waits while a transaction with this profile is open. Dropping the future before it is done means that nothing
    /// was changed.
    pub async fn update_when_free<R>(&self, edit: impl FnOnce(&mut T) -> R) -> Result<R> {
        let edit = |data: &mut dyn Data| edit(typed_mut(data).expect(OTHER_TYPE));
        let answer = self.session.live.edit_when_free(&self.session.key, edit).await?;
        self.session.note_change();
        Ok(answer)
    }

    /// Looks at the data as it is now; while a transaction is open, as it was before. Never waits. Works after the session's end too.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(typed(&*self.session.live.data()).expect(OTHER_TYPE))
    }

    /// A copy of the data as it is now. Specification: `Data`.
    pub fn data(&self) -> T {
        self.read(T::clone)
    }

    /// A copy of the data as it was saved last; of a lost session with an [`Profile::on_after_save`] listener, as the new holder
    /// left it. Specification: `LastSavedData`.
    pub fn last_saved_data(&self) -> T {
        let saved = self.session.known.lock().saved.data.clone();
        typed::<T>(&*saved).expect(OTHER_TYPE).clone()
    }

    /// Fills what the store's template has and the data lacks: missing string keys, all the way down. Fails as
    /// [`Profile::update`] does. Specification: `Reconcile`.
    pub fn reconcile(&self) -> Result<()> {
        let codec = self.store.codec.clone();
        self.update(|data| codec.reconcile(data).map(|filled| *data = filled))?
    }

    // --- about the session ----------------------------------------------------------------------------------------

    /// True while nobody else can have taken the profile: the session is not over, and this server confirmed its lease within the
    /// lease time. False while the store cannot be reached for longer than that: play may go on and is saved if the
    /// lease survives, but nothing that cannot be undone should be based on it. Steals and operators are the exception; they are
    /// noticed within one renewal. Specification: `IsActive`.
    pub fn is_active(&self) -> bool {
        self.session.is_active()
    }

    /// True once the session is over and no more changes are taken.
    pub fn is_over(&self) -> bool {
        self.session.is_over()
    }

    /// The profile's full name. Its last part is the specification's `Key`.
    pub fn key(&self) -> &ProfileKey {
        &self.session.key
    }

    /// The store it was started from. Specification: `ProfileStore`.
    pub fn store(&self) -> &ProfileStore<T> {
        &self.store
    }

    /// Which server the session is on: this one. Stays after the end. Specification: `Session`.
    pub fn session(&self) -> SessionInfo {
        SessionInfo { place_id: self.session.engine.place_id, job_id: self.session.engine.job_id.clone(), written: None }
    }

    /// Which server had taken the profile when this session was found to be lost; None before that, and when nobody had (it was
    /// removed, say). Known when the `on_session_end` listeners are called. Specification: the arguments of `ListenToRelease`.
    pub fn taken_by(&self) -> Option<SessionInfo> {
        self.session.taken_by.get().cloned()
    }

    /// When the profile was created, Unix seconds. Specification: `FirstSessionTime`.
    pub fn first_session_time(&self) -> f64 {
        self.session.live.meta().created_s.as_f64().unwrap_or_default()
    }

    /// How many sessions were started on the profile, this one included. Specification: `SessionLoadCount`.
    pub fn session_load_count(&self) -> u64 {
        self.session.load_count
    }

    /// About what the store holds, as of the last save. Specification: `KeyInfo`.
    pub fn key_info(&self) -> KeyInfo {
        let (head, created_ms, saved) = {
            let known = self.session.known.lock();
            (known.head.clone(), known.created_ms, known.saved.clone())
        };
        match head {
            Some(head) => KeyInfo::of(&head, created_ms, Some(&saved.meta)),
            None => KeyInfo {
                version: String::new(),
                number: 0,
                created_ms,
                updated_ms: created_ms,
                user_ids: Vec::new(),
                metadata: Map::new(),
            },
        }
    }

    /// The messages that wait and that no handler has processed, as of the last look at the store.
    pub fn waiting_messages(&self) -> Vec<StoredMessage> {
        self.session.waiting_messages()
    }

    // --- user ids and metadata ------------------------------------------------------------------------------------

    /// The users associated with the profile. Specification: `UserIds`.
    pub fn user_ids(&self) -> Vec<i64> {
        self.session.live.meta().user_ids.clone()
    }

    /// Associates a user with the profile, for search and erasure; saved with the next save. One that is associated already is
    /// left alone. Fails with [`ErrorKind::Invalid`] on a negative id. Specification: `AddUserId`.
    pub fn add_user_id(&self, user_id: i64) -> Result<()> {
        check_users(&[user_id]).map_err(|error| Error::from(error).about(&self.session.key))?;
        self.edit_meta(|meta| {
            if !meta.user_ids.contains(&user_id) {
                meta.user_ids.push(user_id);
            }
            Ok(())
        })
    }

    /// Takes a user's association away. One that is not associated is left alone. Specification: `RemoveUserId`.
    pub fn remove_user_id(&self, user_id: i64) -> Result<()> {
        self.edit_meta(|meta| {
            meta.user_ids.retain(|id| *id != user_id);
            Ok(())
        })
    }

    /// The metadata of the profile's key. Specification: `RobloxMetaData`.
    pub fn roblox_metadata(&self) -> Map<String, Value> {
        self.session.live.meta().roblox_metadata.clone()
    }

    /// Replaces the metadata; saved with the next save. Fails with [`ErrorKind::TooLarge`], changing nothing, when a key has more
    /// than 50 characters, a value more than 250, or all of it more than 300. Specification: assigning to `RobloxMetaData`.
    pub fn set_roblox_metadata(&self, metadata: Map<String, Value>) -> Result<()> {
        self.edit_meta(|meta| {
            check_metadata(&metadata)?;
            meta.roblox_metadata = metadata;
            Ok(())
        })
    }

    fn edit_meta(&self, edit: impl FnOnce(&mut Record) -> Result<()>) -> Result<()> {
        self.session.live.edit_meta(&self.session.key, edit)?;
        self.session.note_change();
        Ok(())
    }

    // --- signals --------------------------------------------------------------------------------------------------

    /// Calls `listener` with the data right before every save, the last one included; what it changes is saved. Not called for a
    /// transaction, which saves exactly what its own edits made. Specification: `OnSave`.
    pub fn on_save(&self, listener: impl Fn(&mut T) + Send + Sync + 'static) -> Connection {
        self.session.signals.on_save.connect(Arc::new(move |data| listener(typed_mut(data).expect(OTHER_TYPE))))
    }

    /// Calls `listener` with the reason and the data right before the last save; what it changes is saved. Not called when the
    /// session is lost. Specification: `OnLastSave`.
    pub fn on_last_save(&self, listener: impl Fn(LastSave, &mut T) + Send + Sync + 'static) -> Connection {
        self.session
            .signals
            .on_last_save
            .connect(Arc::new(move |reason, data| listener(reason, typed_mut(data).expect(OTHER_TYPE))))
    }

    /// Calls `listener` once when the session is over and changes are no longer taken; the last save is then under way. A listener
    /// that is connected later is not called: see [`Profile::is_over`]. Specification: `OnSessionEnd`.
    pub fn on_session_end(&self, listener: impl Fn(SessionEnd) + Send + Sync + 'static) -> Connection {
        self.session.signals.on_session_end.connect(Arc::new(listener))
    }

    /// Calls `listener` with the data that is stored after every save and transaction, also one that found nothing to write. When the session was
    /// lost, it is called with what the store holds then. Specification: `OnAfterSave`.
    pub fn on_after_save(&self, listener: impl Fn(&T) + Send + Sync + 'static) -> Connection {
        self.session.signals.on_after_save.connect(Arc::new(move |data| listener(typed(data).expect(OTHER_TYPE))))
    }

    /// Adds a handler for messages, and offers it those that wait before this returns. It is called with the data and one message
    /// at a time; when it has called [`Message::processed`], what it changed in the data and the message's removal are saved
    /// together, so that the effect comes exactly once. Handlers must not block. Specification: `MessageHandler`.
    pub fn message_handler(&self, handler: impl Fn(&mut T, &Message<'_>) + Send + Sync + 'static) {
        self.session.add_handler(Arc::new(move |data, message| handler(typed_mut(data).expect(OTHER_TYPE), message)));
    }

    // --- data that is kept elsewhere -------------------------------------------------------------------------------

    /// Leaves the data to `keeper`, who is asked for it before every save, before the `on_save` listeners are called. The first
    /// one of a session stays. When the session is over already ([`Profile::is_over`]) he is never asked.
    pub fn keep(&self, keeper: impl Keeper<T>) {
        self.session.keep(Arc::new(Typed(Box::new(keeper))));
    }

    /// Has the profile saved soon, together with whatever else asks for it; nobody waits for it. For a [`Keeper`] whose handlers
    /// have processed a message.
    pub fn save_soon(&self) {
        if !self.session.is_over() {
            self.session.queue_save();
        }
    }

    /// Specification: `MetaTags`.
    pub fn meta_tags(&self) -> Map<String, Value> {
        self.session.live.meta().meta_tags.clone()
    }

    /// As they were saved last. Specification: `MetaTagsLatest`.
    pub fn saved_meta_tags(&self) -> Map<String, Value> {
        let saved = self.session.known.lock().saved.meta.clone();
        saved.meta_tags.clone()
    }

    // --- saving ---------------------------------------------------------------------------------------------------

    /// Saves now. When it returns Ok, everything that was changed before the call is durable. Under way as soon as it is called;
    /// waits for one commit, during an outage until the store is back. Dropping the future does not stop the save.
    /// Specification: `Save`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SessionEnded`], [`ErrorKind::TooLarge`] above 4 MiB of JSON, [`ErrorKind::Invalid`] for data that is no JSON;
    /// in the last two cases the session goes on.
    pub fn save(&self) -> impl Future<Output = Result<()>> + Send + 'static + use<T> {
        self.session.save()
    }

    /// Ends the session: runs the last hooks and closes the data before it returns, then saves and releases the profile. When the
    /// future gives Ok, that is durable. Dropping the future does not stop it. Specification: `EndSession`.
    ///
    /// While a transaction with this profile is open, changes are refused from this call on, and the last hooks run when it is over.
    ///
    /// Ending twice is fine: when the session is ending or over already, be it for another server's sake, the future says how that
    /// went. [`ErrorKind::SessionEnded`] when the session was lost, and with it what it had not saved.
    pub fn end_session(&self) -> impl Future<Output = Result<()>> + Send + 'static + use<T> {
        self.session.finish(SessionEnd::Manual)
    }
}

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
    pub(crate) fn current(store: ProfileStore<T>, mut state: KeyState) -> Result<Self> {
        state.hide_edits();
        let version = state.head.clone().map(|info| StoredVersion { info, value: state.value.clone() });
        if !state.exists() && state.inbox.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::new(ErrorKind::NotFound, "there is no such profile").about(&state.key));
        }
        Self::read(store, state, version, false)
    }

    pub(crate) fn of_version(store: ProfileStore<T>, mut state: KeyState, version: Option<StoredVersion>) -> Result<Self> {
        let Some(version) = version else {
            return Err(Error::new(ErrorKind::NotFound, "there is no such version").about(&state.key));
        };
        state.hide_edits();
        Self::read(store, state, Some(version), true)
    }

    fn read(store: ProfileStore<T>, state: KeyState, version: Option<StoredVersion>, restores: bool) -> Result<Self> {
        let (info, value) = version.map_or((None, None), |version| (Some(version.info), version.value));
        let stored = value.as_deref().map(Stored::decode).transpose().map_err(|error| Error::from(error).about(&state.key))?;
        let (record, data) = match stored {
            Some(Stored::Profile(record)) => {
                let data = store.codec.open_typed(&record).map_err(|error| error.about(&state.key))?;
                (record, data)
            }
            Some(Stored::Foreign(_)) => {
                return Err(Error::new(ErrorKind::Foreign, "what is stored is not a profile").about(&state.key));
            }
            // Only messages, or a tombstone.
            _ => {
                let data = store.codec.template_typed()?;
                let now = store.server().inner.engine.env.unix_ms().div_euclid(1000);
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

    /// Which server has a session on the profile, if one had when it was read. Specification: `Session`.
    pub fn session(&self) -> Option<&SessionInfo> {
        self.session.as_ref()
    }

    /// When the profile was created, Unix seconds; now if it has no data yet. Specification: `FirstSessionTime`.
    pub fn first_session_time(&self) -> f64 {
        self.record.created_s.as_f64().unwrap_or_default()
    }

    /// How many sessions had been started on it; 0 if it has no data yet. Specification: `SessionLoadCount`.
    pub fn session_load_count(&self) -> u64 {
        self.load_count
    }

    /// About the version that was read. None if the key holds only messages. Specification: `KeyInfo`.
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

    /// Says that the effect of a message is in the data: it leaves the inbox with [`ReadProfile::set`].
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

    /// Takes an association away; of effect with [`ReadProfile::set`]. Specification: `RemoveUserId`.
    pub fn remove_user_id(&mut self, user_id: i64) {
        self.record.user_ids.retain(|id| *id != user_id);
    }

    /// Replaces the metadata; of effect with [`ReadProfile::set`]. See [`Profile::set_roblox_metadata`].
    pub fn set_roblox_metadata(&mut self, metadata: Map<String, Value>) -> Result<()> {
        check_metadata(&metadata).map_err(|error| Error::from(error).about(&self.key))?;
        self.record.roblox_metadata = metadata;
        Ok(())
    }

    /// Offers the waiting messages to `handler`, as [`Profile::message_handler`] does for a live profile. Those it processes leave
    /// the inbox with [`ReadProfile::set`].
    pub fn handle_messages(&mut self, mut handler: impl FnMut(&mut T, &Message<'_>)) {
        for stored in &self.inbox {
            if self.processed.contains(&stored.index) {
                continue;
            }
            let message = Message::new(stored);
            handler(&mut self.data, &message);
            if message.is_processed() {
                self.processed.push(stored.index);
            }
        }
    }

    /// Fills what the store's template has and the data lacks. Specification: `Reconcile`.
    pub fn reconcile(&mut self) -> Result<()> {
        self.data = self.store.codec.reconcile(&self.data).map_err(|error| error.about(&self.key))?;
        Ok(())
    }

    /// Writes this copy over whatever is stored, and ends the session that some server may have: what that one has not saved is lost.
    /// Waiting messages stay. When it returns Ok, it is durable. With an earlier version this rolls the profile back; what it
    /// replaces stays in the history.
    /// Specification: `SetAsync`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Removed`] when the profile was removed since it was read, also if there is another one by now; errors of encoding as in [`Profile::save`].
    pub async fn set(&self) -> Result<()> {
        let mut meta = Record { origin: None, ..self.record.clone() };
        self.store.codec.stamp(&mut meta);
        let bytes = encode(&self.data, &meta).map_err(|error| error.about(&self.key))?;
        let replacement = Replacement {
            bytes,
            user_ids: meta.user_ids,
            cause: if self.restores { Cause::Restore } else { Cause::Set },
            read_epoch: self.read_epoch,
            read_version: self.read_version,
            existed: self.existed,
            processed: self.processed.clone(),
        };
        let engine: Arc<Engine> = self.store.engine().await?;
        engine.replace(&self.key, replacement).await?;
        Ok(())
    }
}
