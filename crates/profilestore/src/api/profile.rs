//! A live profile: starting its session, its data, its signals and its end.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::{Map, Value};

#[cfg(feature = "roblox")]
use crate::session::collect::{Keeper, Typed};
use crate::{
    api::store::ProfileStore,
    data::{Codec, Data, ProfileData, typed, typed_mut},
    data_store::StoredMessage,
    engine::options::StartOptions,
    error::{Error, Result},
    key::ProfileKey,
    record::{Record, UserId, version::KeyInfo},
    session::{
        Session,
        info::{SessionEnd, SessionInfo},
    },
    storable::{Problem, check_metadata, check_users},
};

mod signals;

/// A live profile: this server alone may change it. Cheap to clone; all clones are the same
/// session.
///
/// Always end it ([`Profile::end_session`]) when the player leaves; dropping the handle does not,
/// so that an autosave can still reach it.
///
/// The listeners of its signals run on the library's tasks and must not block. Edits made by
/// `on_save` and `on_last_save` listeners go through their argument and are part of the save.
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

impl<T: ProfileData> ProfileStore<T> {
    /// Starts a session: from now on this server alone may change the profile. Asks its holder to
    /// let go, and takes it over from a dead server. Specification: `StartSessionAsync`.
    ///
    /// Waits until the profile is there: one round trip to read and one to take a free one; some
    /// milliseconds more for one that another server holds; up to the lease time after a crash; at
    /// most [`crate::Settings::start_session_timeout`].
    ///
    /// # Errors
    ///
    /// Where the specification has nil, the kind says which case it is:
    /// [`crate::ErrorKind::TakenElsewhere`], [`crate::ErrorKind::Superseded`],
    /// [`crate::ErrorKind::TimedOut`], [`crate::ErrorKind::Cancelled`],
    /// [`crate::ErrorKind::Closing`]. Further [`crate::ErrorKind::AlreadyLoaded`] (see
    /// [`StartOptions::supersede`]), [`crate::ErrorKind::Foreign`], [`crate::ErrorKind::TooLarge`]
    /// (see [`StartOptions::overwrite`]), [`crate::ErrorKind::Undecodable`],
    /// [`crate::ErrorKind::NewerData`], and
    /// [`crate::ErrorKind::Invalid`] for a wrong key, for a new profile whose store needs a
    /// template and has none, and for a profile that is open on this server as another type. No
    /// lock stays behind. With [`crate::ErrorKind::NewerData`] the profile's holder was not asked.
    pub fn start_session(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Profile<T>>> + Send + 'static + use<T> {
        self.start_session_with(key, StartOptions::default())
    }

    /// The same with options.
    pub fn start_session_with(
        &self,
        key: &str,
        options: StartOptions,
    ) -> impl Future<Output = Result<Profile<T>>> + Send + 'static + use<T> {
        let codec: Arc<dyn Codec> = self.codec.clone();
        let started =
            self.with_engine(key, move |engine, key| engine.start_session(key, codec, options));
        let store = self.clone();
        async move { Ok(Profile::new(started.await?, store)) }
    }
}

impl<T: ProfileData> ProfileStore<T> {
    /// This server's own live session of the profile, if it has one that was started as this type
    /// and is not over. Waits for nothing and asks no store: another server's session is not seen.
    /// The handle is one more of the same session.
    pub fn live(&self, key: &str) -> Option<Profile<T>> {
        let session = self.started_engine()?.table.live(&self.key(key).ok()?)?;
        let is_own_type = session.codec.data_type().id == self.codec.data_type().id;
        (is_own_type && !session.is_over()).then(|| Profile::new(session, self.clone()))
    }
}

/// The types agree: the caller that made the session brought the codec along.
pub(crate) const OTHER_TYPE: &str = "a session's data has the type of the store that started it";

impl<T: ProfileData> Profile<T> {
    pub(crate) fn new(session: Arc<Session>, store: ProfileStore<T>) -> Self {
        Self { session, store }
    }

