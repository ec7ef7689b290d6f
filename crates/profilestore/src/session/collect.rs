//! Live profiles whose data is kept outside of the library, in the memory of an embedded language
//! say.
//!
//! The library's own copy of such data is only what was handed over last. So the keeper of the data
//! is asked for it right before every save, is told when an operator's edit has changed it, and
//! hears of the messages that wait instead of being called with one at a time: its handlers take as
//! long as they like, and what they have processed comes along with the data.

#![cfg_attr(
    not(feature = "roblox"),
    allow(dead_code, unreachable_pub, reason = "only that feature has keepers")
)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use serde_json::{Map, Value};

use crate::{
    data::{Data, ProfileData, typed},
    record::Record,
    session::info::{LastSave, SessionEnd},
    storable::{Unstorable, check_metadata, check_users},
};

/// Why a [`Keeper`] is asked for the data.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Collect {
    /// It is about to be saved.
    Save,
    /// It is about to be saved for the last time; the session is still active.
    LastSave(LastSave),
    /// The session has just ended, and its listeners were told; what is handed over now is what the
    /// last save stores. Not asked for when the session was lost.
    Ended(SessionEnd),
    /// An operator's edit is about to be applied to it.
    Edit,
}

/// What a [`Keeper`] hands over. What is None stays as it was handed over before.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Collected<T> {
    /// Specification: `Data`.
    pub data: Option<T>,
    /// Specification: `UserIds`; none negative.
    pub user_ids: Option<Vec<i64>>,
    /// Specification: `RobloxMetaData`, in the limits of [`crate::Profile::set_roblox_metadata`].
    pub roblox_metadata: Option<Map<String, Value>>,
    /// Specification: `MetaTags`.
    pub meta_tags: Option<Map<String, Value>>,
    /// The indexes of the messages whose effect is in the data: the save that stores it removes
    /// them, so that the effect comes once. Those that are gone already may be named again.
    pub processed: Vec<u64>,
    /// The indexes of the messages that are to be locked with the save. Specification:
    /// `LockActiveUpdate`.
    pub locked: Vec<u64>,
}

impl<T> Default for Collected<T> {
    fn default() -> Self {
        Self {
            data: None,
            user_ids: None,
            roblox_metadata: None,
            meta_tags: None,
            processed: Vec::new(),
            locked: Vec::new(),
        }
    }
}

/// Keeps the data of a live profile. See [`crate::Profile::keep`].
///
/// Called on the library's tasks, and on the task that ends the session; must not block. Not called
/// from inside an edit: all methods of the profile, and of others, may be used.
pub trait Keeper<T>: Send + Sync + 'static {
    /// The data as it is now.
    ///
    /// An error (its text goes to the listeners of errors) means that it cannot be stored: a save
    /// then fails, and the session goes on; an edit waits; a last save stores what was handed over
    /// before.
    fn collect(&self, why: Collect) -> Result<Collected<T>, String>;

    /// An operator's edit has changed the data that was handed over right before. What is kept is
    /// to become this.
    fn edited(&self, data: &T);

    /// Other messages wait for the profile than before: see [`crate::Profile::waiting_messages`].
    /// Comes before the listeners of the save that found it out.
    fn inbox_changed(&self);
}

type ChangeMeta = Box<dyn FnOnce(&mut Record) + Send>;

/// What is handed over, as the untyped engine takes it.
pub(crate) struct AnyCollected {
    pub(crate) data: Option<Arc<dyn Data>>,
    meta: Option<ChangeMeta>,
    pub(crate) processed: Vec<u64>,
    pub(crate) locked: Vec<u64>,
}

impl AnyCollected {
    /// Takes over what is beside the data. False when that changes nothing.
    pub(crate) fn apply_meta(&mut self, record: &mut Arc<Record>) -> bool {
        let Some(apply) = self.meta.take() else { return false };
        let mut changed = Record::clone(record);
        apply(&mut changed);
        let differs = changed != **record;
        if differs {
            *record = Arc::new(changed);
        }
        differs
    }
}

/// A keeper as the untyped engine sees it.
pub(crate) trait AnyKeeper: Send + Sync {
    fn collect(&self, why: Collect) -> Result<AnyCollected, String>;
    fn edited(&self, data: &dyn Data);
    fn inbox_changed(&self);
}

/// A keeper of data of some type.
pub(crate) struct Typed<T>(pub(crate) Box<dyn Keeper<T>>);

impl<T: ProfileData> AnyKeeper for Typed<T> {
    fn collect(&self, why: Collect) -> Result<AnyCollected, String> {
        let Collected { data, user_ids, roblox_metadata, meta_tags, processed, locked } =
            self.0.collect(why)?;
        let text = |wrong: Unstorable| wrong.to_string();
        check_users(user_ids.as_deref().unwrap_or_default()).map_err(text)?;
        roblox_metadata.as_ref().map_or(Ok(()), check_metadata).map_err(text)?;
        let beside = user_ids.is_some() || roblox_metadata.is_some() || meta_tags.is_some();
        let apply = move |record: &mut Record| {
            if let Some(user_ids) = user_ids {
                record.user_ids = user_ids;
            }
            if let Some(metadata) = roblox_metadata {
                record.roblox_metadata = metadata;
            }
            if let Some(tags) = meta_tags {
                record.meta_tags = tags;
            }
        };
        Ok(AnyCollected {
            data: data.map(|data| Arc::new(data) as Arc<dyn Data>),
            meta: beside.then(|| Box::new(apply) as _),
            processed,
            locked,
        })
    }

    fn edited(&self, data: &dyn Data) {
        if let Some(data) = typed(data) {
            tell(|| self.0.edited(data));
        }
    }

    fn inbox_changed(&self) {
        tell(|| self.0.inbox_changed());
    }
}

/// Tells a keeper something. One that panics must not break off the save or the end that tells it.
fn tell(word: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(word)).is_err() {
        tracing::error!("what keeps the data panicked");
    }
}
