//! Global updates: messages that are locked before they are dealt with.
//!
//! An update is *active* when it comes, and can be changed or cleared by its sender. The holder
//! *locks* it, from when on it stands, and then deals with it and *clears* it. Locking takes effect
//! with a save, and so does clearing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    marker::PhantomData,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    api::profile::{OTHER_TYPE, Profile as Live},
    data::{ProfileData, typed_mut},
    data_store::StoredMessage,
    engine::calls::InboxChange,
    error::{Error, ErrorKind, Result},
    session::{
        Session,
        collect::{Collect, Collected, Keeper},
        handlers::Handled,
        live::Refusal,
    },
    signal::{Connection, Signal},
};

/// A global update. Specification: `{update_id, update_data}`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GlobalUpdate {
    /// Its number within the profile, never given out twice.
    pub id: u64,
    /// How often its data was changed, from 1.
    pub revision: u64,
    /// True when it can no longer be changed.
    pub locked: bool,
    /// Its data, JSON.
    pub data: Bytes,
}

impl GlobalUpdate {
    pub(super) fn of(message: &StoredMessage) -> Self {
        Self {
            id: message.index,
            revision: message.revision,
            locked: message.locked,
            data: message.payload.clone(),
        }
    }

    /// The data as a type. Fails with [`ErrorKind::Undecodable`] when it is something else.
    pub fn parse<M: DeserializeOwned>(&self) -> Result<M> {
        serde_json::from_slice(&self.data).map_err(|error| {
            Error::new(ErrorKind::Undecodable, "the global update does not fit the program's type")
                .caused_by(error)
        })
    }
}

/// The active updates of a profile, to be added to, changed and cleared. See
/// [`Store::global_update_profile`](super::Store::global_update_profile).
#[derive(Debug)]
pub struct UpdateHandler {
    there: Vec<GlobalUpdate>,
    changes: Vec<InboxChange>,
}

impl UpdateHandler {
    pub(super) fn new(waiting: &[StoredMessage]) -> Self {
        Self { there: waiting.iter().map(GlobalUpdate::of).collect(), changes: Vec::new() }
    }

    pub(super) fn into_changes(self) -> Vec<InboxChange> {
        self.changes
    }

    /// Those that can be changed, as they were before this handler's changes. Specification:
    /// `GetActiveUpdates`.
    pub fn active(&self) -> Vec<GlobalUpdate> {
        self.there.iter().filter(|update| !update.locked).cloned().collect()
    }

    /// Those that are locked. Specification: `GetLockedUpdates`.
    pub fn locked(&self) -> Vec<GlobalUpdate> {
        self.there.iter().filter(|update| update.locked).cloned().collect()
    }

    /// Adds an update. False when its data is no JSON: it is left out then. Specification:
    /// `AddActiveUpdate`.
    pub fn add(&mut self, data: &impl Serialize) -> bool {
        let payload = serde_json::to_vec(data).map(Bytes::from);
        let fits = payload.is_ok();
        self.changes.extend(payload.into_iter().map(|payload| InboxChange::Add { payload }));
        fits
    }

    /// Gives an active update other data. False when there is none of this id, or the data is no
    /// JSON. Specification: `ChangeActiveUpdate`.
    pub fn change(&mut self, id: u64, data: &impl Serialize) -> bool {
        let payload =
            serde_json::to_vec(data).map(Bytes::from).ok().filter(|_| self.take_active(id));
        let changes = payload.is_some();
        self.changes.extend(payload.map(|payload| InboxChange::Change { index: id, payload }));
        changes
    }

    /// Takes an active update away. False when there is none of this id. Specification:
    /// `ClearActiveUpdate`.
    pub fn clear(&mut self, id: u64) -> bool {
        let clears = self.take_active(id);
        if clears {
            self.changes.push(InboxChange::Remove { index: id });
        }
        clears
    }

    /// What was said of an active update before is forgotten: the last word counts.
    fn take_active(&mut self, id: u64) -> bool {
        let is_active = self.there.iter().any(|update| update.id == id && !update.locked);
        if is_active {
            self.changes.retain(
                |change| !matches!(change, InboxChange::Change { index, .. } | InboxChange::Remove { index } if *index == id),
            );
        }
        is_active
    }
}