    // --- the data --------------------------------------------------------------------------------

    /// Changes the data. Takes the time of one copy of the data and of `edit`, waits for nothing
    /// but other edits of the same profile, and is saved by the next save. If `edit` panics the
    /// data stays as it was and the panic goes on. Specification: assigning to `Data`.
    ///
    /// The copy is cheap when what is large and seldom changes stands behind an [`Arc`] and is
    /// changed with [`Arc::make_mut`].
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::SessionEnded`] once the session is over: nothing was changed.
    /// [`crate::ErrorKind::Busy`] while a transaction with this profile is open, usually for some
    /// milliseconds: see [`Profile::update_when_free`]. Also from inside another edit, even of
    /// another profile: two nested edits could wait for each other for ever. Edit one after the
    /// other, or use a transaction.
    pub fn update<R>(&self, edit: impl FnOnce(&mut T) -> R) -> Result<R> {
        self.try_update(|data| Ok(edit(data)))
    }

    /// The same for an edit that may fail: an error leaves the data exactly as it was, whatever the
    /// edit has changed by then, and is the answer.
    ///
    /// ```
    /// # use profilestore::{Error, Profile};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Player { coins: u64, hats: u64 }
    /// enum Refused {
    ///     TooPoor,
    ///     Store(Error),
    /// }
    ///
    /// impl From<Error> for Refused {
    ///     fn from(error: Error) -> Self {
    ///         Self::Store(error)
    ///     }
    /// }
    ///
    /// fn buy_hat(profile: &Profile<Player>) -> Result<u64, Refused> {
    ///     profile.try_update(|player| {
    ///         player.hats += 1;
    ///         player.coins = player.coins.checked_sub(30).ok_or(Refused::TooPoor)?;
    ///         Ok(player.coins)
    ///     })
    /// }
    /// ```
    pub fn try_update<R, E: From<Error>>(
        &self,
        edit: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, E> {
        let edit = |data: &mut dyn Data| edit(typed_mut(data).expect(OTHER_TYPE));
        let answer = self.session.live.edit(&self.session.key, edit)?;
        self.session.note_change();
        Ok(answer)
    }

    /// [`Profile::update`], but waits while a transaction with this profile is open. Takes effect
    /// when the future is polled and nothing is open. Dropping the future before it is done means
    /// that nothing was changed.
    pub async fn update_when_free<R>(&self, edit: impl FnOnce(&mut T) -> R) -> Result<R> {
        self.try_update_when_free(|data| Ok(edit(data))).await
    }

    /// [`Profile::try_update`], which waits in the same way.
    pub async fn try_update_when_free<R, E: From<Error>>(
        &self,
        edit: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, E> {
        let edit = |data: &mut dyn Data| edit(typed_mut(data).expect(OTHER_TYPE));
        let answer = self.session.live.edit_when_free(&self.session.key, edit).await?;
        self.session.note_change();
        Ok(answer)
    }

    /// For how long a transaction with this profile has been open: edits are refused meanwhile
    /// ([`crate::ErrorKind::Busy`]), and reads see the data from before. None: none is open.
    /// Usually that takes milliseconds. When the store is away and the outcome of the transaction's
    /// commit is not known, it lasts until about a second after the store is back, beyond the
    /// transaction's deadline too: see [`crate::TransactionBuilder::deadline`]. Show the player
    /// then that the trade is being settled, and leave changes to [`Profile::update_when_free`],
    /// which waits.
    pub fn frozen_for(&self) -> Option<Duration> {
        let since = self.session.live.frozen_since()?;
        Some(self.session.link.env.now().saturating_duration_since(since))
    }

    /// Looks at the data as it is now; while a transaction is open, as it was before. Never waits.
    /// Works after the session's end too.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(typed(&*self.session.live.data()).expect(OTHER_TYPE))
    }

    /// A copy of the data as it is now. Specification: `Data`.
    pub fn data(&self) -> T {
        self.read(T::clone)
    }

    /// A copy of the data as it was saved last; of a lost session with an
    /// [`Profile::on_after_save`] listener, as the new holder left it. Specification:
    /// `LastSavedData`.
    pub fn last_saved_data(&self) -> T {
        let saved = self.session.known.lock().saved.data.clone();
        typed::<T>(&*saved).expect(OTHER_TYPE).clone()
    }

    /// Fills what the store's template has and the data lacks: missing string keys, all the way
    /// down. Fails as [`Profile::update`] does. Specification: `Reconcile`.
    pub fn reconcile(&self) -> Result<()> {
        let codec = self.store.codec.clone();
        self.try_update(|data| codec.reconcile(data).map(|filled| *data = filled))
    }

    /// How large the data is now, in bytes of JSON; [`crate::storable::MAX_DATA_BYTES`] is the most
    /// that can be saved. Takes the time of encoding it. Fails as a save would on data that cannot
    /// be stored for another reason. See [`crate::GameServer::on_nearly_full`] too.
    pub fn size(&self) -> Result<usize> {
        let json = self.session.live.data().to_json();
        json.map(|json| json.get().len()).or_else(|wrong| match wrong.problem {
            Problem::TooLarge { size, .. } => Ok(size),
            _ => Err(Error::from(wrong).about(&self.session.key)),
        })
    }

    // --- about the session -----------------------------------------------------------------------

    /// True while no other server can have taken the profile: the session is not over, and this
    /// server confirmed its lease within the lease time. False while the store cannot be reached
    /// for longer than that: play may go on and is saved if the lease survives, but nothing that
    /// cannot be undone should be based on it. Steals and operators are the exception; they are
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
        SessionInfo {
            place_id: self.session.link.place_id,
            job_id: self.session.link.job_id.clone(),
            written: None,
        }
    }

