//! What the operators of a database look at: how large it is, and whether it is tidied up.

use serde::Serialize;

/// A table of a store, or its file. See [`super::DataStore::upkeep`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TableUpkeep {
    /// Its name.
    pub name: String,
    /// How large it is with its indices, in bytes.
    pub bytes: u64,
    /// Of these, how many are free to be used again. None: not known.
    pub free_bytes: Option<u64>,
    /// How many rows it has, as far as the database keeps count. None: it does not.
    pub rows: Option<u64>,
    /// How many rows were replaced or deleted and not tidied up yet. None: not known.
    pub dead_rows: Option<u64>,
    /// When it was tidied up last, Unix milliseconds. None: never, or not known.
    pub vacuumed_ms: Option<i64>,
}

impl TableUpkeep {
    /// One of which no more than this is known.
    pub fn new(name: impl Into<String>, bytes: u64) -> Self {
        Self { name: name.into(), bytes, ..Self::default() }
    }
}
