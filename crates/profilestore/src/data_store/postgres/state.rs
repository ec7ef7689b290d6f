//! The rows of the store as values: a key's head, game servers, versions.

use bytes::Bytes;
use tokio_postgres::{Row, types::FromSql};
use uuid::Uuid;

use super::schema::{IMPORTED, PINNED, REMOVED, SEALED};
use crate::{
    data_store::{
        Cause, CommitId, HostId, KeyState, LeaseState, Returning, ServerId, ServerRow, StoreError,
        StoredMessage, VersionInfo, checksum,
        rules::{Counters, Replaced},
    },
    key::ProfileKey,
};

/// What [`Head::of_row`] reads of the head itself.
macro_rules! own_columns {
    () => {
        "h.epoch, h.version, h.created_ms, h.flags, h.users, h.lease_revision, h.inbox_revision, h.last_message, h.waiting, \
         h.lease, h.written_ms, h.stored_ms, h.load_count, h.cause, h.author, h.label, octet_length(h.value)::bigint, \
         h.last_save"
    };
}
pub(super) use own_columns;

/// What [`Head::of_row`] reads, from `head h LEFT JOIN server s ON s.id = h.holder`.
macro_rules! head_columns {
    () => {
        concat!(own_columns!(), ", ", server_columns!())
    };
}
pub(super) use head_columns;

/// How many columns that are.
pub(super) const HEAD_COLUMNS: usize = 29;

/// What [`server_of_row`] reads.
macro_rules! server_columns {
    () => {
        "s.id, s.place_id, s.job_id, s.revision, s.lease_ms, s.started_ms, s.renewed_ms, s.dead_ms, s.host, s.generation, s.owner"
    };
}
pub(super) use server_columns;

/// How many columns that are.
pub(super) const SERVER_COLUMNS: usize = 11;

/// A current value, as far as it is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    NotRead,
    Known(Option<Bytes>),
}

/// A key's row, or what it will be; `exists` is false for a key that has none yet.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) key: ProfileKey,
    pub(super) exists: bool,
    pub(super) epoch: u64,
    pub(super) created_ms: i64,
    pub(super) flags: i64,
    /// The users of the current version, eight bytes each.
    pub(super) users: Vec<u8>,
    pub(super) lease_revision: u64,
    pub(super) inbox_revision: u64,
    pub(super) last_message: u64,
    pub(super) waiting: u64,
    pub(super) lease: LeaseState,
    /// The last of [`rules::is_own_save`](crate::data_store::rules::is_own_save) in this epoch.
    pub(super) last_save: Option<CommitId>,
    /// About the current version; None with version 0.
    pub(super) info: Option<VersionInfo>,
    pub(super) value: Value,
    /// The holder's server as it was read with the head.
    pub(super) holder: Option<ServerRow>,
}

impl Head {
    pub(super) fn absent(key: ProfileKey) -> Self {
        Self {
            key,
            exists: false,
            epoch: 0,
            created_ms: 0,
            flags: 0,
            users: Vec::new(),
            lease_revision: 0,
            inbox_revision: 0,
            last_message: 0,
            waiting: 0,
            lease: LeaseState::default(),
            last_save: None,
            info: None,
            value: Value::Known(None),
            holder: None,
        }
    }

    /// Reads [`head_columns!`] from a column on.
    pub(super) fn of_row(key: ProfileKey, row: &Row, first: usize) -> Result<Self, StoreError> {
        let lease = lease_of_text(get(row, first + 9)?, &key)?;
        let flags: i64 = get(row, first + 3)?;
        let version = unsigned(row, first + 1)?;
        let info = (version > 0)
            .then(|| {
                Ok(VersionInfo {
                    number: version,
                    label: get(row, first + 15)?,
                    written_ms: get(row, first + 10)?,
                    stored_ms: get(row, first + 11)?,
                    superseded_ms: None,
                    removed: flags & REMOVED != 0,
                    cause: cause(get(row, first + 13)?, &key)?,
                    author: get(row, first + 14)?,
                    load_count: unsigned(row, first + 12)?,
                    pinned: flags & PINNED != 0,
                    bytes: get::<Option<i64>>(row, first + 16)?.unwrap_or(0).cast_unsigned(),
                })
            })
            .transpose()?;
        let holder = joined_server(row, first + 18)?;
        Ok(Self {
            exists: true,
            epoch: unsigned(row, first)?,
            created_ms: get(row, first + 2)?,
            flags,
            users: get(row, first + 4)?,
            lease_revision: unsigned(row, first + 5)?,
            inbox_revision: unsigned(row, first + 6)?,
            last_message: unsigned(row, first + 7)?,
            waiting: unsigned(row, first + 8)?,
            lease,
            last_save: get::<Option<Uuid>>(row, first + 17)?.map(CommitId),
            value: if info.is_none() { Value::Known(None) } else { Value::NotRead },
            info,
            holder,
            key,
        })
    }

    /// Reads the current value from two columns, its checksum first, if it is the one that was
    /// written.
    pub(super) fn read_value(&mut self, row: &Row, first: usize) -> Result<(), StoreError> {
        self.value = Value::Known(match &self.info {
            Some(info) => value(row, first, &self.key, info)?,
            None => None,
        });
        Ok(())
    }

