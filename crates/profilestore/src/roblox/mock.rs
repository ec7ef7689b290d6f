//! What the mock stores of a game server hold, in the form of documents.

use futures_util::FutureExt as _;
use serde_json::value::RawValue;

use crate::{
    api::game_server::GameServer,
    data_store::{DataStoreExt as _, KeyFilter, KeyQuery, KeyState, Returning, StoreError},
    document::compose,
    key::{DEFAULT_SCOPE, ProfileKey},
    record::{Stored, version::KeyInfo},
};

impl GameServer {
    /// What this server's mock stores hold under a key, in the document form of the specification's
    /// modules (see [`crate::document`]), with what is known about the current version. None when
    /// there is nothing. For tests that look into a mock.
    pub fn mock_document(&self, key: &ProfileKey) -> Option<(Box<RawValue>, KeyInfo)> {
        let mut state =
            mock_now(self.inner.mock_started()?.link.store.read_one(key, Returning::ALL))?.1;
        state.hide_edits();
        let (head, bytes) = (state.head.clone()?, state.value.clone()?);
        let stored = Stored::decode(&bytes).ok()?;
        let record = if let Stored::Profile(record) = &stored { Some(record) } else { None };
        let info = KeyInfo::of(&head, state.created_ms, record);
        Some((compose(&stored, &head, Some(&state)), info))
    }

    /// The keys of a mock store in the default scope that hold something, in order. See
    /// [`GameServer::mock_document`].
    pub fn mock_keys(&self, store: &str) -> Vec<String> {
        let query = KeyQuery {
            store: Some(store.to_owned()),
            scope: Some(DEFAULT_SCOPE.to_owned()),
            filter: KeyFilter::All,
            after: None,
            limit: usize::MAX,
        };
        let Some(mock) = self.inner.mock_started() else { return Vec::new() };
        let states = mock_now(mock.link.store.keys(&query)).unwrap_or_default();
        states
            .into_iter()
            .filter(KeyState::exists)
            .map(|state| state.key.key().to_owned())
            .collect()
    }
}

/// What a mock's store, which is a memory and never waits, answers.
fn mock_now<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    answer.now_or_never()?.ok()
}
