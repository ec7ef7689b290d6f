//! A profile that was read, to look at or to roll back with.

use std::ops::{Deref, DerefMut};

use super::{identify, updates::GlobalUpdate};
use crate::{api::read_profile::ReadProfile, data::ProfileData, error::Result};

/// A profile that was read without loading it. It is a [`ReadProfile`], whose data may be changed
/// at will, with what ProfileService has beyond it.
#[derive(Debug)]
pub struct View<T> {
    read: ReadProfile<T>,
}

impl<T> Deref for View<T> {
    type Target = ReadProfile<T>;
    fn deref(&self) -> &ReadProfile<T> {
        &self.read
    }
}

impl<T> DerefMut for View<T> {
    fn deref_mut(&mut self) -> &mut ReadProfile<T> {
        &mut self.read
    }
}

impl<T: ProfileData> View<T> {
    /// A view of what was read, a version say.
    pub fn new(read: ReadProfile<T>) -> Self {
        Self { read }
    }

    /// The global updates that can still be changed. Specification: `GetActiveUpdates`.
    pub fn active_updates(&self) -> Vec<GlobalUpdate> {
        self.updates(false)
    }

    /// Those that are locked. Specification: `GetLockedUpdates`.
    pub fn locked_updates(&self) -> Vec<GlobalUpdate> {
        self.updates(true)
    }

    fn updates(&self, locked: bool) -> Vec<GlobalUpdate> {
        self.read
            .waiting_messages()
            .iter()
            .filter(|message| message.locked == locked)
            .map(GlobalUpdate::of)
            .collect()
    }

    /// Takes away, with [`View::overwrite`], whatever waits for the profile. What an earlier
    /// version had waiting is not kept, so these are the updates that wait now. Specification:
    /// `ClearGlobalUpdates`.
    pub fn clear_global_updates(&mut self) {
        self.read.handle_messages(|_, message| message.processed());
    }

    /// Writes this copy over whatever is stored and ends the session that some server may have; as
    /// [`ReadProfile::set`]. Specification: `OverwriteAsync`.
    pub async fn overwrite(&self) -> Result<()> {
        self.read.set().await
    }

    /// Its name. Specification: `Identify`.
    pub fn identify(&self) -> String {
        identify(self.read.key())
    }
}