    pub(super) fn version(&self) -> u64 {
        self.info.as_ref().map_or(0, |info| info.number)
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            epoch: self.epoch,
            version: self.version(),
            lease_revision: self.lease_revision,
            inbox_revision: self.inbox_revision,
            waiting: self.waiting,
        }
    }

    pub(super) fn replaced(&self) -> Replaced {
        Replaced {
            stored_ms: self.info.as_ref().map_or(0, |info| info.stored_ms),
            removed: self.flags & REMOVED != 0,
            sealed: self.flags & SEALED != 0,
            pinned: self.flags & PINNED != 0,
            imported: self.flags & IMPORTED != 0,
        }
    }

    pub(super) fn holder_id(&self) -> Option<ServerId> {
        self.lease.holder.as_ref().and_then(|holder| holder.server)
    }

    /// True when the inbox is to be shown and there is something in it.
    pub(super) fn shows_inbox(&self, returning: Returning) -> bool {
        self.waiting > 0 && self.wants_inbox(returning)
    }

    pub(super) fn wants_inbox(&self, returning: Returning) -> bool {
        returning.inbox_unless.is_some_and(|revision| revision != self.inbox_revision)
    }

    /// What the key holds. `inbox` is its messages, if they are to be shown.
    pub(super) fn state(
        &self,
        returning: Returning,
        holder: Option<ServerRow>,
        inbox: Vec<StoredMessage>,
    ) -> KeyState {
        let value = match &self.value {
            Value::Known(value) if returning.value => value.clone(),
            _ => None,
        };
        KeyState {
            key: self.key.clone(),
            epoch: self.epoch,
            version: self.version(),
            created_ms: self.created_ms,
            head: self.info.clone(),
            lease: self.lease.clone(),
            lease_revision: self.lease_revision,
            holder_server: holder,
            inbox_revision: self.inbox_revision,
            last_message: self.last_message,
            inbox: self.wants_inbox(returning).then_some(inbox),
            value,
        }
    }
}

/// Reads [`server_columns!`] from a column on.
pub(super) fn server_of_row(row: &Row, first: usize) -> Result<ServerRow, StoreError> {
    Ok(ServerRow {
        id: ServerId(get(row, first)?),
        place_id: get(row, first + 1)?,
        job_id: get(row, first + 2)?,
        revision: unsigned(row, first + 3)?,
        lease_ms: get(row, first + 4)?,
        started_ms: get(row, first + 5)?,
        renewed_ms: get(row, first + 6)?,
        dead: get::<Option<i64>>(row, first + 7)?.is_some(),
        host: get::<Option<Uuid>>(row, first + 8)?.map(HostId),
        generation: unsigned(row, first + 9)?,
        owner: get(row, first + 10)?,
    })
}

/// The same of a row to which a server was joined, if there is one.
pub(super) fn joined_server(row: &Row, first: usize) -> Result<Option<ServerRow>, StoreError> {
    get::<Option<Uuid>>(row, first)?.map(|_| server_of_row(row, first)).transpose()
}

/// Reads a key from three columns.
pub(super) fn key_of_row(row: &Row, first: usize) -> Result<ProfileKey, StoreError> {
    let (store, scope, key): (&str, &str, &str) =
        (get(row, first)?, get(row, first + 1)?, get(row, first + 2)?);
    ProfileKey::new(store, scope, key).map_err(|err| {
        corrupt(format!(
            "a stored key is no valid name: {err}: store=`{store}` scope=`{scope}` key=`{key}`"
        ))
    })
}

pub(super) fn cause(word: &str, key: &ProfileKey) -> Result<Cause, StoreError> {
    Cause::parse(word).ok_or_else(|| {
        corrupt(format!("a version has an unknown cause: key=`{key}` cause=`{word}`"))
    })
}

pub(super) fn lease_of_text(text: &str, key: &ProfileKey) -> Result<LeaseState, StoreError> {
    serde_json::from_str(text).map_err(|err| {
        corrupt(format!("the lease of a key cannot be read: {err}: key=`{key}` lease=`{text}`"))
    })
}

/// A column, or the store is damaged.
pub(super) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(|err| corrupt(format!("a row cannot be understood: {err}")))
}

pub(super) fn unsigned(row: &Row, column: usize) -> Result<u64, StoreError> {
    get::<i64>(row, column).map(i64::cast_unsigned)
}

pub(super) fn bytes(row: &Row, column: usize) -> Result<Option<Bytes>, StoreError> {
    Ok(get::<Option<&[u8]>>(row, column)?.map(Bytes::copy_from_slice))
}

/// The value of a version from two columns, its checksum first, if it is the one that was written.
pub(super) fn value(
    row: &Row,
    first: usize,
    key: &ProfileKey,
    info: &VersionInfo,
) -> Result<Option<Bytes>, StoreError> {
    let stored = get::<Option<i32>>(row, first)?.map(i32::cast_unsigned);
    let value = bytes(row, first + 1)?;
    checksum::verify(key, info, value.as_deref(), stored)?;
    Ok(value)
}

pub(super) fn corrupt(reason: String) -> StoreError {
    StoreError::Corrupt { reason }
}
