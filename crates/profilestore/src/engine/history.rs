//! Calls about a profile's earlier versions. Each runs in the key's queue, as the calls in [`super::calls`] do.

use std::sync::Arc;

use super::Engine;
use crate::{
    data_store::{KeyState, Returning, StoredVersion, VersionInfo, VersionQuery, VersionRef},
    error::Result,
    history::{find_version, version_at},
    key::ProfileKey,
};

/// Which version a call is about.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    Named(VersionRef),
    /// The one that was current at this time, Unix milliseconds.
    At(i64),
}

impl Engine {
    /// A page of versions, and when the key was created.
    pub(crate) fn versions(
        self: &Arc<Self>,
        query: VersionQuery,
    ) -> impl Future<Output = Result<(i64, Vec<VersionInfo>)>> + Send + 'static + use<> {
        let (engine, key) = (self.clone(), query.key.clone());
        self.call(&key, async move {
            let (_, state) = engine.read_settled(&query.key, Returning::HEAD).await?;
            let page = engine.reading(Some(&query.key), || engine.store.versions(&query)).await?;
            Ok((state.created_ms, page))
        })
    }

    pub(crate) fn get_version(
        self: &Arc<Self>,
        key: &ProfileKey,
        which: Which,
    ) -> impl Future<Output = Result<(KeyState, Option<StoredVersion>)>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.call(key, async move {
            let (_, state) = engine.read_settled(&key_, Returning::INBOX).await?;
            let found = engine.find(&state, &which).await?;
            Ok((state, found))
        })
    }

    async fn find(&self, state: &KeyState, which: &Which) -> Result<Option<StoredVersion>> {
        let store = &*self.store;
        let found = match which {
            Which::Named(version) => self.reading(Some(&state.key), || find_version(store, state, version)).await,
            Which::At(unix_ms) => self.reading(Some(&state.key), || version_at(store, state, *unix_ms)).await,
        };
        Ok(found?)
    }
}
