//! A row of the table `head`: what a key holds, but for its versions and its inbox.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Row;
use uuid::Uuid;

use super::{
    Trouble,
    statements::{self, Leases},
};
use crate::{
    data_store::{CommitId, LeaseState, StoreError, VersionInfo},
    key::ProfileKey,
};

/// Of how many users a head may be and still be remembered.
const MOST_USERS: usize = 32;

/// A `head` row; `id` is None while there is none.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) key: ProfileKey,
    pub(super) id: Option<i64>,
    pub(super) epoch: u64,
    pub(super) version: u64,
    pub(super) created_ms: i64,
    /// The current version's row; 0 with version 0.
    pub(super) current: i64,
    pub(super) stored_ms: i64,
    pub(super) flags: i64,
    /// The users of the current version, eight bytes each.
    pub(super) users: Vec<u8>,
    pub(super) lease_revision: u64,
    pub(super) inbox_revision: u64,
    pub(super) last_message: u64,
    pub(super) waiting: u64,
    pub(super) lease: Arc<LeaseState>,
    /// The last of [`rules::is_own_save`](crate::data_store::rules::is_own_save) in this epoch.
    pub(super) last_save: Option<CommitId>,
    /// What its row has. A commit changes the row only while it has that.
    pub(super) stored: Fence,
    /// About the current version, once it was read or written.
    pub(super) info: Option<VersionInfo>,
    /// The current value, once it was written or read.
    pub(super) written: Option<Option<Bytes>>,
}

/// What tells a row from the same row before and after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) epoch: u64,
    pub(super) version: u64,
    pub(super) lease_revision: u64,
}

/// What [`Head::of_row`] reads.
macro_rules! head_columns {
    () => {
        "h.id, h.epoch, h.version, h.created_ms, h.current, h.stored_ms, h.flags, h.users, \
         h.lease_revision, h.inbox_revision, h.last_message, h.waiting, h.lease, h.last_save"
    };
}
pub(super) use head_columns;

pub(super) const HEAD_COLUMNS: &str = head_columns!();

/// How many columns these are.
pub(super) const HEAD_COLUMN_COUNT: usize = 14;

impl Head {
    pub(super) fn absent(key: ProfileKey) -> Self {
        Self {
            key,
            id: None,
            epoch: 0,
            version: 0,
            created_ms: 0,
            current: 0,
            stored_ms: 0,
            flags: 0,
            users: Vec::new(),
            lease_revision: 0,
            inbox_revision: 0,
            last_message: 0,
            waiting: 0,
            lease: Arc::default(),
            last_save: None,
            stored: Fence::default(),
            info: None,
            written: None,
        }
    }

    pub(super) fn fence(&self) -> Fence {
        let Self { epoch, version, lease_revision, .. } = *self;
        Fence { epoch, version, lease_revision }
    }

    /// Whether it has a row, and nothing in it has no limit, so that the writer may remember it.
    pub(super) fn is_worth_knowing(&self) -> bool {
        let lease = &self.lease;
        self.id.is_some()
            && self.users.len() <= MOST_USERS * size_of::<i64>()
            && lease.holder.as_ref().is_none_or(|holder| holder.document.is_none())
            && lease.request.as_ref().is_none_or(|request| request.document.is_none())
    }

    /// The same, for what is shown of it; what was read or written of its version goes along.
    pub(super) fn show(&mut self) -> Self {
        Self {
            key: self.key.clone(),
            users: Vec::new(),
            lease: self.lease.clone(),
            info: self.info.take(),
            written: self.written.take(),
            ..*self
        }
    }

    /// Reads [`HEAD_COLUMNS`] from a column on.
    pub(super) fn of_row(
        key: ProfileKey,
        row: &Row<'_>,
        first: usize,
        leases: Option<&Leases>,
    ) -> Result<Self, Trouble> {
        let lease = row.get_ref(first + 12)?.as_str().map_err(rusqlite::Error::from)?;
        let lease = statements::read_lease(leases, lease).map_err(|err| {
            corrupt(format!(
                "the lease of a key cannot be read: {err}: key=`{key}` lease=`{lease}`"
            ))
        })?;
        let mut head = Self {
            id: Some(row.get(first)?),
            epoch: unsigned(row, first + 1)?,
            version: unsigned(row, first + 2)?,
            created_ms: row.get(first + 3)?,
            current: row.get(first + 4)?,
            stored_ms: row.get(first + 5)?,
            flags: row.get(first + 6)?,
            users: row.get(first + 7)?,
            lease_revision: unsigned(row, first + 8)?,
            inbox_revision: unsigned(row, first + 9)?,
            last_message: unsigned(row, first + 10)?,
            waiting: unsigned(row, first + 11)?,
            lease,
            last_save: row
                .get::<_, Option<[u8; 16]>>(first + 13)?
                .map(|id| CommitId(Uuid::from_bytes(id))),
            stored: Fence::default(),
            info: None,
            written: None,
            key,
        };
        head.stored = head.fence();
        Ok(head)
    }
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

pub(super) fn corrupt(reason: String) -> Trouble {
    Trouble::Store(StoreError::Corrupt { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_a_head_are_as_many_as_are_counted() {
        assert_eq!(HEAD_COLUMNS.split(',').count(), HEAD_COLUMN_COUNT);
    }
}
