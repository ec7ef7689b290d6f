//! Going through all that a store holds, key by key.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{ExportFilter, Progress, TransferError, UnreadableValue};
use crate::{
    ProfileKey,
    data_store::{
        DataStore, DataStoreExt, KeyQuery, KeyState, Order, Returning, StoreError, StoredVersion,
        VersionInfo, VersionQuery, VersionRef,
    },
    filter::{Filter, ScanLimits, UnreadableProfile, scan},
};

const KEYS_A_PAGE: usize = 256;

/// How many keys are read together, and with how many bytes of values, unless it is a single one.
const KEYS_AT_ONCE: usize = 64;
const BYTES_AT_ONCE: u64 = 4 << 20;

const VERSIONS_A_PAGE: usize = 1024;

/// How many versions are read at once. Their values may be 4 MiB each.
const READ_AT_ONCE: usize = 16;

/// The keys of a store, one after the other.
pub(super) struct Keys<'a> {
    store: &'a dyn DataStore,
    query: KeyQuery,
    /// Listed, and yet to be read.
    page: std::vec::IntoIter<KeyState>,
    /// Read, and yet to be given out.
    read: std::vec::IntoIter<KeyState>,
    last_page: bool,
    books: bool,
    search: Option<Filter>,
    unreadable: Vec<UnreadableValue>,
}

impl<'a> Keys<'a> {
    /// The keys that `filter` means; the library's own books among them only if it names their
    /// store.
    pub(super) fn of_profiles(store: &'a dyn DataStore, filter: &ExportFilter) -> Self {
        Self { books: false, search: filter.filter.clone(), ..Self::all(store, filter) }
    }

    /// The keys that `filter` means, the library's own books included.
    pub(super) fn all(store: &'a dyn DataStore, filter: &ExportFilter) -> Self {
        let ExportFilter { store: name, scope, keys, .. } = filter.clone();
        let query = KeyQuery { store: name, scope, filter: keys, after: None, limit: KEYS_A_PAGE };
        Self {
            store,
            query,
            page: Vec::new().into_iter(),
            read: Vec::new().into_iter(),
            last_page: false,
            books: true,
            search: None,
            unreadable: Vec::new(),
        }
    }

    /// The profiles that the search could not tell of.
    pub(super) fn unreadable(self) -> Vec<UnreadableValue> {
        self.unreadable
    }