    /// Which server had taken the profile when this session was found to be lost; None before that,
    /// and when no server had: it was removed, for example. Known when the `on_session_end`
    /// listeners are called. Specification: the arguments of `ListenToRelease`.
    pub fn taken_by(&self) -> Option<SessionInfo> {
        self.session.taken_by()
    }

    /// When the profile was created, Unix seconds. Specification: `FirstSessionTime`.
    pub fn first_session_time(&self) -> f64 {
        self.session.live.meta().created_s.as_f64().unwrap_or_default()
    }

    /// How many sessions were started on the profile, this one included. Specification:
    /// `SessionLoadCount`.
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

    // --- user ids and metadata -------------------------------------------------------------------

    /// The users associated with the profile. Specification: `UserIds`.
    pub fn user_ids(&self) -> Vec<i64> {
        self.session.live.meta().user_ids.clone()
    }

    /// Associates a user with the profile, for search and erasure; saved with the next save. One
    /// that is associated already is left alone. Fails with [`crate::ErrorKind::Invalid`] on a
    /// negative id. Specification: `AddUserId`.
    pub fn add_user_id(&self, user_id: i64) -> Result<()> {
        check_users(&[user_id]).map_err(|error| Error::from(error).about(&self.session.key))?;
        self.edit_meta(|meta| {
            if !meta.user_ids.contains(&user_id) {
                meta.user_ids.push(user_id);
            }
            Ok(())
        })
    }

    /// Takes a user's association away. One that is not associated is left alone. Specification:
    /// `RemoveUserId`.
    pub fn remove_user_id(&self, user_id: i64) -> Result<()> {
        self.edit_meta(|meta| {
            meta.user_ids.retain(|id| *id != user_id);
            Ok(())
        })
    }

    /// All users associated with the profile: those with numbers, and those with names, such as
    /// the UUIDs of Minecraft.
    pub fn users(&self) -> Vec<UserId> {
        self.session.live.meta().users()
    }