type OnUpdate = dyn Fn(&GlobalUpdate) + Send + Sync;

/// What is known of a live profile's updates besides what the store holds.
struct Shared {
    session: Weak<Session>,
    /// Those that are to be locked with the next save.
    locking: Mutex<BTreeSet<u64>>,
    /// Those that listeners were told of, or that were there from the beginning: their revision,
    /// and whether they were locked.
    seen: Mutex<BTreeMap<u64, (u64, bool)>>,
    on_active: Signal<OnUpdate>,
    on_locked: Signal<OnUpdate>,
}

/// The global updates of a live profile. Cheap to clone. Specification: `GlobalUpdates`.
pub struct GlobalUpdates<T> {
    live: Weak<Session>,
    key: crate::ProfileKey,
    shared: Arc<Shared>,
    marker: PhantomData<fn() -> T>,
}

impl<T> Clone for GlobalUpdates<T> {
    fn clone(&self) -> Self {
        Self {
            live: self.live.clone(),
            key: self.key.clone(),
            shared: self.shared.clone(),
            marker: PhantomData,
        }
    }
}

impl<T> fmt::Debug for GlobalUpdates<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlobalUpdates").field("profile", &self.key).finish_non_exhaustive()
    }
}

impl<T: ProfileData> GlobalUpdates<T> {
    pub(super) fn of(live: &Live<T>) -> Self {
        let session = Arc::downgrade(&live.session);
        let shared = Arc::new(Shared {
            session: session.clone(),
            locking: Mutex::default(),
            seen: Mutex::default(),
            on_active: Signal::default(),
            on_locked: Signal::default(),
        });
        *shared.seen.lock() = shared
            .inbox()
            .iter()
            .map(|update| (update.id, (update.revision, update.locked)))
            .collect();
        live.keep(Keeps(shared.clone()));
        Self { live: session, key: live.key().clone(), shared, marker: PhantomData }
    }

    /// Those that can still be changed by senders, and that are not being locked. Specification:
    /// `GetActiveUpdates`.
    pub fn active(&self) -> Vec<GlobalUpdate> {
        let inbox = self.shared.inbox();
        let locking = self.shared.locking.lock();
        inbox.into_iter().filter(|update| !update.locked && !locking.contains(&update.id)).collect()
    }

    /// Those that are locked and not dealt with. Specification: `GetLockedUpdates`.
    pub fn locked(&self) -> Vec<GlobalUpdate> {
        self.shared.inbox().into_iter().filter(|update| update.locked).collect()
    }

    /// Calls `listener` with every active update that comes, or is changed, from now on.
    /// Specification: `ListenToNewActiveUpdate`.
    pub fn on_new_active(
        &self,
        listener: impl Fn(&GlobalUpdate) + Send + Sync + 'static,
    ) -> Connection {
        self.shared.on_active.connect(Arc::new(listener))
    }

    /// Calls `listener` with every update that is locked from now on. It must clear the update,
    /// then or later. Specification: `ListenToNewLockedUpdate`.
    pub fn on_new_locked(
        &self,
        listener: impl Fn(&GlobalUpdate) + Send + Sync + 'static,
    ) -> Connection {
        self.shared.on_locked.connect(Arc::new(listener))
    }

