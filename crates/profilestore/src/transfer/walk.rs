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
const VERSIONS_A_PAGE: usize = 1024;

/// How many versions are read at once. Their values may be 4 MiB each.
const READ_AT_ONCE: usize = 16;

/// The keys of a store, one after the other.
pub(super) struct Keys<'a> {
    store: &'a dyn DataStore,
    query: KeyQuery,
    page: std::vec::IntoIter<KeyState>,
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
            if let Some(state) = self.page.next() {
                let (_, mut state) = match self.store.read_one(&state.key, Returning::ALL).await {
                    // All but its current version may be whole.
                    Err(StoreError::Damaged { .. }) => {
                        self.store.read_one(&state.key, Returning::INBOX).await?
                    }
                    read => read?,
                };
                state.hide_edits();
                return Ok(Some(state));
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
    let mut earlier = all_versions(store, &state.key, head.number).await?;
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