    /// Associates a user with the profile, whether by number or by name. See
    /// [`Profile::add_user_id`].
    pub fn add_user(&self, user: impl Into<UserId>) -> Result<()> {
        let user = user.into();
        user.check().map_err(|error| Error::from(error).about(&self.session.key))?;
        self.edit_meta(|meta| {
            meta.add_user(user);
            Ok(())
        })
    }

    /// Takes a user's association away. See [`Profile::remove_user_id`].
    pub fn remove_user(&self, user: impl Into<UserId>) -> Result<()> {
        let user = user.into();
        self.edit_meta(|meta| {
            meta.remove_user(&user);
            Ok(())
        })
    }

    /// The metadata of the profile's key. Specification: `RobloxMetaData`.
    pub fn roblox_metadata(&self) -> Map<String, Value> {
        self.session.live.meta().roblox_metadata.clone()
    }

    /// Replaces the metadata; saved with the next save. Fails with [`crate::ErrorKind::TooLarge`],
    /// changing nothing, when a key has more than 50 characters, a value more than 250, or all of
    /// it more than 300. Specification: assigning to `RobloxMetaData`.
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

    // --- data that is kept elsewhere -------------------------------------------------------------

    /// Leaves the data to `keeper`: it is asked for the data before every save, before the
    /// `on_save` listeners are called. Only the first keeper of a session counts. After the
    /// session's end ([`Profile::is_over`]) it is not called.
    #[cfg(feature = "roblox")]
    pub fn keep(&self, keeper: impl Keeper<T>) {
        self.session.keep(Arc::new(Typed(Box::new(keeper))));
    }

    /// Has the profile saved soon, together with other reasons to save; nothing waits for it. For a
    /// [`Keeper`] whose handlers have processed a message.
    #[cfg(feature = "roblox")]
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

    // --- saving ----------------------------------------------------------------------------------

    /// Saves now. When it returns Ok, everything that was changed before the call is durable. Under
    /// way as soon as it is called; waits for one commit, during an outage until the store is back.
    /// Dropping the future does not stop the save. Specification: `Save`.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::SessionEnded`]; [`crate::ErrorKind::TooLarge`] above 4 MiB of JSON,
    /// [`crate::ErrorKind::Invalid`] for data that cannot be stored, with the place
    /// ([`crate::storable`]), and [`crate::ErrorKind::Refused`] when the program itself refuses it.
    /// In the last three cases the session goes on, so that the program can mend the data. A save
    /// that an end overtakes is answered by the last save, or by the refusal of that end.
    pub fn save(&self) -> impl Future<Output = Result<()>> + Send + 'static + use<T> {
        self.session.save()
    }

    /// Ends the session: runs the last hooks and closes the data before it returns, then saves and
    /// releases the profile. When the future gives Ok, that is durable; during an outage it waits
    /// until the store is back. Dropping the future does not stop it. Specification: `EndSession`.
    ///
    /// Transactions that were called before come before it: changes are refused from this call on,
    /// and the last hooks run when those transactions are over. Called from inside an edit, it
    /// comes behind that edit in the same way.
    ///
    /// When what the last save would store cannot be stored ([`crate::ErrorKind::TooLarge`],
    /// [`crate::ErrorKind::Invalid`], [`crate::ErrorKind::Refused`]), the session is **not** over:
    /// it stays active, the data can be mended, and then it is to be ended again. The last hooks
    /// run again then; `on_session_end` listeners have not been called. It is the same when another
    /// server asks for the profile. Only a shutdown lets such a session go, with what was saved
    /// last, and lists it.
    ///
    /// Ending twice is fine: when the session is ending or over already, be it for another server's
    /// sake, the future says how that went. [`crate::ErrorKind::SessionEnded`] when the session was
    /// lost, and with it what it had not saved.
    pub fn end_session(&self) -> impl Future<Output = Result<()>> + Send + 'static + use<T> {
        self.session.finish(SessionEnd::Manual)
    }
}