    /// Locks an active update with the next save, which comes at once; listeners are told then.
    /// Fails with [`ErrorKind::SessionEnded`] once the profile is released, with
    /// [`ErrorKind::NotFound`] when there is no such active update. Specification:
    /// `LockActiveUpdate`.
    pub fn lock_active(&self, id: u64) -> Result<()> {
        let session = self.session()?;
        if !self.active().iter().any(|update| update.id == id) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no active update of this id: id=`{id}`"),
            )
            .about(&self.key));
        }
        self.shared.locking.lock().insert(id);
        session.queue_save();
        Ok(())
    }

    /// Clears a locked update with the next save, which comes at once. Fails with
    /// [`ErrorKind::SessionEnded`] once the profile is released, with [`ErrorKind::NotFound`] when
    /// there is no such locked update. What was done about it before this call may be saved without
    /// it, if the server crashes in between: [`GlobalUpdates::clear_locked_with`] has no such gap.
    /// Specification: `ClearLockedUpdate`.
    pub fn clear_locked(&self, id: u64) -> Result<()> {
        self.clear_locked_with(id, |_, _| ())
    }

    /// Deals with a locked update and clears it: what `edit` changes in the data and the update's
    /// removal are saved together, so that the effect comes once. Fails as
    /// [`GlobalUpdates::clear_locked`] does, and with [`ErrorKind::Busy`] while a transaction with
    /// this profile is open or from inside another edit; `edit` was not called then.
    pub fn clear_locked_with(
        &self,
        id: u64,
        edit: impl FnOnce(&mut T, &GlobalUpdate),
    ) -> Result<()> {
        let session = self.session()?;
        crate::session::editing::check_not_editing(&self.key)?;
        let missing = || {
            Error::new(
                ErrorKind::NotFound,
                format!("there is no locked update of this id: id=`{id}`"),
            )
            .about(&self.key)
        };
        let update =
            self.locked().into_iter().find(|update| update.id == id).ok_or_else(missing)?;
        let waits = || session.known.lock().has_message(id);
        let cleared = session.live.edit_for_message(id, waits, |data| {
            edit(typed_mut(data).expect(OTHER_TYPE), &update);
            Handled::Processed(Vec::new())
        });
        match cleared {
            Ok(_) => {
                session.queue_save();
                Ok(())
            }
            Err(Refusal::Over) => Err(self.over()),
            Err(Refusal::Busy) => {
                Err(Error::new(ErrorKind::Busy, "a transaction is open; try again when it is over")
                    .about(&self.key))
            }
            Err(Refusal::Processed) => Err(missing()),
        }
    }

    fn session(&self) -> Result<Arc<Session>> {
        self.live.upgrade().filter(|session| !session.is_over()).ok_or_else(|| self.over())
    }

    fn over(&self) -> Error {
        Error::new(ErrorKind::SessionEnded, "the profile is released").about(&self.key)
    }
}

impl Shared {
    /// What waits and was not dealt with, as of the last look at the store.
    fn inbox(&self) -> Vec<GlobalUpdate> {
        let waiting = self.session.upgrade().map(|session| session.waiting_messages());
        waiting.iter().flatten().map(GlobalUpdate::of).collect()
    }

    /// Tells the listeners what is new.
    fn look(&self) {
        let inbox = self.inbox();
        let (mut active, mut locked) = (Vec::new(), Vec::new());
        {
            let mut seen = self.seen.lock();
            for update in &inbox {
                let before = seen.insert(update.id, (update.revision, update.locked));
                if update.locked {
                    locked
                        .extend(before.is_none_or(|(_, was_locked)| !was_locked).then_some(update));
                } else {
                    active.extend(
                        before
                            .is_none_or(|(revision, _)| revision != update.revision)
                            .then_some(update),
                    );
                }
            }
            seen.retain(|id, _| inbox.iter().any(|update| update.id == *id));
            self.locking
                .lock()
                .retain(|id| inbox.iter().any(|update| update.id == *id && !update.locked));
        }
        for (signal, updates) in [(&self.on_active, active), (&self.on_locked, locked)] {
            for update in updates {
                signal.each(|listener| listener(update));
            }
        }
    }
}

/// Keeps nothing but what is to be locked: the data is the library's.
struct Keeps(Arc<Shared>);

/// The session has let go of it: listeners may hold the profile that they are for.
impl Drop for Keeps {
    fn drop(&mut self) {
        self.0.on_active.clear();
        self.0.on_locked.clear();
    }
}

impl<T> Keeper<T> for Keeps {
    fn collect(&self, _: Collect) -> Result<Collected<T>, String> {
        Ok(Collected {
            locked: self.0.locking.lock().iter().copied().collect(),
            ..Collected::default()
        })
    }

    fn edited(&self, _: &T) {}

    fn inbox_changed(&self) {
        self.0.look();
    }
}
