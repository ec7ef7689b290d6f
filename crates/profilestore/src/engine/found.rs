//! What a start found in the store, made ready to become a session. Before the profile is taken, so
//! that one that cannot be opened is not locked either.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    newborn::{StandingError, StandingLists},
    options::StartOptions,
};
use crate::{
    data::{Codec, Data, encode},
    data_store::{Change, KeyState},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::Link,
    record::{Record, Stored},
};

/// Decodes a record. The decoder is the program's.
fn open(codec: &dyn Codec, key: &ProfileKey, record: &Record) -> Result<Arc<dyn Data>> {
    catch_unwind(AssertUnwindSafe(|| codec.open(key, record))).unwrap_or_else(|_| {
        let message = "the stored data does not fit the program's type: its decoder panicked";
        Err(Error::new(ErrorKind::Undecodable, message))
    })
}

/// What a start found in the store, made ready to be taken.
pub(super) struct Found {
    pub(super) record: Record,
    pub(super) bytes: Bytes,
    pub(super) data: Arc<dyn Data>,
    /// A version must be written with the start: the profile is new, or replaces something that is
    /// none.
    pub(super) write: bool,
    /// A version is written with the start when every save is kept, and when the profile is taken
    /// from a holder.
    pub(super) write_each: bool,
    pub(super) overwrites: bool,
}

impl Found {
    pub(super) fn read(
        state: &KeyState,
        codec: &dyn Codec,
        options: &StartOptions,
        now_ms: i64,
    ) -> Result<Self> {
        let bytes = match (&state.value, state.exists()) {
            (Some(bytes), true) => bytes,
            _ => return Self::new_profile(codec, now_ms, false),
        };
        let foreign = |why: String| {
            if options.overwrite {
                Self::new_profile(codec, now_ms, true)
            } else {
                Err(Error::new(
                    ErrorKind::Foreign,
                    format!(
                        "what is stored is not a profile ({why}); it is left alone unless you \
                        ask to overwrite it"
                    ),
                ))
            }
        };
        match Stored::decode(bytes) {
            Ok(Stored::Profile(record)) => {
                let data = open(codec, &state.key, &record)?;
                Ok(Self {
                    bytes: bytes.clone(),
                    data,
                    record,
                    write: false,
                    write_each: true,
                    overwrites: false,
                })
            }
            Ok(Stored::MessagesOnly(_)) => Self::new_profile(codec, now_ms, false),
            // It has a player's data. Other values are replaced when the program asks for that.
            Ok(Stored::Foreign(value)) if value.is_large_profile() => Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "the stored profile, or a message in it, is too large to be opened here; \
                        it is left alone; make it smaller through a raw data store: size=`{}`",
                    value.value.get().len()
                ),
            )),
            Ok(Stored::Foreign(_)) => foreign("a value of another kind".into()),
            Err(error) => foreign(error.to_string()),
        }
    }

    /// Applies the edits that stand to a profile that is about to be created. Answers with what
    /// that adds to the commit.
    pub(super) async fn edit(
        &mut self,
        standing: &StandingLists,
        link: &Link,
        state: &KeyState,
        codec: &dyn Codec,
    ) -> Result<Vec<Change>, StandingError> {
        let newborn = standing.newborn(link, state, &self.record, &self.data, codec).await?;
        if newborn.applied > 0 {
            self.bytes = encode(&*newborn.data, &self.record)?;
            self.record.data = newborn.data.to_json().map_err(|error| {
                Error::new(ErrorKind::Invalid, "the edited data cannot be stored as JSON")
                    .caused_by(error)
            })?;
            self.data = newborn.data;
        }
        Ok(newborn.changes)
    }

    fn new_profile(codec: &dyn Codec, now_ms: i64, overwrites: bool) -> Result<Self> {
        let data = codec.template()?;
        let json = data.to_json().map_err(|error| {
            Error::new(ErrorKind::Invalid, "the template cannot be stored as JSON").caused_by(error)
        })?;
        let mut record = Record::new(now_ms.div_euclid(1000), json);
        codec.stamp(&mut record);
        let bytes = encode(&*data, &record)?;
        Ok(Self { record, bytes, data, write: true, write_each: true, overwrites })
    }
}
