//! The program's own types, as far as an operator's caller knows them: by store and scope.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    data::{Codec, Data},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    record::Record,
};

/// Types by which edits of profiles that no server holds are judged. Without one such an edit
/// changes the JSON as it is stored.
#[derive(Clone, Default)]
pub(crate) struct Types(Arc<BTreeMap<(String, String), Arc<dyn Codec>>>);

impl fmt::Debug for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Types {
    /// These, and the type of one more store.
    pub(crate) fn and(&self, store: &str, scope: &str, codec: Arc<dyn Codec>) -> Self {
        let mut all = BTreeMap::clone(&self.0);
        all.insert((store.to_owned(), scope.to_owned()), codec);
        Self(Arc::new(all))
    }

    pub(super) fn of(&self, key: &ProfileKey) -> Option<&dyn Codec> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(key.store().to_owned(), key.scope().to_owned())).map(|codec| &**codec)
    }
}

/// The data of a profile's record, as a session would open it.
pub(super) fn opened(
    codec: &dyn Codec,
    key: &ProfileKey,
    record: &Record,
) -> Result<Arc<dyn Data>> {
    catch_unwind(AssertUnwindSafe(|| codec.open(key, record))).unwrap_or_else(|_| {
        let message = "the program panicked while it opened the data; nothing was changed";
        Err(Error::new(ErrorKind::Undecodable, message))
    })
}