    /// The next key with all that it holds now.
    pub(super) async fn next(
        &mut self,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Option<KeyState>, TransferError> {
        loop {
            if let Some(mut state) = self.read.next() {
                state.hide_edits();
                return Ok(Some(state));
            }
            let together = at_once(self.page.as_slice());
            if together > 0 {
                let listed = self.page.by_ref().take(together);
                let keys: Vec<ProfileKey> = listed.map(|state| state.key).collect();
                self.read = read_all(self.store, &keys).await?.into_iter();
                continue;
            }
            if self.last_page {
                return Ok(None);
            }
            let (page, next) = match (&self.search, self.books) {
                (Some(search), _) => {
                    let limits = ScanLimits { matches: KEYS_A_PAGE, until: None };
                    let found = scan(self.store, &self.query, search, limits).await?;
                    progress(Progress::LookedAt { keys: found.looked_at });
                    let unreadable = found.unreadable.into_iter();
                    self.unreadable.extend(unreadable.map(|UnreadableProfile { key, why }| {
                        UnreadableValue { key, number: 0, why }
                    }));
                    (found.matches, found.next)
                }
                (None, true) => {
                    let page = self.store.keys(&self.query).await?;
                    let next = page
                        .last()
                        .map(|state| state.key.clone())
                        .filter(|_| page.len() == KEYS_A_PAGE);
                    (page, next)
                }
                (None, false) => self.store.profiles(&self.query).await?,
            };
            self.last_page = next.is_none();
            self.query.after = next;
            self.page = page.into_iter();
        }
    }
}

/// How many of the keys that come next are read together: at least one, if there are any. A key
/// that ever had messages is read by itself, since nothing tells how large those are.
fn at_once(listed: &[KeyState]) -> usize {
    let mut bytes = 0;
    let together = listed.iter().take(KEYS_AT_ONCE).take_while(|state| {
        bytes += state.head.as_ref().map_or(0, |head| head.bytes);
        bytes <= BYTES_AT_ONCE && state.last_message == 0
    });
    together.count().max(1).min(listed.len())
}

/// All that these keys hold; without the value where that is damaged.
async fn read_all(store: &dyn DataStore, keys: &[ProfileKey]) -> Result<Vec<KeyState>, StoreError> {
    match store.read(keys, Returning::ALL).await {
        Err(StoreError::Damaged { .. }) => {}
        read => return Ok(read?.states),
    }
    let mut states = Vec::with_capacity(keys.len());
    for key in keys {
        let (_, state) = match store.read_one(key, Returning::ALL).await {
            // All but its current version may be whole.
            Err(StoreError::Damaged { .. }) => store.read_one(key, Returning::INBOX).await?,
            read => read?,
        };
        states.push(state);
    }
    Ok(states)
}

/// The current version of a key, as [`each_version`] gives it.
pub(super) fn current_version(
    state: &KeyState,
    mut each: impl FnMut(Result<StoredVersion, u64>) -> Result<(), TransferError>,
) -> Result<(), TransferError> {
    let Some(head) = &state.head else { return Ok(()) };
    // A value that is there and was not shown is damaged.
    match state.value.is_none() && !head.removed {
        true => each(Err(head.number)),
        false => each(Ok(StoredVersion { info: head.clone(), value: state.value.clone() })),
    }
}

/// The kept versions of a key up to a number, oldest first.
pub(super) async fn all_versions(
    store: &dyn DataStore,
    key: &ProfileKey,
    up_to: u64,
) -> Result<Vec<VersionInfo>, TransferError> {
    let mut query = VersionQuery {
        key: key.clone(),
        order: Order::Ascending,
        from_ms: None,
        to_ms: None,
        after: None,
        limit: VERSIONS_A_PAGE,
    };
    let mut all = Vec::new();
    loop {
        let page = store.versions(&query).await?;
        let last_page = page.len() < VERSIONS_A_PAGE;
        query.after = page.last().map(|info| info.number);
        all.extend(page.into_iter().filter(|info| info.number <= up_to));
        if last_page || query.after.is_some_and(|number| number >= up_to) {
            return Ok(all);
        }
    }
}

/// The kept versions of a key with their values, up to the one that `state` holds, oldest first.
/// Gives each to `each`; of one whose value is damaged, only its number.
///
/// What is written meanwhile is not among them, so that the state is the state of the last one.
/// What is swept away meanwhile is not either.
pub(super) async fn each_version(
    store: &dyn DataStore,
    state: &KeyState,
    mut each: impl FnMut(Result<StoredVersion, u64>) -> Result<(), TransferError>,
) -> Result<(), TransferError> {
    let Some(head) = &state.head else {
        return Ok(());
    };
    let mut earlier = match head.number {
        // There is none before it, as with every entry of the audit log that was written once.
        1 => Vec::new(),
        number => all_versions(store, &state.key, number).await?,
    };
    earlier.retain(|info| info.number < head.number);
    let reads = earlier.into_iter().map(|info| async move {
        match store.version(&state.key, &VersionRef::Number(info.number)).await {
            Err(StoreError::Damaged { version, .. }) => Ok(Some(Err(version))),
            read => read.map(|version| version.map(Ok)),
        }
    });
    let mut reads = stream::iter(reads).buffered(READ_AT_ONCE);
    while let Some(version) = reads.try_next().await? {
        if let Some(version) = version {
            each(version)?;
        }
    }
    current_version(state, each)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_store::Cause;

    fn listed(name: &str, bytes: u64, last_message: u64) -> KeyState {
        let head = VersionInfo {
            number: 1,
            label: None,
            written_ms: 0,
            stored_ms: 0,
            superseded_ms: None,
            removed: false,
            cause: Cause::Save,
            author: "job".into(),
            load_count: 1,
            pinned: false,
            bytes,
        };
        let key = ProfileKey::new("PlayerData", "global", name).unwrap();
        KeyState { head: Some(head), last_message, ..KeyState::absent(key) }
    }

    #[test]
    fn keys_are_read_together_up_to_a_number_and_a_size_and_those_with_messages_alone() {
        let small = vec![listed("a", 700, 0); KEYS_AT_ONCE + 9];
        assert_eq!(at_once(&small), KEYS_AT_ONCE);
        assert_eq!(at_once(&small[..5]), 5);
        assert_eq!(at_once(&[]), 0);
        let large = vec![listed("a", BYTES_AT_ONCE / 2, 0); 5];
        assert_eq!(at_once(&large), 2);
        assert_eq!(at_once(&vec![listed("a", BYTES_AT_ONCE + 1, 0); 2]), 1);
        let with_messages = [listed("a", 1, 0), listed("b", 1, 3), listed("c", 1, 0)];
        assert_eq!(at_once(&with_messages), 1);
        assert_eq!(at_once(&with_messages[1..]), 1);
    }
}
